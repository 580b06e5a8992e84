"""The OME-Zarr heatmap: whole, resumable, and read by others as it is meant."""

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import dask.array
import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_pipeline.errors import ConfigError, OutputError, ResultsMismatchError
from wsi_pipeline.geometry import Box, FieldOfView, Level, Mpp, Scale, Size, SlideInfo
from wsi_pipeline.grid import Block, CellSpec, Grid, plan_grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.manifest import Identity
from wsi_pipeline.tissue import TissueMask

CLASSES = ("non-IDC", "IDC")
IDENTITY = Identity(slide="s" * 64, bundle="b" * 64, settings="c" * 64)


def make_grid(rows: int = 150, cols: int = 100, seed: int = 0, fraction: float = 0.5) -> Grid:
    """A grid of 4 x 4 px cells on a made-up slide with an offset, whose tissue is noise in lumps of 10 cells."""
    size, bounds = Size(cols * 4 + 300, rows * 4 + 300), Box(200, 100, cols * 4 - 1, rows * 4 - 2)
    info = SlideInfo(
        slide_id="made-up",
        path="made-up.tif",
        size=size,
        mpp=Mpp(0.25, 0.25),
        mpp_source="file",
        levels=(Level(size=size, scale=Scale(1, 1)),),
        bounds=bounds,
        vendor="none",
        reader="none",
        fingerprint="0",
    )
    lumps = np.random.default_rng(seed).random((size.height // 40 + 1, size.width // 40 + 1)) < fraction
    tissue = TissueMask(mask=lumps, scale=Scale(40, 40))
    view = FieldOfView(size_px=4, mpp=0.25)
    return plan_grid(info, view, tissue, cell=CellSpec(1.0), min_tissue=0.5)


def scores_of(block: Block) -> np.ndarray:
    """A score that any test can compute again."""
    idc = (number_of(block) % 1000 / 999).astype(np.float32)
    return np.stack([1 - idc, idc], axis=1)


def torn_scores_of(block: Block) -> np.ndarray:
    """The same where one cell in 97 could not be read."""
    scores = scores_of(block)
    scores[number_of(block) % 97 == 0] = np.nan
    return scores


def number_of(block: Block) -> np.ndarray:
    return block.cells[:, 0].astype(np.int64) * 1009 + block.cells[:, 1]


Scores = Callable[[Block], np.ndarray]


def expected_map(grid: Grid, scores: Scores = scores_of) -> np.ndarray:
    """[rows, cols]: p(IDC) as it must come out."""
    whole = np.full(grid.shape, np.nan, np.float32)
    for block in grid.blocks():
        whole[block.cells[:, 0], block.cells[:, 1]] = scores(block)[:, 1]
    return whole


def tissue_of(grid: Grid) -> np.ndarray:
    tissue = np.zeros(grid.shape, np.bool_)
    tissue[grid.cells[:, 0], grid.cells[:, 1]] = True
    return tissue


def begin(path: Path, grid: Grid, **changes: object) -> Heatmap:
    arguments = {
        "class_names": CLASSES,
        "identity": IDENTITY,
        "provenance": {"threshold": 0.5},
        "name": "made-up",
        "tissue": tissue_of(grid),
    }
    return Heatmap.create(path, grid, **(arguments | changes))


def run(path: Path, grid: Grid, scores: Scores = scores_of, **finish: object) -> Heatmap:
    """Begin or go on, and finish."""
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores(block))
    heatmap.finish(**finish)
    return heatmap


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def grid() -> Grid:
    made = make_grid()
    assert made.shape == (150, 100)
    assert len(made.blocks()) == 6
    return made


@pytest.fixture(scope="module")
def finished(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "heatmap.zarr"
    run(path, grid)
    return path


@pytest.fixture(scope="module")
def torn(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished map some cells of which could not be read."""
    path = tmp_path_factory.mktemp("torn") / "heatmap.zarr"
    run(path, grid, torn_scores_of)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Heatmap:
    """A map of three levels with odd sides, some cells of which could not be read."""
    path = tmp_path_factory.mktemp("large") / "heatmap.zarr"
    return run(path, make_grid(601, 333), torn_scores_of, provenance={"seconds": 1.5})


@pytest.fixture(scope="module")
def large_04(tmp_path_factory: pytest.TempPathFactory) -> Heatmap:
    """The same in the older form."""
    path = tmp_path_factory.mktemp("large_04") / "heatmap.zarr"
    return run(path, make_grid(601, 333), torn_scores_of, provenance={"seconds": 1.5}, version="0.4")


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_the_map_holds_the_scores_and_nan_elsewhere(torn: Path, grid: Grid) -> None:
    heatmap = Heatmap.open(torn)
    expected = expected_map(grid, torn_scores_of)
    assert heatmap.complete
    np.testing.assert_array_equal(heatmap.probability("IDC"), expected)
    np.testing.assert_array_equal(heatmap.probability("non-IDC"), 1 - expected)
    assert heatmap.probability("IDC").dtype == np.float32
    np.testing.assert_array_equal(heatmap.tissue, tissue_of(grid))
    np.testing.assert_array_equal(heatmap.unread(), tissue_of(grid) & np.isnan(expected))
    assert heatmap.unread().sum() > 10


def test_an_opened_map_has_the_very_grid(torn: Path, grid: Grid) -> None:
    again = Heatmap.open(torn).grid
    np.testing.assert_array_equal(again.cells, grid.cells)
    for name in ("mpp", "view", "cell_um", "extent", "block_side", "shape", "origin", "step"):
        assert getattr(again, name) == getattr(grid, name), name


def test_attributes_say_what_the_map_is(large: Heatmap) -> None:
    attributes = Heatmap.open(large.path).attributes
    assert attributes["identity"] == asdict(IDENTITY)
    assert attributes["class_names"] == list(CLASSES)
    assert attributes["provenance"] == {"threshold": 0.5, "seconds": 1.5}
    assert attributes["complete"] is True
    assert attributes["cells"] == {"in_run": len(large.grid.cells), "unread": int(large.unread().sum())}
    assert attributes == large.attributes


def test_tissue_outside_the_run_is_kept(tmp_path: Path, grid: Grid) -> None:
    heatmap = begin(tmp_path / "heatmap.zarr", grid, tissue=np.ones(grid.shape, np.bool_))
    for block in heatmap.pending():
        heatmap.write(block, scores_of(block))
    heatmap.finish()
    opened = Heatmap.open(heatmap.path)
    assert opened.tissue.all()
    np.testing.assert_array_equal(opened.grid.cells, grid.cells)


def test_an_unknown_class_is_an_error_that_names_the_known(finished: Path) -> None:
    with pytest.raises(ConfigError, match="non-IDC, IDC"):
        Heatmap.open(finished).probability("DCIS")


def test_a_slide_without_tissue_gives_an_empty_map(tmp_path: Path) -> None:
    heatmap = run(tmp_path / "heatmap.zarr", make_grid(fraction=0))
    opened = Heatmap.open(heatmap.path)
    assert np.isnan(opened.probability("IDC")).all()
    assert not opened.tissue.any()
    assert len(opened.grid.cells) == 0
    ome_zarr_models.v05.Image.from_zarr(zarr.open_group(heatmap.path, mode="r"))


def test_scores_of_another_shape_are_refused(tmp_path: Path, grid: Grid) -> None:
    heatmap = begin(tmp_path / "heatmap.zarr", grid)
    block = heatmap.pending()[0]
    with pytest.raises(ValueError, match="scores for"):
        heatmap.write(block, scores_of(block)[:-1])
    assert len(heatmap.pending()) == 6


def test_provenance_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path, grid: Grid) -> None:
    with pytest.raises(ValueError, match="JSON"):
        begin(tmp_path / "heatmap.zarr", grid, provenance={"mean": float("nan")})
    assert list(tmp_path.iterdir()) == []


# --- order, interruption, resumption ---------------------------------------------------------------------------------


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


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_heatmap import begin, make_grid, scores_of
grid = make_grid(301, 283)
heatmap = begin(Path(sys.argv[2]), grid)
print("begun", len(heatmap.pending()), flush=True)
for block in heatmap.pending():
    heatmap.write(block, scores_of(block))
    print("block", flush=True)
heatmap.finish()
print("finished", flush=True)
"""


def start_worker(path: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(path)]
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
def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    path, chance = tmp_path / "heatmap.zarr", random.Random(5)
    grid = make_grid(301, 283)
    total = len(grid.blocks())
    assert total == 25
    # While it begins, three times among the blocks, then while it finishes.
    for lines in (0, 5, 4, 4):
        said = kill_after(start_worker(path), lines, chance.uniform(0, 0.003))
        done = said.count("block\n")
        assert not path.exists()
        left = len(begin(path, grid).pending())
        # What was reported is done; of the one under way, at most its report is missing.
        total, before = left, total
        assert before - done - 1 <= left <= before - done
    kill_after(start_worker(path), 1 + total, chance.uniform(0, 0.1))
    heatmap = run(path, grid)
    np.testing.assert_array_equal(heatmap.probability("IDC"), expected_map(grid))
    undisturbed = run(tmp_path / "undisturbed" / "heatmap.zarr", grid)
    assert files_of(path) == files_of(undisturbed.path)


def test_a_run_killed_between_its_last_two_steps_repeats_them(tmp_path: Path, grid: Grid, finished: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    run(path, grid)
    path.rename(tmp_path / "heatmap.zarr.partial")
    heatmap = begin(path, grid)
    assert not heatmap.complete
    assert heatmap.pending() == []
    heatmap.finish()
    assert files_of(path) == files_of(finished)


def test_left_over_temporary_files_do_not_reach_the_result(tmp_path: Path, grid: Grid, finished: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    block = heatmap.pending()[0]
    heatmap.write(block, scores_of(block))
    (tmp_path / "heatmap.zarr.partial" / "0" / "c" / "0" / "0" / ".77-part-1").write_bytes(b"half a chunk")
    (tmp_path / "heatmap.zarr.ngff-0.4.partial").mkdir()
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
        (tmp_path / "heatmap.zarr.ngff-0.4.partial" / "0").mkdir(parents=True)
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


# --- bad luck --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["zarr.json", "0/zarr.json", "done/zarr.json", "done/c/0/0"])
@pytest.mark.parametrize(
    "damage", [b"", b"{}", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}', b"\xff\0"]
)
def test_a_damaged_working_folder_is_a_clear_error(tmp_path: Path, grid: Grid, at: str, damage: bytes) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores_of(block))
    (tmp_path / "heatmap.zarr.partial" / at).write_bytes(damage)
    with pytest.raises(ResultsMismatchError, match="cannot be read") as refused:
        begin(path, grid).finish()
    assert "--overwrite" in refused.value.hint
    begin(path, grid, overwrite=True)


def test_a_damaged_chunk_is_a_clear_error(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores_of(block))
    chunk = tmp_path / "heatmap.zarr.partial" / "0" / "c" / "0" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(ResultsMismatchError, match="cannot be read"):
        heatmap.finish()
    assert not path.exists()


@pytest.mark.parametrize("content", ["nothing", "foreign zarr"])
def test_something_else_under_the_final_name_is_refused(tmp_path: Path, grid: Grid, content: str) -> None:
    path = tmp_path / "heatmap.zarr"
    path.mkdir()
    if content == "foreign zarr":
        zarr.create_group(path)
    with pytest.raises((OutputError, ResultsMismatchError), match=r"heatmap\.zarr"):
        begin(path, grid)


def test_a_run_killed_before_its_first_file_was_whole_begins_anew(tmp_path: Path, grid: Grid, finished: Path) -> None:
    path = tmp_path / "heatmap.zarr"
    begin(path, grid)
    (tmp_path / "heatmap.zarr.partial" / "done" / "zarr.json").unlink()
    run(path, grid)
    assert files_of(path) == files_of(finished)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """A disk with room for so many more files; the one that does not fit is written by half."""
    room = {"files": 10**9}
    write = Path.write_bytes

    def short_write(self: Path, data: bytes) -> int:
        room["files"] -= 1
        if room["files"] < 0:
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", short_write)
    return room


def write_all(path: Path, grid: Grid, done: list[Block], version: str) -> None:
    """A run that notes which blocks it has written."""
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores_of(block))
        done.append(block)
    heatmap.finish(version=version)


@pytest.mark.parametrize("files", [0, 2, 5, 14, 18])
@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_a_full_disk_is_told_and_loses_nothing(
    tmp_path: Path, grid: Grid, finished: Path, *, full_disk: dict[str, int], files: int, version: str
) -> None:
    path = tmp_path / "heatmap.zarr"
    full_disk["files"] = files
    done: list[Block] = []
    with pytest.raises(OutputError, match=r"No space left on device.*free space") as told:
        write_all(path, grid, done, version)
    assert told.value.where == str(path)
    assert not path.exists()
    full_disk["files"] = 10**9
    assert len(begin(path, grid).pending()) == 6 - len(done)
    run(path, grid, version=version)
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]
    np.testing.assert_array_equal(Heatmap.open(path).probability("IDC"), expected_map(grid))
    if version == "0.5":
        assert files_of(path) == files_of(finished)


def test_a_file_where_a_folder_is_needed_is_an_output_error(tmp_path: Path, grid: Grid) -> None:
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        begin(tmp_path / "results" / "heatmap.zarr", grid)


# --- what others make of it ------------------------------------------------------------------------------------------


def test_levels_are_means_of_the_finer_ones(large: Heatmap) -> None:
    group = zarr.open_group(large.path, mode="r")
    shapes = [group[str(level)].shape for level in range(3)]
    assert shapes == [(2, 601, 333), (2, 301, 167), (2, 151, 84)]
    fine = group["0"][1]
    for coarse in (group["1"][1], group["2"][1]):
        padded = np.pad(fine, [(0, n % 2) for n in fine.shape], constant_values=np.nan).astype(np.float64)
        squares = padded.reshape(coarse.shape[0], 2, coarse.shape[1], 2)
        known = (~np.isnan(squares)).sum((1, 3))
        mean = np.divide(np.nansum(squares, (1, 3)), known, out=np.full(known.shape, np.nan), where=known > 0)
        np.testing.assert_allclose(coarse, mean, rtol=1e-5)
        fine = coarse


def test_it_is_valid_ome_zarr_05(large: Heatmap) -> None:
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(large.path, mode="r"))
    assert image.labels is not None
    assert image.labels.label_paths == ["tissue"]
    label = zarr.open_group(large.path, mode="r", path="labels/tissue")
    ome_zarr_models.v05.ImageLabel.from_zarr(label)
    raw = json.loads((large.path / "zarr.json").read_text())["attributes"]["ome"]
    assert raw["version"] == "0.5"
    assert [channel["label"] for channel in raw["omero"]["channels"]] == ["p(non-IDC)", "p(IDC)"]
    first = raw["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    # 1 µm cells of 4 px of 0.25 µm, on a slide whose scanned part begins at (200, 100).
    assert first == [
        {"type": "scale", "scale": [1, 1, 1]},
        {"type": "translation", "translation": [0, 25.375, 50.375]},
    ]


def test_dask_reads_it(large: Heatmap) -> None:
    array = dask.array.from_zarr(large.path, component="0")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[1].compute(scheduler="synchronous"), expected_map(large.grid, torn_scores_of))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_napari_reads_it(large: Heatmap, large_04: Heatmap, version: str) -> None:
    with warnings.catch_warnings():
        # What napari warns of while it is imported is not ours to mend.
        warnings.simplefilter("ignore")
        from napari_ome_zarr import napari_get_reader

    path = (large_04 if version == "0.4" else large).path
    read = napari_get_reader(str(path))
    assert read is not None
    images, labels = {}, {}
    for levels, facts, kind in read(str(path)):
        assert len(levels) == 3
        assert list(facts["scale"])[-2:] == [1, 1]
        if kind == "labels":
            labels[facts["name"].rsplit("/", maxsplit=1)[-1]] = levels[0], facts
        elif "channel_axis" in facts:  # older plugins give all channels as one
            images |= {name: levels[0][n] for n, name in enumerate(facts["name"])}
        else:
            images[facts["name"]] = levels[0]
    assert list(images) == ["made-up: p(non-IDC)", "made-up: p(IDC)"]
    np.testing.assert_array_equal(
        images["made-up: p(IDC)"].compute(scheduler="synchronous"), expected_map(large.grid, torn_scores_of)
    )
    label, label_facts = labels["tissue"]
    colors = getattr(label_facts["colormap"], "color_dict", label_facts["colormap"])
    assert {0, 1, 255} <= set(colors)
    values = label.compute(scheduler="synchronous").reshape(large.grid.shape)
    np.testing.assert_array_equal(values == 255, large.unread())
    np.testing.assert_array_equal(values != 0, large.tissue)


def test_the_older_form_holds_the_same(large: Heatmap, large_04: Heatmap) -> None:
    path = large_04.path
    group = zarr.open_group(path, mode="r", zarr_format=2)
    image = ome_zarr_models.v04.Image.from_zarr(group)
    assert image.labels is not None
    ome_zarr_models.v04.ImageLabel.from_zarr(group["labels/tissue"])
    assert json.loads((path / ".zattrs").read_text())["multiscales"][0]["version"] == "0.4"
    assert json.loads((path / "0" / ".zarray").read_text())["dimension_separator"] == "/"
    assert (path / "0" / "1" / "0" / "0").is_file()
    assert 'PhysicalSizeX="1.0"' in (path / "OME" / "METADATA.ome.xml").read_text(encoding="utf-8")
    opened, newer = Heatmap.open(path), zarr.open_group(large.path, mode="r")
    for level in range(3):
        np.testing.assert_array_equal(group[str(level)][...], newer[str(level)][...])
        np.testing.assert_array_equal(group[f"labels/tissue/{level}"][...], newer[f"labels/tissue/{level}"][...])
    assert opened.attributes == large.attributes
    np.testing.assert_array_equal(opened.grid.cells, large.grid.cells)


def test_a_run_can_end_in_the_older_form(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = run(path, grid, version="0.4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]
    np.testing.assert_array_equal(heatmap.probability("IDC"), expected_map(grid))
    assert begin(path, grid).complete
    ome_zarr_models.v04.Image.from_zarr(zarr.open_group(path, mode="r"))
    with pytest.raises(ResultsMismatchError, match="model"):
        begin(path, grid, identity=replace(IDENTITY, bundle="x"))
