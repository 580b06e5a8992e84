"""The squares that a raster of cells is divided into, level by level, and interpolation inside them. Pure."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


class Squares:
    """The squares of one level over a raster of cells: between every n-th row and column, and the last ones."""

    def __init__(self, shape: tuple[int, int], side: int) -> None:
        self.rows, self.cols = (_points(length, side) for length in shape)
        self._shape = shape

    def holding(self, wanted: Flags) -> Flags:
        """Which squares, their edges counted in, hold a wanted cell."""
        summed = np.pad(wanted.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        top, bottom = _ends(self.rows)
        left, right = _ends(self.cols)
        low, high = summed[top], summed[bottom + 1]
        flags: Flags = high[:, right + 1] - high[:, left] - low[:, right + 1] + low[:, left] > 0
        return flags

    def inside(self, coarser: "Squares", which: Flags) -> Flags:
        """Which of these squares lie in some of a coarser level."""
        row, col = _place(coarser.rows, _ends(self.rows)[0]), _place(coarser.cols, _ends(self.cols)[0])
        flags: Flags = which[np.ix_(row, col)]
        return flags

    def covered(self, which: Flags) -> Flags:
        """[rows, cols] of cells: those of some squares; a cell on an edge belongs to the square after it."""
        row = _place(self.rows, np.arange(self._shape[0]))
        col = _place(self.cols, np.arange(self._shape[1]))
        flags: Flags = which[np.ix_(row, col)]
        return flags

    def corners(self, cells: Places, which: Flags) -> Places:
        """[n, 4]: of some squares, what stands at their corners in a raster of cells."""
        row, col = np.nonzero(which)
        (top, bottom), (left, right) = _ends(self.rows), _ends(self.cols)
        top, bottom, left, right = top[row], bottom[row], left[col], right[col]
        places = cells[top, left], cells[top, right], cells[bottom, left], cells[bottom, right]
        return np.stack(places, 1)

    def weights(self, cells: Places, row: Places, col: Places) -> tuple[Places, Floats]:
        """Bilinear interpolation at some cells: [n, 4], what stands at the corners around; [n, 4], their weights."""
        (top, bottom), (left, right) = _ends(self.rows), _ends(self.cols)
        i, j = _place(self.rows, row), _place(self.cols, col)
        top, bottom, left, right = top[i], bottom[i], left[j], right[j]
        down = (row - top) / np.maximum(bottom - top, 1)
        over = (col - left) / np.maximum(right - left, 1)
        corners = cells[top, left], cells[top, right], cells[bottom, left], cells[bottom, right]
        weights = (1 - down) * (1 - over), (1 - down) * over, down * (1 - over), down * over
        return np.stack(corners, 1), np.stack(weights, 1)


def _points(length: int, side: int) -> Places:
    """Every side-th of so many places, and the last."""
    return np.unique(np.append(np.arange(0, length, side), length - 1)).astype(np.int64)


def _ends(points: Places) -> tuple[Places, Places]:
    """First and last place of each piece between points; a single point is one piece."""
    return (points[:-1], points[1:]) if len(points) > 1 else (points, points)


def _place(points: Places, at: Places) -> Places:
    """In which piece each place lies; the last point belongs to the last piece."""
    last = max(0, len(points) - 2)
    place: Places = np.minimum(np.searchsorted(points, at, "right") - 1, last)
    return place
