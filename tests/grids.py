"""Small grids for tests of what is made from a map."""

import numpy as np

from wsi_pipeline.geometry import Box, FieldOfView, Mpp
from wsi_pipeline.grid import Grid


def make_grid(
    rows: int,
    cols: int,
    *,
    mpp: tuple[float, float] = (0.25, 0.25),
    cell_um: float = 12.5,
    origin: tuple[int, int] = (0, 0),
    overhang: float = 0.0,
) -> Grid:
    """A grid of so many rows and columns; `overhang` is the part of the last ones that lies off the slide."""
    width = round((cols - overhang) * cell_um / mpp[0])
    height = round((rows - overhang) * cell_um / mpp[1])
    grid = Grid(
        mpp=Mpp(*mpp),
        view=FieldOfView(size_px=50, mpp=4.0),
        cell_um=cell_um,
        extent=Box(*origin, width, height),
        block_side=8,
        cells=np.empty((0, 2), np.int32),
    )
    assert grid.shape == (rows, cols)
    return grid
