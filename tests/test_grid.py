"""Cells and blocks, with shapes drawn by hypothesis."""

import numpy as np
import pytest
from helpers import VIEW_40X, VIEW_KAGGLE, slide_info
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsi_pipeline.errors import ConfigError, ResolutionError, SlideFormatError
from wsi_pipeline.geometry import Box, FieldOfView, Mpp, Scale
from wsi_pipeline.grid import MAX_BLOCK_CELLS, CellSpec, Grid, mask_fraction, plan_grid
from wsi_pipeline.tissue import TissueMask


def everywhere(info):
    scale = Scale(16, 16)
    shape = (-(-info.size.height // 16), -(-info.size.width // 16))
    return TissueMask(mask=np.ones(shape, bool), scale=scale)


def plan(info, view=VIEW_40X, cell="50px@40x", tissue=None, min_tissue=0.5, **more) -> Grid:
    return plan_grid(info, view, tissue or everywhere(info), cell=CellSpec.parse(cell), min_tissue=min_tissue, **more)


@st.composite
def grids(draw):
    width, height = draw(st.integers(60, 3000)), draw(st.integers(60, 3000))
    mpp = Mpp(draw(st.floats(0.2, 0.27)), draw(st.floats(0.2, 0.27)))
    x, y = draw(st.integers(0, width // 4)), draw(st.integers(0, height // 4))
    bounds = Box(x, y, draw(st.integers(55, width)), draw(st.integers(55, height)))
    info = slide_info(width, height, mpp=mpp, bounds=bounds.intersection(Box(0, 0, width, height)))
    rows, cols = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    mask = np.array(draw(st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols))).reshape(rows, cols)
    tissue = TissueMask(mask=mask, scale=Scale(width / cols, height / rows))
    view = draw(st.sampled_from([VIEW_40X, VIEW_KAGGLE, FieldOfView(size_px=33, mpp=0.7)]))
    cell = draw(st.sampled_from(["50px@40x", "20um", "native"]))
    spec = CellSpec.parse(cell)
    assume(max(info.bounds.width * mpp.x, info.bounds.height * mpp.y) > (spec.size_um or view.size_um))
    return plan_grid(info, view, tissue, cell=spec, min_tissue=draw(st.floats(0, 1))), tissue


@pytest.mark.parametrize(
    ("text", "um"), [("50px@40x", 12.5), ("50px@20x", 25), ("12.5um", 12.5), ("224px@40x", 56), ("native", None)]
)
def test_cell_sizes_are_physical(text, um):
    assert CellSpec.parse(text).size_um == um


@pytest.mark.parametrize("text", ["50", "50px", "0um", "0px@40x", "50px@0x", "-5um", "", "nativ"])
def test_other_cell_sizes_are_refused(text):
    with pytest.raises(ConfigError, match=r"50px@40x, 12\.5um or native"):
        CellSpec.parse(text)


@given(grids())
@settings(max_examples=60, deadline=None)
def test_every_cell_is_in_exactly_one_block_and_inside_it(case):
    grid, _ = case
    blocks = grid.blocks()
    seen = np.concatenate([block.cells for block in blocks]) if blocks else np.empty((0, 2))
    assert len(seen) == len(grid.cells)
    assert {tuple(cell) for cell in seen} == {tuple(cell) for cell in grid.cells}
    for block in blocks:
        rows, cols = block.cells.T
        assert rows.min() >= block.rows[0]
        assert rows.max() < block.rows[1] <= grid.shape[0]
        assert cols.min() >= block.cols[0]
        assert cols.max() < block.cols[1] <= grid.shape[1]
        assert block.index == (block.rows[0] // grid.block_side, block.cols[0] // grid.block_side)


@given(grids())
@settings(max_examples=60, deadline=None)
def test_cells_tile_the_bounds_without_gap_or_overlap(case):
    grid, _ = case
    for edges, start, length in (
        (grid.col_edges, grid.extent.x, grid.extent.width),
        (grid.row_edges, grid.extent.y, grid.extent.height),
    ):
        assert edges[0] == start
        assert edges[-1] == start + length
        assert (np.diff(edges) > 0).all()
    assert grid.cell_area_um2.sum() == pytest.approx(grid.extent.width * grid.extent.height * grid.mpp.pixel_um2)


@given(grids())
@settings(max_examples=60, deadline=None)
def test_a_cell_belongs_exactly_when_enough_of_it_is_tissue(case):
    grid, tissue = case
    fraction = mask_fraction(tissue.mask, tissue.scale, grid.row_edges, grid.col_edges)
    assert ((fraction >= 0) & (fraction <= 1)).all()
    chosen = {tuple(cell) for cell in grid.cells}
    without_tissue = {tuple(cell) for cell in np.argwhere(fraction == 0)}
    assert not chosen & without_tissue


@pytest.mark.parametrize(("min_tissue", "cells"), [(0, 2), (0.25, 2), (0.26, 1), (1, 1)])
def test_the_fraction_is_exact_where_the_mask_is_coarser_than_the_cells(min_tissue, cells):
    # One mask pixel of 100 px: all of cell 0 and 1 lie in it. Tissue ends a quarter into cell 1.
    tissue = TissueMask(mask=np.array([[True, True, True, True, True, False, False, False]]), scale=Scale(12.5, 50))
    assert len(plan(slide_info(100, 50), tissue=tissue, min_tissue=min_tissue).cells) == cells


@given(grids())
@settings(max_examples=60, deadline=None)
def test_fields_of_view_are_centred_on_their_cells(case):
    grid, _ = case
    if not len(grid.cells):
        return
    first = grid.windows(grid.cells) * np.array([grid.scale.x, grid.scale.y])
    half = np.array([grid.scale.x, grid.scale.y]) * grid.view.size_px / 2
    centre = (grid.cells[:, ::-1] + 0.5) * np.array(grid.step) + np.array(grid.origin)
    assert (np.abs(first + half - centre) <= 0.5 * np.array([grid.scale.x, grid.scale.y]) + 1e-3).all()


@given(grids())
@settings(max_examples=60, deadline=None)
def test_a_block_box_holds_its_fields_of_view_and_no_more(case):
    grid, _ = case
    for block in grid.blocks():
        box, windows = grid.block_box(block.cells), grid.windows(block.cells)
        assert (windows.min(axis=0) == (box.x, box.y)).all()
        assert (windows.max(axis=0) + grid.view.size_px == (box.right, box.bottom)).all()


def test_a_40x_bundle_sees_exactly_the_cell():
    grid = plan(slide_info(500, 250))
    assert grid.shape == (5, 10)
    assert (grid.windows(grid.cells) == grid.cells[:, ::-1] * 50).all()
    assert grid.padded_cells == 0


def test_steps_are_never_summed_up():
    # 12.5 µm are 53.19 px here; the 1000th cell starts where the multiplication says.
    grid = plan(slide_info(60_000, 60, mpp=Mpp(0.235, 0.235)))
    assert grid.col_edges[1000] == round(1000 * 12.5 / 0.235)


def test_kaggle_patches_are_their_own_cells():
    info = slide_info(330, 170, mpp=Mpp(4, 4), downsamples=(1,))
    mask = np.zeros((4, 7), bool)
    mask[0, 0] = mask[3, 6] = True
    grid = plan(info, VIEW_KAGGLE, "native", TissueMask(mask=mask, scale=Scale(50, 50)))
    assert grid.cells.tolist() == [[0, 0], [3, 6]]
    assert grid.windows(grid.cells).tolist() == [[0, 0], [300, 150]]
    assert grid.cell_box(3, 6) == Box(300, 150, 30, 20)
    assert grid.padded_cells == 1


def test_bounds_move_the_cells():
    grid = plan(slide_info(2000, 2000, bounds=Box(100, 200, 500, 500)))
    assert grid.origin == (100, 200)
    assert grid.shape == (10, 10)
    assert grid.windows(grid.cells)[0].tolist() == [100, 200]


def test_blocks_are_bounded_where_there_is_no_pyramid():
    info = slide_info(40_000, 40_000, downsamples=(1,))
    grid = plan(info, VIEW_KAGGLE, "native")
    assert grid.block_side * grid.step[0] <= 4096
    assert plan(info).block_side == MAX_BLOCK_CELLS


def test_a_slide_coarser_than_the_model_is_refused_by_numbers():
    info = slide_info(500, 500, mpp=Mpp(0.5, 0.5))
    with pytest.raises(ResolutionError, match=r"0.5 µm/px, the model needs 0.25 µm/px.*--allow-upsampling"):
        plan(info)
    assert len(plan(info, allow_upsampling=True).cells) == 20 * 20
    # Scanners' 40x varies by some percent: that is no other magnification.
    assert len(plan(slide_info(500, 500, mpp=Mpp(0.2738, 0.2738))).cells)


def test_a_slide_smaller_than_one_cell_is_refused():
    with pytest.raises(SlideFormatError, match=r"smaller than one cell of 12\.5 µm"):
        plan(slide_info(40, 30))


def test_a_cell_smaller_than_a_pixel_is_refused():
    with pytest.raises(ConfigError, match=r"smaller than a pixel of paper\.tiff"):
        plan(slide_info(500, 500), cell="0.2um")


def test_no_tissue_is_an_empty_grid():
    info = slide_info(500, 500)
    grid = plan(info, tissue=TissueMask(mask=np.zeros((10, 10), bool), scale=Scale(50, 50)), min_tissue=0)
    assert (len(grid.cells), grid.blocks(), grid.padded_cells) == (0, [], 0)
    assert grid.shape == (10, 10)
