"""Values of cells and of one raster at the pixels of another. Pure."""

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box, Scale
from wsi_pipeline.grid import Grid


def cells_in(grid: Grid, region: Box) -> NDArray[np.int32]:
    """[n, 2]: (row, col) of the run's cells that touch a region of level 0."""
    rows, cols = grid.cells[:, 0], grid.cells[:, 1]
    inside = (grid.row_edges[rows] < region.bottom) & (grid.row_edges[rows + 1] > region.y)
    inside &= (grid.col_edges[cols] < region.right) & (grid.col_edges[cols + 1] > region.x)
    touching: NDArray[np.int32] = grid.cells[inside]
    return touching


def look_up(
    grid: Grid, cells: NDArray[np.int32], values: NDArray[np.float32], *, scale: Scale, place: Box
) -> NDArray[np.float32]:
    """The value of the cell under each pixel of a raster.

    Args:
        grid: Where cells lie.
        cells: [n, 2], (row, col).
        values: [n], of those cells.
        scale: Of the raster.
        place: Box of the raster.

    Returns:
        float32 [place.height, place.width]; NaN where none of the cells is.
    """
    rows = _index(grid.row_edges, place.y, place.height, scale.y)
    cols = _index(grid.col_edges, place.x, place.width, scale.x)
    # Only cells around the place are laid out, with a rim of none: a slide may have many millions.
    first = np.array([rows.min() - 1, cols.min() - 1])
    table = np.full((rows.max() - first[0] + 2, cols.max() - first[1] + 2), np.nan, np.float32)
    local = cells - first
    inside = ((local >= 0) & (local < table.shape)).all(axis=1)
    table[local[inside, 0], local[inside, 1]] = values[inside]
    found: NDArray[np.float32] = table[np.ix_(rows - first[0], cols - first[1])]
    return found


def _index(edges: NDArray[np.int64], first: int, count: int, scale: float) -> NDArray[np.intp]:
    """[count]: number of the cell under each pixel's centre; -1 before the first, their count after the last."""
    at: NDArray[np.intp] = np.searchsorted(edges, (first + np.arange(count) + 0.5) * scale, side="right") - 1
    return at


def sample(
    values: NDArray[np.float32], *, box: Box, scale: Scale, place: Box, place_scale: Scale
) -> NDArray[np.float32]:
    """Values of one raster at the pixels' centres of another, linear between its own pixels' centres.

    Args:
        values: [box.height, box.width]; NaN counts as 0.
        box: Where they lie on their raster.
        scale: Of their raster.
        place: Box of the other raster.
        place_scale: Of the other raster.

    Returns:
        float32 [place.height, place.width]; the nearest value beyond the edges.
    """
    from skimage.transform import AffineTransform, warp

    across, down = place_scale.x / scale.x, place_scale.y / scale.y
    corner = (place.x + 0.5) * across - 0.5 - box.x, (place.y + 0.5) * down - 0.5 - box.y
    there = AffineTransform(scale=(across, down), translation=corner)
    known = np.nan_to_num(values.astype(np.float32, copy=False))
    found = warp(known, there, output_shape=(place.height, place.width), order=1, mode="edge", preserve_range=True)
    return np.asarray(found, np.float32)
