"""Pixels of a raster anchored at level 0, made from the pixels of a pyramid level. Pure: arrays in, arrays out.

Raster pixel k covers the level's pixels [k * ratio, (k + 1) * ratio). Shrinking averages over exactly that stretch,
with fractional weights at its ends, so a raster pixel has one value, whichever box it is computed with. (Pillow's
BOX filter takes whole pixels only: at ratios such as 2.5 rounding dust then decides which ones.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Size

SNAP = 1e-3
"""A ratio this close to 1 is taken as 1: pixels are chosen, not mixed."""

_CHUNK_BYTES = 256 << 10
"""Size of the buffers that rows are mixed in: what stays in the processor's cache is mixed twice as fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """How the pixels along one axis of a raster are mixed from a level's pixels."""

    index: NDArray[np.int64]
    """[taps, n]: the level's pixels, as numbers along its axis."""
    weight: NDArray[np.float32]
    """[taps, n]: their weights; each column adds up to 1."""

    @classmethod
    def plan(cls, first: int, count: int, ratio: float) -> "Taps":
        """Taps of raster pixels `first` to `first + count - 1` at `ratio` level pixels per raster pixel."""
        pixels = np.arange(first, first + count)
        if abs(ratio - 1) <= SNAP:
            index, weight = np.floor((pixels + 0.5) * ratio)[None], np.ones((1, count))
        elif ratio > 1:
            index, weight = _average(pixels, ratio)
        else:
            centre = (pixels + 0.5) * ratio - 0.5
            low = np.floor(centre)
            index, weight = np.stack([low, low + 1]), np.stack([low + 1 - centre, centre - low])
        return cls(index=index.astype(np.int64), weight=weight.astype(np.float32))

    @property
    def start(self) -> int:
        """The first level pixel needed."""
        return int(self.index.min())

    @property
    def length(self) -> int:
        """How many level pixels are needed, from `start` on."""
        return int(self.index.max()) + 1 - self.start

    @property
    def chooses(self) -> bool:
        """Whether each raster pixel is one level pixel."""
        return len(self.index) == 1

    def part(self, first: int, last: int) -> "Taps":
        """The taps of raster pixels `first` to `last - 1`, counted from this plan's first."""
        return Taps(index=self.index[:, first:last], weight=self.weight[:, first:last])


def _average(pixels: NDArray[np.int64], ratio: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = pixels * ratio, (pixels + 1) * ratio
    index = np.floor(low) + np.arange(int(np.ceil(ratio)) + 1)[:, None]
    weight = np.clip(np.minimum(high, index + 1) - np.maximum(low, index), 0, None) / ratio
    # Rounding dust at the ends must not ask for one more pixel than is needed.
    weight[weight < 1e-7] = 0
    used = np.where(weight > 0, index, -np.inf).max(axis=0)
    index = np.minimum(index, used)
    kept = weight.any(axis=1)
    return index[kept], weight[kept]


def resample(source: NDArray[np.uint8], rows: Taps, cols: Taps) -> NDArray[np.uint8]:
    """Mix a raster from `source`.

    Args:
        source: RGB uint8 [rows.length, cols.length, 3], the level's pixels from (rows.start, cols.start) on.
        rows: Taps along the first axis.
        cols: Taps along the second axis.

    Returns:
        RGB uint8, one pixel per column of the taps of each axis.
    """
    row_index, col_index = rows.index - rows.start, cols.index - cols.start
    height, width = row_index.shape[1], col_index.shape[1]
    if rows.chooses and cols.chooses:
        if source.shape[:2] == (height, width):
            return source
        chosen: NDArray[np.uint8] = source.take(row_index[0], 0).take(col_index[0], 1)
        return chosen
    out = np.empty((height, width, 3), np.uint8)
    chunk = min(height, max(1, _CHUNK_BYTES // (source.shape[1] * 12)))
    down = _Mixer(Size(source.shape[1], chunk), np.uint8)
    along = _Mixer(Size(width, chunk), np.float32)
    for first in range(0, height, chunk):
        here = slice(first, first + chunk)
        mixed = down.mix(source, row_index[:, here], rows.weight[:, here], axis=0)
        mixed = along.mix(mixed, col_index, cols.weight, axis=1)
        mixed += np.float32(0.5)
        out[here] = mixed
    return out


class _Mixer:
    """Weighted sums of pixels along one axis, in buffers that are used again; at most `size` of them at once."""

    def __init__(self, size: Size, dtype: type[np.generic]) -> None:
        shape = (size.height, size.width, 3)
        self._picked = np.empty(shape, dtype)
        self._part, self._total = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def mix(
        self,
        values: NDArray[np.uint8] | NDArray[np.float32],
        index: NDArray[np.int64],
        weight: NDArray[np.float32],
        *,
        axis: int,
    ) -> NDArray[np.float32]:
        """The sums, valid until the next call; `index` and `weight` as in `Taps`, an index counts in `values`."""
        rows = index.shape[1] if axis == 0 else len(values)
        picked, part, total = self._picked[:rows], self._part[:rows], self._total[:rows]
        # Channels are laid side by side, so that numpy's inner loop is a row and not the three of a pixel.
        flat, flat_part, flat_total = (array.reshape(rows, -1) for array in (picked, part, total))
        shares = weight[:, :, None] if axis == 0 else np.repeat(weight, 3, axis=1)[:, None]
        for n, (which, share) in enumerate(zip(index, shares, strict=True)):
            # Every index is within bounds; not to raise where one is not spares a copy.
            values.take(which, axis, out=picked, mode="clip")
            np.multiply(flat, share, out=flat_part if n else flat_total)
            if n:
                flat_total += flat_part
        return total
