"""A heatmap is whole or not there, whatever interrupts it, and goes on where it stopped."""

import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maps import (
    IDENTITY,
    begin,
    blurred,
    expected_map,
    files_of,
    make_grid,
    run,
    run_layered,
    scores_of,
    torn_scores_of,
)

from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)), stop=st.integers(0, 6), twice=st.integers(0, 5))
def test_any_order_with_any_break_gives_the_same_files(
    order: list[int], stop: int, twice: int, *, finished: Path, grid: Grid, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "o", ignore_errors=True)
    path = tmp_path / "o" / "heatmap.zarr"
    heatmap, blocks = begin(path, grid), grid.blocks()
    for number in order[:stop]:
        heatmap.write(blocks[number], scores_of(blocks[number]))
    assert [block.index for block in heatmap.pending()] == [blocks[n].index for n in sorted(order[stop:])]
    again = begin(path, grid)
    assert [block.index for block in again.pending()] == [block.index for block in heatmap.pending()]
    again.write(blocks[twice], scores_of(blocks[twice]))
    for block in again.pending():
        again.write(block, scores_of(block))
    again.finish()
    assert files_of(path) == files_of(finished)


def test_nothing_stands_under_the_final_name_before_the_end(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    for block in heatmap.pending()[1:]:
        heatmap.write(block, scores_of(block))
    with pytest.raises(OutputError, match="1 blocks of cells are missing"):
        heatmap.finish()
    assert not path.exists()
    with pytest.raises(OutputError, match="there is no heatmap"):
        Heatmap.open(path)
    with pytest.raises(ResultsMismatchError, match="no finished heatmap"):
        Heatmap.open(path.with_name("heatmap.zarr.partial"))
    heatmap.write(heatmap.pending()[0], scores_of(grid.blocks()[0]))
    heatmap.finish()
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]


def test_a_finished_map_is_taken_as_it_is(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    run(path, grid)
    before = files_of(path)
    (tmp_path / "heatmap.zarr.partial").mkdir()
    again = begin(path, grid, provenance={"other": 1})
    assert again.complete
    assert again.pending() == []
    again.finish()
    assert files_of(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]
    with pytest.raises(ResultsMismatchError, match=r"as OME-Zarr 0\.5, not 0\.4"):
        again.finish(version="0.4")


TORCH, OPENVINO = ({"engine": name, "precision": "fp32"} for name in ("torch", "openvino"))


def test_the_engines_that_computed_a_map_stay_noted(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    first = begin(path, grid)
    first.note_engine(TORCH)
    second = begin(path, grid)  # the first computed nothing
    second.note_engine(OPENVINO)
    second.note_engine(OPENVINO)
    assert second.computed_by == OPENVINO
    second.write(second.pending()[0], scores_of(second.pending()[0]))
    third = begin(path, grid, provenance={"other": 1})
    third.note_engine(TORCH)
    for block in third.pending():
        third.write(block, scores_of(block))
    third.note_engine({"engine": "compile", "precision": "fp32"})  # which has nothing to do any more
    third.finish()
    finished = Heatmap.open(path)
    assert finished.attributes["provenance"] == {"other": 1, "computed_by": [OPENVINO, TORCH]}
    assert finished.computed_by == {"engine": "openvino and torch", "precision": "fp32"}
    finished.note_engine({"engine": "compile", "precision": "fp32"})
    assert Heatmap.open(path).computed_by == finished.computed_by


def test_of_an_earlier_versions_map_the_engine_is_known(tmp_path: Path, grid: Grid) -> None:
    run(tmp_path / "heatmap.zarr", grid)
    heatmap = Heatmap.open(tmp_path / "heatmap.zarr")
    assert heatmap.computed_by == {}
    heatmap.attributes["provenance"]["model"] = {"name": "m", **TORCH}
    assert heatmap.computed_by == TORCH


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from maps import begin, blurred, make_grid, scores_of, spread_of
grid, layered = make_grid(301, 283), sys.argv[3] == "True"
heatmap = begin(Path(sys.argv[2]), grid, spread=layered)
print("begun", len(heatmap.pending()), flush=True)
for block in heatmap.pending():
    heatmap.write(block, scores_of(block), spread_of(block) if layered else None)
    print("block", flush=True)
heatmap.finish(refine=blurred if layered else None)
print("finished", flush=True)
"""


def start_worker(path: Path, *, layered: bool) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(path), str(layered)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def kill_after(worker: subprocess.Popen[str], lines: int, delay_s: float) -> list[str]:
    """Wait for that many lines, then a little, then kill -9. What it had printed."""
    assert worker.stdout is not None
    said = [worker.stdout.readline() for _ in range(lines)]
    assert all(said), "it ended by itself"
    time.sleep(delay_s)
    worker.send_signal(signal.SIGKILL)
    said += worker.stdout.readlines()
    worker.wait()
    worker.stdout.close()
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("layered", [False, True])
def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, *, layered: bool) -> None:
    path, chance = tmp_path / "heatmap.zarr", random.Random(5)
    grid = make_grid(301, 283)
    total = len(grid.blocks())
    assert total == 25
    # While it begins, three times among the blocks, then while it finishes.
    for lines in (0, 5, 4, 4):
        said = kill_after(start_worker(path, layered=layered), lines, chance.uniform(0, 0.003))
        done = said.count("block\n")
        assert not path.exists()
        left = len(begin(path, grid, spread=layered).pending())
        # What was reported is done; of the one under way, at most its report is missing.
        total, before = left, total
        assert before - done - 1 <= left <= before - done
    kill_after(start_worker(path, layered=layered), 1 + total, chance.uniform(0, 0.1))
    go = run_layered if layered else run
    heatmap, expected = go(path, grid), expected_map(grid)
    np.testing.assert_array_equal(heatmap.probability("IDC"), blurred(expected) if layered else expected)
    undisturbed = go(tmp_path / "undisturbed" / "heatmap.zarr", grid)
    assert files_of(path) == files_of(undisturbed.path)


def test_a_run_killed_between_its_last_two_steps_has_its_map(tmp_path: Path, grid: Grid, finished: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    begin(path, grid)
    shutil.copytree(finished, path)
    heatmap = begin(path, grid)
    assert heatmap.complete
    assert files_of(path) == files_of(finished)
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]


def test_a_kill_while_the_image_is_made_costs_the_image_alone(tmp_path: Path, grid: Grid, finished: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores_of(block))
    shutil.copytree(finished, tmp_path / "heatmap.zarr.image.partial")
    (tmp_path / "heatmap.zarr.image.partial" / "0" / "c" / "0" / "0" / "0").unlink()
    again = begin(path, grid)
    assert again.pending() == []
    again.finish()
    assert files_of(path) == files_of(finished)
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]


def test_left_over_temporary_files_do_not_reach_the_result(tmp_path: Path, grid: Grid, finished: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    block = heatmap.pending()[0]
    heatmap.write(block, scores_of(block))
    (tmp_path / "heatmap.zarr.partial" / "0" / "c" / "0" / "0" / ".77-part-1").write_bytes(b"half a chunk")
    (tmp_path / "heatmap.zarr.image.partial").mkdir()
    run(path, grid)
    assert files_of(tmp_path) == {f"heatmap.zarr/{name}": data for name, data in files_of(finished).items()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]


def test_a_block_whose_chunk_is_gone_is_done_again(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores_of(block))
    (tmp_path / "heatmap.zarr.partial" / "0" / "c" / "0" / "1" / "0").unlink()
    assert [block.index for block in begin(path, grid).pending()] == [(1, 0)]


def test_a_block_of_which_nothing_could_be_read_does_not_stop_the_run(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap, blocks = begin(path, grid), grid.blocks()
    for block in blocks:
        heatmap.write(block, scores_of(block))
    block = blocks[2]
    heatmap.write(block, np.full((len(block.cells), 2), np.nan, np.float32))
    assert heatmap.pending() == []
    heatmap.finish()
    unread = Heatmap.open(path).unread()
    assert unread[block.cells[:, 0], block.cells[:, 1]].all()
    assert unread.sum() == len(block.cells)


@pytest.mark.parametrize("unread_cells", ["one", "all"])
def test_cells_that_could_not_be_read_are_tried_again_by_the_next_run(
    tmp_path: Path, grid: Grid, finished: Path, *, unread_cells: str
) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap, blocks = begin(path, grid), grid.blocks()
    for number, block in enumerate(blocks[:4]):
        scores = scores_of(block)
        if number in {1, 2}:
            scores[-1 if unread_cells == "one" else slice(None)] = np.nan
        heatmap.write(block, scores)
    assert [block.index for block in heatmap.pending()] == [block.index for block in blocks[4:]]
    again = begin(path, grid)
    assert [block.index for block in again.pending()] == [blocks[n].index for n in (1, 2, 4, 5)]
    run(path, grid)
    assert files_of(path) == files_of(finished)


def test_a_run_whose_last_attempt_fails_too_ends_with_the_gaps(tmp_path: Path, grid: Grid, torn: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    for block in grid.blocks()[:3]:
        heatmap.write(block, torn_scores_of(block))
    run(path, grid, torn_scores_of)
    assert files_of(path) == files_of(torn)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_a_finished_map_with_unread_cells_is_made_anew(
    tmp_path: Path, grid: Grid, finished: Path, *, version: str
) -> None:
    path = tmp_path / "heatmap.zarr"
    run(path, grid, torn_scores_of, version=version)
    assert Heatmap.open(path).unread().any()
    with pytest.raises(ResultsMismatchError, match="another model"):
        begin(path, grid, identity=replace(IDENTITY, bundle="x"))
    assert Heatmap.open(path).unread().any()  # what is refused is left alone
    heatmap = begin(path, grid)
    assert not heatmap.complete
    assert len(heatmap.pending()) == len(grid.blocks())
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr.partial"]
    run(path, grid)
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]
    assert files_of(path) == files_of(finished)


@pytest.mark.parametrize("state", ["nothing", "begun", "finished", "killed at the end", "killed while discarding"])
def test_discarding_takes_the_map_and_its_working_folders_alone(tmp_path: Path, grid: Grid, *, state: str) -> None:
    path = tmp_path / "heatmap.zarr"
    neighbours = ["heatmap.zarr.txt", "other.zarr.partial", "summary.json"]
    for name in neighbours:
        (tmp_path / name).write_text(name)
    if state != "nothing":
        (begin if state == "begun" else run)(path, grid)
    if state.startswith("killed"):
        begin(tmp_path / "other" / "heatmap.zarr", grid)
        (tmp_path / "other" / "heatmap.zarr.partial").rename(tmp_path / "heatmap.zarr.partial")
        (tmp_path / "other").rmdir()
        (tmp_path / "heatmap.zarr.image.partial" / "0").mkdir(parents=True)
    if state == "killed while discarding":
        path.rename(tmp_path / "heatmap.zarr.discarded")
        (tmp_path / "heatmap.zarr.partial.discarded" / "0").mkdir(parents=True)
    Heatmap.discard(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == neighbours
    assert len(begin(path, grid).pending()) == len(grid.blocks())


def test_what_a_kill_left_of_a_discarded_map_goes_with_the_next_run(tmp_path: Path, grid: Grid) -> None:
    (tmp_path / "heatmap.zarr.discarded" / "0").mkdir(parents=True)
    run(tmp_path / "heatmap.zarr", grid)
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]


@pytest.mark.parametrize(
    ("changes", "named", "not_named"),
    [
        ({"identity": replace(IDENTITY, slide="x")}, ["slide"], ["model", "settings"]),
        ({"identity": replace(IDENTITY, bundle="x")}, ["model"], ["another slide", "settings"]),
        ({"identity": replace(IDENTITY, bundle="x", settings="x")}, ["model", "settings"], ["another slide"]),
        ({"class_names": ("benign", "IDC")}, ["classes"], ["model", "grid"]),
        ({"positive_class": "non-IDC"}, ["positive class"], ["model", "grid"]),
        ({"spread": True}, ["kind of prediction"], ["model", "grid"]),
        ({"grid": make_grid(seed=1)}, ["grid of cells"], ["model", "classes"]),
    ],
)
@pytest.mark.parametrize("done", [False, True])
def test_results_of_something_else_are_refused_by_name(
    tmp_path: Path, grid: Grid, *, changes: dict[str, object], named: list[str], not_named: list[str], done: bool
) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = run(path, grid) if done else begin(path, grid)
    if not done:
        heatmap.write(grid.blocks()[0], scores_of(grid.blocks()[0]))
    before = files_of(tmp_path)
    other = changes.get("grid", grid)
    rest = {key: value for key, value in changes.items() if key != "grid"}
    with pytest.raises(ResultsMismatchError) as refused:
        begin(path, other, **rest)
    text = str(refused.value)
    assert str(path) in text
    assert "--overwrite" in text
    assert "--out" in text
    assert all(word in text for word in named), text
    assert not any(word in text for word in not_named), text
    assert files_of(tmp_path) == before
    fresh = begin(path, other, overwrite=True, **rest)
    assert len(fresh.pending()) == len(other.blocks())
    assert not path.exists()
