"""The order of reading, and what it costs in tiles decoded twice."""

from collections import OrderedDict

import numpy as np
import pytest
from helpers import VIEW_40X, VIEW_KAGGLE, slide_info
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.geometry import Scale
from wsi_pipeline.grid import Block, CellSpec, Grid, plan_grid
from wsi_pipeline.readplan import choose_readers, hilbert_index, share_out, take_turns
from wsi_pipeline.tissue import TissueMask


def round_tissue(side: int, view=VIEW_40X, downsamples=(1, 4, 16)) -> Grid:
    y, x = np.mgrid[:200, :200]
    mask = np.hypot(x - 99.5, y - 99.5) < 62
    tissue = TissueMask(mask=mask, scale=Scale(side / 200, side / 200))
    info = slide_info(side, side, downsamples=downsamples)
    return plan_grid(info, view, tissue, cell=CellSpec(12.5), min_tissue=0.5)


@pytest.mark.parametrize("order", range(6))
def test_the_curve_visits_every_place_once_and_goes_by_single_steps(order):
    rows, cols = (axis.ravel() for axis in np.mgrid[: 1 << order, : 1 << order])
    place = hilbert_index(rows, cols, order)
    assert sorted(place) == list(range(len(rows)))
    way = np.argsort(place)
    assert (np.abs(np.diff(rows[way])) + np.abs(np.diff(cols[way])) == 1).all()


@given(st.sets(st.tuples(st.integers(0, 40), st.integers(0, 9))), st.integers(1, 20))
def test_every_block_has_one_reader_and_turns_keep_each_reader_to_its_own(places, readers):
    cell = np.zeros((1, 2), np.int32)
    blocks = [Block(index=place, rows=(0, 1), cols=(0, 1), cells=cell) for place in sorted(places)]
    strips = share_out(blocks, readers)
    assert sorted(block.index for strip in strips for block in strip) == sorted(places)
    assert len(strips) == min(readers, len(blocks))
    assert not strips or len(strips[0]) - len(strips[-1]) <= 1
    for n, block in enumerate(take_turns(strips)):
        assert block in strips[n % len(strips)]


def decodes_per_tile(grid: Grid, *, readers: int, tile: int, cache_bytes: int) -> float:
    """What readers decode that keep tiles which stick out, the oldest dropped first; by tiles of the raster."""
    decoded, different = 0, set()
    for strip in share_out(grid.blocks(), readers):
        kept: OrderedDict[tuple[int, int], None] = OrderedDict()
        for block in strip:
            box = grid.block_box(block.cells)
            for row in range(box.y // tile, (box.bottom - 1) // tile + 1):
                for col in range(box.x // tile, (box.right - 1) // tile + 1):
                    different.add((row, col))
                    if (row, col) in kept:
                        kept.move_to_end((row, col))
                        continue
                    decoded += 1
                    if (
                        col * tile < box.x
                        or row * tile < box.y
                        or (col + 1) * tile > box.right
                        or (row + 1) * tile > box.bottom
                    ):
                        kept[row, col] = None
                        if len(kept) * tile * tile * 3 > cache_bytes:
                            kept.popitem(last=False)
    return decoded / len(different)


@pytest.mark.parametrize(("tile", "readers"), [(256, 1), (256, 15), (512, 1), (512, 4)])
def test_hardly_a_tile_is_decoded_twice_at_40x(tile, readers):
    grid = round_tissue(100_000)
    assert len(grid.cells) > 1_000_000
    assert decodes_per_tile(grid, readers=readers, tile=tile, cache_bytes=32 << 20) <= 1.1


def test_hardly_a_tile_is_decoded_twice_for_a_dense_map():
    # The raster at 4 µm/px is a level of the pyramid here; halos are as large as tiles.
    grid = round_tissue(100_000, VIEW_KAGGLE)
    chosen = choose(grid, processes=True, cores=16)
    assert decodes_per_tile(grid, readers=chosen.count, tile=256, cache_bytes=32 << 20) <= 1.1


def choose(grid: Grid, *, workers=None, cores=16, memory=64 << 30, processes=True):
    return choose_readers(grid, grid.blocks(), workers=workers, cores=cores, memory=memory, processes=processes)


def test_readers_follow_cores_pixels_and_memory():
    large, small = round_tissue(100_000), round_tissue(6_000)
    assert (choose(large).count, choose(large).processes) == (15, True)
    assert (choose(large, cores=4).count, choose(large, cores=4).processes) == (3, True)
    # Little to read, or one core: a thread starts sooner than a process.
    assert (choose(small).count, choose(small).processes) == (1, False)
    assert (choose(large, cores=1).count, choose(large, cores=1).processes) == (1, False)
    # Beside a network on the CPU, threads.
    assert (choose(large, cores=2, processes=False).count, choose(large, processes=False).processes) == (1, False)
    assert choose(large, processes=False).count == 4


@pytest.mark.parametrize("gigabytes", [1, 2, 4, 64])
def test_pixels_on_the_way_fit_in_their_share_of_memory(gigabytes):
    grid = round_tissue(100_000)
    largest = max(box.width * box.height * 3 for box in (grid.block_box(b.cells) for b in grid.blocks()))
    chosen = choose(grid, memory=gigabytes << 30)
    on_the_way = chosen.count * chosen.ahead * largest
    assert on_the_way <= max(2 * largest, min(1 << 30, (gigabytes << 30) / 8))


def test_what_the_user_says_of_workers_holds():
    grid = round_tissue(20_000)
    assert (choose(grid, workers=3).count, choose(grid, workers=3).processes) == (3, True)
    assert (choose(grid, workers=0).count, choose(grid, workers=0).processes) == (1, False)
    few = grid.blocks()[:2]
    assert choose_readers(grid, few, workers=8, cores=2, memory=1 << 33, processes=False).count == 2
    assert choose_readers(grid, [], workers=None, cores=2, memory=1 << 33, processes=False).count == 1
