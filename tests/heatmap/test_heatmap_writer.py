"""Blocks that are written beside the network: all of them, in any batches, and errors where they are waited for."""

import threading
from pathlib import Path

import numpy as np
import pytest
from maps import begin as create
from maps import scores_of

from wsi_pipeline.errors import OutputError
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import BlockScores, BlockWriter, Heatmap
from wsi_pipeline.heatmap.writer import MAX_WAITING
from wsi_pipeline.timing import Stopwatch


def fill(heatmap: Heatmap, grid: Grid, watch: Stopwatch) -> None:
    with BlockWriter(heatmap, watch) as writer:
        for block in heatmap.pending():
            writer.write(BlockScores(block, scores_of(block)))
    assert writer.cells == len(grid.cells)


def test_all_blocks_are_on_the_disk_at_the_end(tmp_path: Path, grid: Grid) -> None:
    watch = Stopwatch()
    written, plain = create(tmp_path / "a.zarr", grid), create(tmp_path / "b.zarr", grid)
    fill(written, grid, watch)
    assert watch.seconds["write"] > 0
    assert written.pending() == []
    for block in plain.pending():
        plain.write(block, scores_of(block))
    assert np.array_equal(written.probability("IDC"), plain.probability("IDC"), equal_nan=True)
    again = create(tmp_path / "a.zarr", grid)
    assert again.pending() == []


def test_the_network_waits_for_a_slow_disk_and_what_waits_is_written_together(
    tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    heatmap, gate, sizes = create(tmp_path / "a.zarr", grid), threading.Event(), list[int]()
    write = Heatmap.write_blocks

    def slow(self: Heatmap, blocks: list[BlockScores]) -> None:
        gate.wait(30)
        sizes.append(len(blocks))
        write(self, blocks)

    monkeypatch.setattr(Heatmap, "write_blocks", slow)
    pending = heatmap.pending()
    assert 2 < len(pending) <= MAX_WAITING
    with BlockWriter(heatmap, Stopwatch()) as writer:
        for block in pending:
            writer.write(BlockScores(block, scores_of(block)))
        assert writer.cells == 0
        gate.set()
    assert sum(sizes) == len(pending)
    assert len(sizes) <= 3
    assert heatmap.pending() == []


def test_a_full_disk_is_told_to_the_caller_and_keeps_what_was_written(
    tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    heatmap, write = create(tmp_path / "a.zarr", grid), Heatmap.write_blocks
    first, *rest = heatmap.pending()
    heatmap.write(first, scores_of(first))

    def full(self: Heatmap, blocks: list[BlockScores]) -> None:
        raise OutputError(self.path, "cannot be written (No space left on device)")

    monkeypatch.setattr(Heatmap, "write_blocks", full)
    with pytest.raises(OutputError, match="No space left"):
        fill(heatmap, grid, Stopwatch())
    monkeypatch.setattr(Heatmap, "write_blocks", write)
    again = create(tmp_path / "a.zarr", grid)
    assert [block.index for block in again.pending()] == [block.index for block in rest]


def test_another_error_is_not_hidden_and_what_was_scored_is_kept(tmp_path: Path, grid: Grid) -> None:
    heatmap = create(tmp_path / "a.zarr", grid)
    first = heatmap.pending()[0]

    def fail() -> None:
        with BlockWriter(heatmap, Stopwatch()) as writer:
            writer.write(BlockScores(first, scores_of(first)))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert first.index not in {block.index for block in heatmap.pending()}
