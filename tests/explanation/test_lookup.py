"""Cells and rasters are looked up at the right place."""

from dataclasses import replace

import numpy as np
from grids import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.explanation.lookup import cells_in, look_up, sample
from wsi_pipeline.geometry import Box, Scale


def grid_with_cells(seed: int):
    rng = np.random.default_rng(seed)
    grid = make_grid(7, 9, mpp=(0.5, 0.25), cell_um=7.3, origin=(13, 5), overhang=0.3)
    cells = np.argwhere(rng.random(grid.shape) < 0.6).astype(np.int32)
    return replace(grid, cells=cells), rng.random(len(cells)).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.5, 18), st.floats(0.5, 18))
def test_each_pixel_has_the_value_of_the_cell_under_its_centre(seed, across, down):
    grid, values = grid_with_cells(seed)
    place = Box(-2, -3, 11, 9)
    found = look_up(grid, grid.cells, values, scale=Scale(across, down), place=place)
    boxes = [grid.cell_box(row, col) for row, col in grid.cells.tolist()]
    for row in range(place.height):
        for col in range(place.width):
            x, y = (place.x + col + 0.5) * across, (place.y + row + 0.5) * down
            under = [n for n, box in enumerate(boxes) if box.x <= x < box.right and box.y <= y < box.bottom]
            expected = values[under[0]] if under else np.nan
            np.testing.assert_equal(found[row, col], np.float32(expected))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_cells_that_touch_a_region(seed):
    grid, _ = grid_with_cells(seed)
    region = Box(20, 20, 35, 41)
    expected = [
        (row, col)
        for row, col in grid.cells.tolist()
        if (shared := grid.cell_box(row, col).intersection(region)).width and shared.height
    ]
    assert [tuple(cell) for cell in cells_in(grid, region).tolist()] == expected


def test_a_slope_stays_a_slope_at_another_scale():
    box, scale = Box(10, 20, 40, 30), Scale(16, 8)
    y, x = np.mgrid[box.y : box.bottom, box.x : box.right] + 0.5
    values = (3 * x * scale.x - 2 * y * scale.y).astype(np.float32)  # in level-0 pixels
    place, place_scale = Box(100, 100, 90, 55), Scale(3, 2.5)
    found = sample(values, box=box, scale=scale, place=place, place_scale=place_scale)
    down, across = np.mgrid[place.y : place.bottom, place.x : place.right] + 0.5
    np.testing.assert_allclose(found, 3 * across * 3 - 2 * down * 2.5, rtol=1e-5)


def test_nothing_known_is_no_evidence():
    values = np.full((4, 4), np.nan, np.float32)
    place = Box(0, 0, 8, 8)
    assert not sample(values, box=Box(0, 0, 4, 4), scale=Scale(2, 2), place=place, place_scale=Scale(1, 1)).any()
