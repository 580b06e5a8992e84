"""Damaged stores, foreign folders, full disks."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from maps import begin, blurred, expected_map, files_of, fill_layered, run, run_layered, scores_of

from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.heatmap import Heatmap


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


def test_a_disk_that_is_full_at_any_file_of_the_image_costs_the_image_alone(
    tmp_path: Path, grid: Grid, *, full_disk: dict[str, int]
) -> None:
    """With a second stage: at every file, the network's own scores are there to begin again with."""
    whole = run_layered(tmp_path / "whole" / "heatmap.zarr", grid)
    path = tmp_path / "out" / "heatmap.zarr"
    fill_layered(path, grid)
    expected, failures = expected_map(grid), 0
    while not path.exists():
        heatmap = begin(path, grid, spread=True)
        assert heatmap.pending() == []
        np.testing.assert_array_equal(heatmap.probability("IDC"), expected)
        assert heatmap.unrefined() is None
        full_disk["files"] = 2 * failures
        failures += 1
        with contextlib.suppress(OutputError):
            heatmap.finish(refine=blurred)
        full_disk["files"] = 10**9
    assert failures > 5
    assert files_of(path) == files_of(whole.path)
