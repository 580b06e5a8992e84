"""The maps of results: read from their heatmaps, kept in memory, packed for the page."""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.viewer.cache import ByteCache, Crossings
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.results import HEATMAP, SlideEntry, is_inside

Layer = Literal["probability", "spread", "unrefined", "tissue"]

_PACKED_BYTES = 128 << 20
_EXTENTS = 10_000
_GZIP_LEVEL = 1
"""The page runs on the same machine: packing must be quick."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideMap:
    """What a heatmap holds, each array [rows, cols]."""

    grid: Grid
    positive_class: str
    probability: NDArray[np.float32]
    """Of the positive class, NaN where it is not known."""
    spread: NDArray[np.float32] | None
    unrefined: NDArray[np.float32] | None
    """The probability before the second stage."""
    tissue: NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.probability, self.spread, self.unrefined, self.tissue)
        return sum(array.nbytes for array in arrays if array is not None)


class Maps:
    """Reads heatmaps, and keeps those that were asked for last.

    Args:
        limit: Bound on what is kept, bytes.
    """

    def __init__(self, limit: int) -> None:
        self._maps: ByteCache[SlideMap] = ByteCache(limit, lambda kept: kept.nbytes)
        self._packed: ByteCache[bytes] = ByteCache(min(limit, _PACKED_BYTES), len)
        # Every tile asks for it, also of a map that is too large to be kept.
        self._extents: ByteCache[Box] = ByteCache(_EXTENTS, lambda _: 1)
        self._crossings = Crossings()

    def get(self, entry: SlideEntry) -> SlideMap:
        """The map of a result.

        Raises:
            RequestError: where the slide failed, or has no heatmap inside the results.
            ResultsMismatchError: where the heatmap is damaged.
        """
        entry.require_done()
        key = entry.id, entry.stamp
        with self._crossings.of(key):
            found = self._maps.get(key) or self._maps.put(key, _read(entry))
            self._extents.put(key, found.grid.extent)
            return found

    def extent(self, entry: SlideEntry) -> Box:
        """Part of level 0 that the map covers, which is the image that is shown; the map is read once for it.

        Raises:
            RequestError: as `get`.
            ResultsMismatchError: as `get`.
        """
        entry.require_done()
        return self._extents.get((entry.id, entry.stamp)) or self.get(entry).grid.extent

    def packed(self, entry: SlideEntry, layer: Layer) -> bytes:
        """A layer, row by row, gzipped: float32 little-endian, for `tissue` uint8.

        Raises:
            RequestError: 404 where the result has no such layer; else as `get`.
        """
        key = entry.id, entry.stamp, layer
        known = self._packed.get(key)
        if known is not None:
            return known
        array = getattr(self.get(entry), layer)
        if array is None:
            raise RequestError(404, entry.name, f"has no {layer}")
        data = np.ascontiguousarray(array, "u1" if layer == "tissue" else "<f4").tobytes()
        return self._packed.put(key, gzip.compress(data, _GZIP_LEVEL, mtime=0))


def etag(*parts: object) -> str:
    """A strong entity tag of what an answer depends on."""
    return f'"{sha256(repr(parts).encode()).hexdigest()[:32]}"'


def _read(entry: SlideEntry) -> SlideMap:
    path = entry.file(HEATMAP)
    if any(part.is_symlink() and not is_inside(part, entry.root) for part in path.rglob("*")):
        raise RequestError(404, entry.name, "has a heatmap with links out of the results", "Copy the results whole.")
    heatmap = Heatmap.open(path)
    return SlideMap(
        grid=heatmap.grid,
        positive_class=heatmap.positive_class,
        probability=heatmap.probability(heatmap.positive_class),
        spread=heatmap.spread(),
        unrefined=heatmap.unrefined(),
        tissue=heatmap.tissue,
    )
