"""How much of each square of a lattice a shape covers, exactly. Pure: a shape in, an array out."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

DECIMALS = 9
"""Sums of many terms carry dust; a square that is half covered must be so to the last digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Squares side by side: square (row, col) starts at ``corner + (col, row) * step`` and is one step large."""

    corner: tuple[float, float]
    """(x, y) of the first square's corner, level-0 pixels."""
    step: tuple[float, float]
    """(x, y) sides of a square, level-0 pixels."""
    rows: int
    cols: int

    def rectangle(self) -> shapely.Polygon:
        """All squares together."""
        (x, y), (width, height) = self.corner, self.step
        return shapely.box(x, y, x + self.cols * width, y + self.rows * height)


def area_coverage(shape: shapely.MultiPolygon, lattice: Lattice) -> _Floats:
    """[rows, cols]: the fraction of each square's area that a shape covers, 0 to 1.

    Every edge is cut where it crosses a line of the lattice. By Green's theorem each piece then accounts for the
    area between itself and the right side of its square, and for all of the squares to the right of it; pieces of
    the left and of the right border of the shape differ in sign. The time grows with the number of vertices and of
    crossings, not with the number of squares inside.

    Args:
        shape: Valid, level-0 pixels.
        lattice: The squares.
    """
    total = np.zeros((lattice.rows, lattice.cols + 1))
    rings = shapely.get_rings(shapely.orient_polygons(shapely.get_parts(shape)))
    if not len(rings):
        return total[:, :-1]
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    uv = (xy - np.array(lattice.corner)) / np.array(lattice.step)
    edge = ring[1:] == ring[:-1]
    start, end = _cut(uv[:-1][edge], uv[1:][edge], (lattice.cols, lattice.rows))
    middle, rise = (start + end) / 2, end[:, 1] - start[:, 1]
    col, row = np.floor(np.clip(middle, -1, np.array([lattice.cols, lattice.rows]) + 1)).astype(np.int64).T
    # Left of the lattice a piece counts for whole rows; right, above and below it counts for nothing.
    seen = (row >= 0) & (row < lattice.rows) & (col < lattice.cols)
    col, row, rise = np.maximum(col[seen], 0), row[seen], rise[seen]
    here = rise * (col + 1 - np.maximum(middle[seen, 0], 0))
    flat = row * (lattice.cols + 1) + col
    # The running sum along a row spreads each entry over all squares to its right.
    changes = np.bincount(flat, here, total.size) + np.bincount(flat + 1, rise - here, total.size)
    return np.clip(np.round(-np.cumsum(changes.reshape(total.shape), axis=1)[:, :-1], DECIMALS), 0, 1)


def polygons_of(shape: shapely.Geometry) -> shapely.MultiPolygon:
    """The polygons of any shape, without the points and lines that intersections and mending leave behind."""
    parts = shapely.get_parts(shapely.get_parts(shape))  # twice: a collection may hold multipolygons
    areal = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    return shapely.MultiPolygon(list(parts[areal]))


def _cut(start: _Floats, end: _Floats, limits: tuple[int, int]) -> tuple[_Floats, _Floats]:
    """Edges cut at the lines of the lattice: start and end of each piece, [m, 2] each."""
    edges = np.arange(len(start))
    cuts = [(edges, np.zeros(len(start)))]
    for axis, limit in enumerate(limits):
        cuts.append(_crossings(start[:, axis], end[:, axis], limit))
    edge = np.concatenate([edge for edge, _ in cuts])
    at = np.concatenate([at for _, at in cuts])
    order = np.lexsort((at, edge))
    edge, at = edge[order], at[order]
    until = np.append(at[1:], 1.0)
    until[np.flatnonzero(np.diff(edge, append=len(start)))] = 1.0
    along = end[edge] - start[edge]
    return start[edge] + at[:, None] * along, start[edge] + until[:, None] * along


def _crossings(start: _Floats, end: _Floats, limit: int) -> tuple[NDArray[np.int64], _Floats]:
    """Where edges cross the lines 0 .. limit of one axis: number of the edge, and how far along it, 0 to 1."""
    low = np.clip(np.floor(np.minimum(start, end)) + 1, 0, limit + 1).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(start, end)) - 1, -1, limit).astype(np.int64)
    count = np.maximum(0, high - low + 1)
    edge = np.repeat(np.arange(len(start)), count)
    first = np.cumsum(count) - count
    line = low[edge] + np.arange(count.sum()) - first[edge]
    return edge, (line - start[edge]) / (end[edge] - start[edge])
