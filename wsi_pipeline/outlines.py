"""From labelled cells to polygons: exact outlines along cell edges, smoothed within a bound, or as lines. Pure."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

SNAP_DECIMALS = 2
"""Outlines lie on hundredths of a level-0 pixel."""

FINEST_PX = 0.4
"""How far a drawn line may be from where it should be, in pixels of the picture."""

_CUT_SHARE = 0.9
"""Part of the smoothing bound that cutting corners may use; the rest goes to dropping vertices."""

_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)
"""Sides of a cell, in the order in which an outline passes them: clockwise on the screen, inside on the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rings:
    """Closed outlines in cell coordinates: vertex (x, y) is the corner of column x and row y."""

    vertices: NDArray[np.float64]
    """[n, 2]: (x, y), ring after ring, without the closing vertex."""
    ring: NDArray[np.intp]
    """[n]: which ring a vertex belongs to, rising."""
    label: NDArray[np.int32]
    """[rings]: the label each ring outlines."""
    hole: NDArray[np.bool_]
    """[rings]: whether the ring is the outline of a hole."""

    def previous(self) -> NDArray[np.intp]:
        """[n]: index of the vertex before each, round the ring."""
        index = np.arange(len(self.ring)) - 1
        starts = np.flatnonzero(np.diff(self.ring, prepend=-1))
        index[starts] = np.append(starts[1:], len(self.ring)) - 1
        return index


def outline_labels(
    labels: NDArray[np.int32], col_edges: NDArray[np.int64], row_edges: NDArray[np.int64]
) -> NDArray[np.object_]:
    """The exact outline of every label, along the edges of its cells and with its holes.

    A label whose cells hang together by their sides gives a valid polygon: where it touches itself at a corner,
    the rings are led past each other so that the corner is shared by a hole and its surroundings, never by one ring
    with itself.

    Args:
        labels: [rows, cols]: 0 outside, 1 .. k; the cells of each label are 4-connected.
        col_edges: [cols + 1]: level-0 x where columns start and the last one ends.
        row_edges: [rows + 1]: level-0 y where rows start and the last one ends.

    Returns:
        [k] shapely polygons in level-0 pixels, label 1 first; exterior counter-clockwise as GeoJSON means it,
        holes the other way round, no vertex on a straight line.
    """
    return _polygons(_trace(labels), col_edges, row_edges)


def smooth_outlines(
    labels: NDArray[np.int32],
    col_edges: NDArray[np.int64],
    row_edges: NDArray[np.int64],
    *,
    mpp: tuple[float, float],
    smooth_um: float,
) -> NDArray[np.object_]:
    """Outlines that are smoother than the exact ones, yet nowhere further than `smooth_um` from them.

    First corners are cut, at most at the middle of a cell's side, which makes stairs straight; what is left of the
    bound lets the simplification of Douglas and Peucker (1973), in its topology-keeping form, drop vertices.
    The Hausdorff distance between the exact outline and the smooth one is at most `smooth_um` (plus the rounding
    to 0.01 px). A polygon that would become invalid keeps its exact outline.

    Args:
        labels: As for `outline_labels`.
        col_edges: As for `outline_labels`.
        row_edges: As for `outline_labels`.
        mpp: (x, y) µm per level-0 pixel.
        smooth_um: The bound in µm, above 0.

    Returns:
        [k] valid shapely polygons in level-0 pixels, on multiples of 0.01.
    """
    rings = _trace(labels)
    exact = _polygons(rings, col_edges, row_edges)
    widest_um = max(np.diff(col_edges).max() * mpp[0], np.diff(row_edges).max() * mpp[1])
    # Cutting a square corner by c along both sides moves the outline by c / sqrt(2) at most.
    cut = min(0.5, smooth_um * _CUT_SHARE * np.sqrt(2) / widest_um)
    left_um = smooth_um - cut * widest_um / np.sqrt(2)
    smooth = _polygons(_cut_corners(rings, cut), col_edges, row_edges)
    smooth = _thinned(smooth, left_um / max(mpp))
    smooth = shapely.transform(smooth, lambda xy: np.round(xy, SNAP_DECIMALS))
    usable = shapely.is_valid(smooth) & (shapely.area(smooth) > 0) & (shapely.get_type_id(smooth) == 3)
    chosen: NDArray[np.object_] = np.where(usable, smooth, exact)
    return chosen


def lines_to_draw(polygons: shapely.MultiPolygon | NDArray[np.object_], pixel: float) -> NDArray[np.object_]:
    """The rings of polygons without what is finer than a pixel, which costs time and shows nothing.

    Ring by ring: to keep the thousands of holes of one polygon from touching each other takes a minute, and lines may.
    A ring is left of each, however small, so that every region shows.

    Args:
        polygons: shapely polygons, or one of several parts.
        pixel: Side of a pixel of the picture, in the polygons' units.

    Returns:
        [rings] of shapely's LinearRings.
    """
    rings: NDArray[np.object_] = shapely.get_rings(shapely.get_parts(polygons))
    return _thinned(rings, FINEST_PX * pixel)


def _thinned(shapes: NDArray[np.object_], bound: float) -> NDArray[np.object_]:
    """The shapes with as few vertices as may be, and no place of an outline further than `bound` from where it was.

    GEOS may at last drop the vertex that a ring begins with, too: that takes others up to twice its tolerance away.
    """
    return shapely.simplify(shapes, bound / 2, preserve_topology=True)


def _trace(labels: NDArray[np.int32]) -> _Rings:
    """Follow the boundary of every label, one straight run of cell sides after another."""
    start, end, label, kind = _straight_runs(labels)
    order, lengths = _walk(_successors(start, end, label, kind, labels.shape[1] + 1))
    first = np.cumsum(lengths) - lengths
    vertices = start[order]
    ring = np.repeat(np.arange(len(lengths)), lengths)
    after = np.arange(1, len(order) + 1)
    after[first + lengths - 1] = first
    cross = vertices[:, 0] * vertices[after, 1] - vertices[after, 0] * vertices[:, 1]
    twice_area = np.add.reduceat(cross, first) if len(first) else np.empty(0, np.int64)
    return _Rings(vertices=vertices.astype(np.float64), ring=ring, label=label[order[first]], hole=twice_area < 0)


def _straight_runs(
    labels: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]]:
    """Maximal straight pieces of boundary: start (x, y), end (x, y), label and side, each [n] or [n, 2]."""
    padded = np.pad(labels, 1)
    across = padded.T
    sides = []
    for side, cells, beside in (
        (_TOP, labels, padded[:-2, 1:-1]),
        (_RIGHT, labels.T, across[2:, 1:-1]),
        (_BOTTOM, labels, padded[2:, 1:-1]),
        (_LEFT, labels.T, across[:-2, 1:-1]),
    ):
        line, low, high, label = _runs_in_rows(np.where(cells != beside, cells, 0))
        line = line + (side in (_RIGHT, _BOTTOM))
        # Top runs go right, right ones down, bottom ones left, left ones up.
        begin, finish = (low, high) if side in (_TOP, _RIGHT) else (high, low)
        along_x = side in (_TOP, _BOTTOM)
        start = np.stack((begin, line) if along_x else (line, begin), axis=1)
        end = np.stack((finish, line) if along_x else (line, finish), axis=1)
        sides.append((start, end, label, np.full(len(line), side, np.int8)))
    start, end, label, kind = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    return start, end, label, kind


def _runs_in_rows(
    values: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Runs of one non-zero value in each row: row, first column, the column after the last, and the value."""
    change = np.diff(np.pad(values, ((0, 0), (1, 1))), axis=1) != 0
    row, first = np.nonzero(change[:, :-1] & (values != 0))
    _, last = np.nonzero(change[:, 1:] & (values != 0))
    return row, first, last + 1, values[row, first]


def _successors(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    label: NDArray[np.int32],
    kind: NDArray[np.int8],
    stride: int,
) -> NDArray[np.int32]:
    """[n]: the run that follows each run. At every corner at most one run of each side starts."""
    count = len(kind)
    starts_at = start[:, 1] * stride + start[:, 0]
    ends_at = end[:, 1] * stride + end[:, 0]
    size = int(max(starts_at.max(initial=0), ends_at.max(initial=0))) + 1
    run_at = np.full((4, size), -1, np.int32)
    run_at[kind, starts_at] = np.arange(count, dtype=np.int32)
    # Turning into a hollow corner first keeps rings apart where a label touches itself at a corner.
    hollow = run_at[(kind + 3) % 4, ends_at]
    convex = run_at[(kind + 1) % 4, ends_at]
    following: NDArray[np.int32] = np.where((hollow >= 0) & (label[hollow] == label), hollow, convex)
    return following


def _walk(successors: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The runs in the order in which the rings pass them, and the number of runs of each ring."""
    follow = successors.tolist()
    seen = bytearray(len(follow))
    order: list[int] = []
    lengths: list[int] = []
    for first in range(len(follow)):
        if seen[first]:
            continue
        before, run = len(order), first
        while not seen[run]:
            seen[run] = 1
            order.append(run)
            run = follow[run]
        lengths.append(len(order) - before)
    return np.array(order, np.intp), np.array(lengths, np.intp)


def _cut_corners(rings: _Rings, cut: float) -> _Rings:
    """Every corner replaced by two vertices, `cut` cells (at most a half) before and after it."""
    before = rings.previous()
    arriving = np.sign(rings.vertices - rings.vertices[before])
    leaving = np.empty_like(arriving)
    leaving[before] = arriving
    pairs = np.stack((rings.vertices - cut * arriving, rings.vertices + cut * leaving), axis=1)
    doubled = _Rings(vertices=pairs.reshape(-1, 2), ring=np.repeat(rings.ring, 2), label=rings.label, hole=rings.hole)
    # Cuts of half a cell meet in the middle of a side.
    kept = (doubled.vertices != doubled.vertices[doubled.previous()]).any(axis=1)
    return _Rings(vertices=doubled.vertices[kept], ring=doubled.ring[kept], label=rings.label, hole=rings.hole)


def _polygons(rings: _Rings, col_edges: NDArray[np.int64], row_edges: NDArray[np.int64]) -> NDArray[np.object_]:
    """[labels]: polygons in level-0 pixels."""
    if not len(rings.label):
        return np.empty(0, object)
    x = np.interp(rings.vertices[:, 0], np.arange(len(col_edges)), col_edges)
    y = np.interp(rings.vertices[:, 1], np.arange(len(row_edges)), row_edges)
    closed = np.asarray(shapely.linearrings(np.stack((x, y), axis=1), indices=rings.ring))
    order = np.lexsort((rings.hole, rings.label))
    return np.asarray(shapely.polygons(closed[order], indices=rings.label[order] - 1))
