"""Which results are found, what their files are called, and what happens where one fails."""

import sys
from pathlib import Path

import numpy as np
import pytest
from finished_results import make_finished, same_summary, write_run

from wsi_pipeline.errors import ConfigError, SlideNotFoundError
from wsi_pipeline.export import FORMATS, ExportOptions, export
from wsi_pipeline.export.batch import _WRITERS
from wsi_pipeline.export.options import SEVERAL
from wsi_pipeline.export.results import Result, find_results, name_results


def test_every_format_has_a_writer():
    assert set(_WRITERS) == set(FORMATS) - set(SEVERAL)
    assert {part for parts in SEVERAL.values() for part in parts} <= set(_WRITERS)


def test_a_slide_that_fails_does_not_stop_the_others(run_folder, tmp_path):
    planned, seen = [], []
    small = ExportOptions(size_px=300)
    record = export(
        run_folder, to=["png", "csv"], out=tmp_path, options=small, on_plan=planned.append, on_done=seen.append
    )
    assert planned == [4]
    assert seen == record.results
    (failed,) = record.failed
    assert (failed.slide, failed.format, failed.files) == ("gone", "png", ())
    assert "gone.tiff" in failed.error["where"]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "a slide.cells.csv",
        "a slide.overlay.png",
        "a slide.regions.csv",
        "a slide.uncertainty.png",
        "gone.cells.csv",
        "gone.regions.csv",
    ]
    assert sorted(record.files) == sorted(tmp_path.iterdir())


def test_a_damaged_result_fails_alone(run_folder, tmp_path):
    (tmp_path / "run" / "bad").mkdir(parents=True)
    (tmp_path / "run" / "bad" / "summary.json").write_text("{}")
    record = export([tmp_path / "run", run_folder], to="geojson", out=tmp_path / "out")
    assert [result.slide for result in record.failed] == ["bad"]
    assert len(record.files) == 2


def test_files_lie_in_the_result_where_no_other_place_is_named(finished):
    (file,) = export(finished.folder, to="geojson").files
    assert file == finished.folder / "export" / "slide.geojson"


def test_results_are_found_by_slide_by_run_and_by_folder_of_runs(run_folder, tmp_path):
    both = [run_folder / "a slide", run_folder / "gone"]
    assert find_results([run_folder]) == both
    assert find_results([both[1]]) == [both[1]]
    assert find_results([run_folder.parent]) == both
    assert find_results([both[1], run_folder]) == [both[1], both[0]]
    for nothing in (tmp_path, tmp_path / "none", run_folder.parent / "a slide.tiff"):
        with pytest.raises(SlideNotFoundError):
            find_results([nothing])


def test_names_are_told_apart_by_their_run():
    def named(*folders: str) -> list[str]:
        return name_results([Path("/x") / folder for folder in folders])

    assert named("r/a", "r/b") == ["a", "b"]
    assert named("r/a", "s/A", "s/b") == ["r-a", "s-A", "b"]
    assert named("r/q/a", "s/q/a") == ["1-q-a", "2-q-a"]


def test_the_runs_own_settings_make_the_regions(tmp_path, finished):
    made = make_finished(tmp_path / "run" / "x", finished.slide)
    smallest = 10 * 12.5**2
    write_run(tmp_path / "run", {"min_region_um2": smallest, "low_threshold": 0.4, "smooth_um": 3.0})
    own = Result.open(made.folder, ExportOptions())
    assert own.region_settings.model_dump() == {
        "threshold": None,
        "low_threshold": 0.4,
        "min_region_um2": smallest,
        "smooth_um": 3.0,
    }
    assert own.regions
    assert min(region.area_um2 for region in own.regions) >= smallest
    changed = Result.open(made.folder, ExportOptions(threshold=0.3, smooth_um=0))
    assert (changed.threshold, changed.region_settings.smooth_um) == (0.3, 0)
    assert changed.region_settings.low_threshold is None  # 0.4 cannot be the lower bound of 0.3
    # Without a record that names the folder, nothing is known of them.
    (tmp_path / "run" / "run.json").unlink()
    assert Result.open(made.folder, ExportOptions()).region_settings.min_region_um2 == 10_000


def test_another_slide_in_the_same_place_is_refused(tmp_path, finished):
    made = make_finished(tmp_path / "x", finished.slide)
    other = same_summary(made.summary, identity={"slide": "0" * 64, "bundle": "b" * 64, "settings": "c" * 64})
    other.write(made.folder / "summary.json")
    record = export(made.folder, to=["png", "ome-tiff-overlay"], out=tmp_path / "out")
    assert len(record.failed) == 2
    assert all("is not the slide" in failed.error["why"] for failed in record.failed)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"smooth_um": -1},
        {"smooth_um": float("inf")},
        {"overlay_um": 0},
        {"size_px": 10},
        {"segmentation": "soft"},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError):
        ExportOptions(**wrong)


def test_unknown_formats_are_refused_before_anything_is_written(finished, tmp_path):
    for formats in ("svg", [], ["csv", "dicom"]):
        with pytest.raises(ConfigError):
            export(finished.folder, to=formats, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_told_before_the_first_slide(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigError, match=r"wsi-pipeline\[dicom\]"):
        export(finished.folder, to=["csv", "dicom-seg"], out=tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(export(finished.folder, to="csv", out=tmp_path).files) == 2


def test_a_map_without_anything_is_exported(tmp_path, finished):
    empty = np.full(finished.grid.shape, np.nan, np.float32)
    made = make_finished(tmp_path / "empty", finished.slide, probability=empty)
    formats = [form for form in FORMATS if not form.startswith("dicom")]
    record = export(made.folder, to=formats, out=tmp_path / "out", options=ExportOptions(size_px=300))
    assert not record.failed
    assert (tmp_path / "out" / "empty.cells.csv").read_text().count("\n") == 1


def test_a_folder_named_twice_is_exported_once(run_folder):
    assert find_results([run_folder, run_folder / "." / ".." / run_folder.name]) == find_results([run_folder])


def test_long_names_leave_room_for_the_endings():
    names = name_results([Path("/x/r") / ("é" * 120 + end) for end in "ab"])
    assert len(set(names)) == 2
    assert all(len(name.encode()) < 200 and "é" * 80 in name for name in names)
