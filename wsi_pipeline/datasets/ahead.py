"""The patches of a data set in order, decoded ahead by a few threads while a network works on those before."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.images import fit_size
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size

CHUNK_BYTES = 48 << 20
"""Decoded patches that are held at once, and as much again that is read ahead."""

MAX_CHUNK = 4096
READERS = 4
READ_TOGETHER = 64
"""Patches that a reading thread takes at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some patches in a row."""

    rows: NDArray[np.int64]
    """[n]: places in the data set of those that could be read."""
    fields: NDArray[np.uint8]
    """Their pixels, RGB [n, side, side, 3]."""
    errors: dict[str, DatasetError]
    """Of each patch that could not be read, by its name."""


def read_ahead(dataset: PatchDataset, side: int) -> Iterator[Chunk]:
    """All patches, each made `side` pixels wide and high by `fit_size`. One that cannot be read stops no other."""
    count = max(1, min(MAX_CHUNK, CHUNK_BYTES // (3 * side * side)))
    parts = [range(start, min(start + count, len(dataset))) for start in range(0, len(dataset), count)]
    ahead: deque[list[Future[Chunk]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for n, _ in enumerate(parts):
            while len(ahead) < 2 and n + len(ahead) < len(parts):
                part = parts[n + len(ahead)]
                pieces = [part[start : start + READ_TOGETHER] for start in range(0, len(part), READ_TOGETHER)]
                ahead.append([pool.submit(_read, dataset, piece, side) for piece in pieces])
            yield _join([future.result() for future in ahead.popleft()])


def _read(dataset: PatchDataset, rows: Sequence[int], side: int) -> Chunk:
    """Some patches, all at once; where that fails, one by one, so that only the broken ones are lost."""
    size, found, errors = Size(side, side), dict[int, NDArray[np.uint8]](), dict[str, DatasetError]()
    try:
        for place, pixels in dataset.read_each(rows):
            found[rows[place]] = fit_size(pixels, size)
    except DatasetError:
        for row in rows:
            if row not in found:
                try:
                    found[row] = fit_size(dataset.read(row), size)
                except DatasetError as error:
                    errors[dataset.samples[row].name] = error
    kept = sorted(found)
    pixels = np.stack([found[row] for row in kept]) if kept else np.empty((0, side, side, 3), np.uint8)
    return Chunk(rows=np.array(kept, np.int64), fields=pixels, errors=errors)


def _join(pieces: Sequence[Chunk]) -> Chunk:
    return Chunk(
        rows=np.concatenate([piece.rows for piece in pieces]),
        fields=np.concatenate([piece.fields for piece in pieces]),
        errors={name: error for piece in pieces for name, error in piece.errors.items()},
    )
