"""Blocks from threads and processes: the same pixels, each native tile once, errors where they belong."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import VIEW_40X, FieldOfView, tissue_picture
from tiffs import TILE, break_tile, write_pyramid

from wsi_pipeline import feed, timing
from wsi_pipeline.errors import SlideNotFoundError
from wsi_pipeline.feed import Feed, read_blocks
from wsi_pipeline.geometry import Scale
from wsi_pipeline.grid import CellSpec, Grid, plan_grid
from wsi_pipeline.patches import BlockReader
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.source import SlideSource
from wsi_pipeline.tissue import TissueMask


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("feed") / "slide.tiff", base=tissue_picture())


def source(path: Path) -> SlideSource:
    return SlideSource(path=str(path), reader="tiff", mpp=None)


def plan(path: Path, view: FieldOfView = VIEW_40X, cell_um: float = 12.5, block_cells: int = 4) -> Grid:
    """All of the slide in blocks of few cells."""
    with open_slide(path, reader="tiff") as opened:
        info = opened.info
    everywhere = TissueMask(mask=np.ones((1, 1), bool), scale=Scale(info.size.width, info.size.height))
    grid = plan_grid(info, view, everywhere, cell=CellSpec(cell_um), min_tissue=0.5)
    return Grid(
        **{name: getattr(grid, name) for name in ("mpp", "view", "cell_um", "extent", "cells")}, block_side=block_cells
    )


@pytest.mark.parametrize("workers", [0, 1, 2, None])
def test_every_block_comes_once_with_the_pixels_of_the_slide(slide, workers):
    grid = plan(slide)
    found = {pixels.block.index: pixels for pixels in read_blocks(source(slide), grid, grid.blocks(), workers=workers)}
    assert found.keys() == {block.index for block in grid.blocks()}
    assert len(found) > 10
    with open_slide(slide, reader="tiff") as opened:
        for pixels in found.values():
            assert pixels.readable.all()
            expected = opened.read(grid.block_box(pixels.block.cells), grid.scale)
            assert np.array_equal(pixels.pixels, expected)


@pytest.mark.parametrize(
    ("view", "cell_um"), [(VIEW_40X, 12.5), (FieldOfView(size_px=50, mpp=1.0), 12.5)], ids=["40x", "dense"]
)
def test_hardly_a_native_tile_is_decoded_twice(slide, view, cell_um):
    grid = plan(slide, view, cell_um)
    blocks = list(read_blocks(source(slide), grid, grid.blocks(), workers=0))
    factor = round(grid.scale.x)
    across, down = -(-1000 // factor // TILE), -(-800 // factor // TILE)
    decoded = sum(pixels.decodes for pixels in blocks)
    assert across * down <= decoded <= 1.1 * across * down
    alone = 0  # what it would be if each block were read for itself
    for block in grid.blocks():
        reader = BlockReader(source(slide), grid)
        alone += reader.read(block).decodes
        reader.close()
    assert alone > 1.3 * decoded


@pytest.mark.parametrize("workers", [0, 2])
def test_a_slide_that_is_not_there_is_its_own_error(tmp_path, slide, workers):
    grid = plan(slide)
    gone = SlideSource(path=str(tmp_path / "gone.tiff"), reader="tiff", mpp=None)
    with pytest.raises(SlideNotFoundError) as caught:
        list(read_blocks(gone, grid, grid.blocks(), workers=workers))
    assert caught.value.where.endswith("gone.tiff")


def test_damage_stays_within_its_tile(tmp_path):
    path = write_pyramid(tmp_path / "torn.tiff", base=tissue_picture())
    break_tile(path, index=20)
    grid = plan(path)
    lost = [
        cell
        for pixels in read_blocks(source(path), grid, grid.blocks(), workers=0)
        for cell in pixels.block.cells[~pixels.readable]
    ]
    assert 0 < len(lost) < 40


def test_reading_begins_before_it_is_asked_for_and_stays_bounded(slide):
    grid = plan(slide)
    with Feed(source(slide), grid, grid.blocks(), workers=0) as reading:
        waiting = reading._readers._items
        deadline = time.monotonic() + 20
        while not waiting.full() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 1 <= waiting.qsize() <= 3 < len(grid.blocks())


def test_closing_ends_the_threads_and_may_be_done_twice(slide):
    grid, before = plan(slide), threading.active_count()
    reading = Feed(source(slide), grid, grid.blocks(), workers=0)
    next(iter(reading))
    reading.close()
    reading.close()
    assert threading.active_count() == before


def test_nothing_to_read_is_nothing(slide):
    assert list(Feed(source(slide), plan(slide), [])) == []


def test_a_daemon_reads_by_threads_as_it_may_have_no_children(slide, monkeypatch):
    class Daemon:
        daemon = True

    monkeypatch.setattr(feed.multiprocessing, "current_process", Daemon)
    grid = plan(slide)
    assert not feed._choose(grid, grid.blocks(), 4).processes


def test_spans_of_reading_come_from_where_it_was_done(slide):
    grid = plan(slide, block_cells=8)
    with timing.recording() as spans:
        began = time.perf_counter()
        blocks = list(read_blocks(source(slide), grid, grid.blocks(), workers=2))
        ended = time.perf_counter()
    assert len(spans) == len(blocks)
    assert {span.name for span in spans} == {"read"}
    assert len({span.process for span in spans}) == 2
    assert all(began <= span.start < span.end <= ended for span in spans)
    assert sum(span.facts["decodes"] for span in spans) > 0
