"""Pixels of a raster anchored at level 0, made from the pixels of a pyramid level. Pure: arrays in, arrays out.

Raster pixel k covers the level's pixels [k * ratio, (k + 1) * ratio). Shrinking averages over exactly that stretch,
with fractional weights at its ends, so a raster pixel has one value, whichever box it is computed with. (Pillow's
BOX filter takes whole pixels only: at ratios such as 2.5 rounding dust then decides which ones.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SNAP = 1e-3
"""A ratio this close to 1 is taken as 1: pixels are chosen, not mixed."""

_CHUNK_BYTES = 4 << 20


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
    chunk = max(1, _CHUNK_BYTES // (source.shape[1] * 12))
    for first in range(0, height, chunk):
        here = slice(first, first + chunk)
        mixed = _mix(source, row_index[:, here], rows.weight[:, here], axis=0)
        out[here] = _mix(mixed, col_index, cols.weight, axis=1) + np.float32(0.5)
    return out


def _mix(
    values: NDArray[np.uint8] | NDArray[np.float32],
    index: NDArray[np.int64],
    weight: NDArray[np.float32],
    *,
    axis: int,
) -> NDArray[np.float32]:
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total: NDArray[np.float32] = values.take(index[0], axis) * weight[0].reshape(shape)
    for which, share in zip(index[1:], weight[1:], strict=True):
        total += values.take(which, axis) * share.reshape(shape)
    return total
