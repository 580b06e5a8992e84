"""The main job from files to files, with a network whose map numpy can work out."""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import redness, tissue_picture, write_redness_bundle
from qupath_rules import check_geojson
from second_stage import write_corner_bundle
from tiffs import break_tile, write_pyramid

from wsi_pipeline import files, pipeline
from wsi_pipeline.config import Settings, load_settings
from wsi_pipeline.errors import BundleError, ConfigError, OutputError, SlideNotFoundError, SlideReadError
from wsi_pipeline.geometry import Box
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.pipeline import batch
from wsi_pipeline.pipeline import slide as slide_module
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.raster import RasterSlide

SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 0}
THRESHOLD = {"threshold": 0.85}  # crosses the tissue of the test picture


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_redness_bundle(tmp_path_factory.mktemp("bundle") / "redness", mpp=0.25)


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "röt 1.tiff", base=tissue_picture())


@pytest.fixture
def settings(bundle) -> Settings:
    return make_settings(bundle)


def make_settings(bundle: Path, **more) -> Settings:
    return load_settings(
        None, {"model": str(bundle), "workers": 0, "batch_size": 32, "device": "cpu", **SMALL, **(THRESHOLD | more)}
    )


def only(record):
    (result,) = record.results
    assert result.error is None, result.error
    return result


def test_a_slide_becomes_a_map_outlines_pictures_and_numbers(tmp_path, slide, settings):
    record = pipeline.run([str(slide)], tmp_path / "out", settings)
    folder = tmp_path / "out" / "röt 1"
    assert {path.name for path in folder.iterdir()} == {
        *("heatmap.zarr", "regions.geojson", "overlay.png", "tissue.png", "summary.json"),
    }
    heatmap = Heatmap.open(folder / "heatmap.zarr")
    probability = heatmap.probability("IDC")
    assert len(heatmap.grid.cells) > 100
    with open_slide(slide) as opened:
        for row, col in heatmap.grid.cells[::17]:
            field = opened.read(heatmap.grid.block_box(np.array([[row, col]], np.int32)), heatmap.grid.scale)
            assert probability[row, col] == pytest.approx(redness(field), abs=1e-5)
    visited = np.zeros(heatmap.grid.shape, bool)
    visited[tuple(heatmap.grid.cells.T)] = True
    assert np.array_equal(np.isfinite(probability), visited)

    summary = only(record).summary
    assert summary == type(summary).read(folder / "summary.json")
    called = probability >= np.float32(0.85)
    assert 0 < called.sum() < visited.sum()
    assert summary.idc_mm2 == pytest.approx(heatmap.grid.cell_area_um2[called].sum() * 1e-6)
    assert summary.analysed_mm2 == pytest.approx(heatmap.grid.cell_area_um2[visited].sum() * 1e-6)
    assert summary.mean_probability == pytest.approx(np.nanmean(probability), rel=1e-5)
    true_tissue = np.pi * 0.4 * 0.4 * 1000 * 800 * 0.0625e-6
    assert summary.tissue_mm2 == pytest.approx(true_tissue, rel=0.25)  # a small piece: the mask is right to 10 µm
    assert {"open", "plan", "read", "wait", "network", "write", "regions", "render", "total"} == set(summary.seconds)
    assert summary.note == "For research use only"

    outlines = json.loads((folder / "regions.geojson").read_text(encoding="utf-8"))
    check_geojson(outlines)
    assert len(outlines["features"]) == summary.regions > 0

    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert [r["status"] for r in run["results"]] == ["done"]
    assert run["versions"]["torch"]
    assert run["hardware"]["cores"]
    assert run["settings"]["grid"]["cell"] == "50px@40x"
    assert run["finished"] >= run["started"]
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as text:
        (row,) = csv.DictReader(text)
    assert float(row["idc_mm2"]) == summary.idc_mm2
    assert row["status"] == "done"


@pytest.mark.parametrize("error", [ValueError("two\nlines"), OutputError("report.html", "the disk is full", "Tidy.")])
def test_a_report_that_cannot_be_made_does_not_end_a_finished_run(
    tmp_path, slide, settings, monkeypatch, caplog, error
):
    def broken(*_):
        raise error

    monkeypatch.setattr("wsi_pipeline.pipeline.batch.write_report", broken)
    record = pipeline.run([str(slide)], tmp_path, settings)
    assert only(record).status == "done"
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert run["finished"] == record.finished
    why = "two lines" if isinstance(error, ValueError) else "the disk is full"
    (warning,) = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert warning == (
        f"{tmp_path}/report.html was not written; the results are complete. {type(error).__name__}: {why}. "
        f"Make it anew with: wsi-pipeline report {tmp_path}"
    )


def test_workers_change_no_bit(tmp_path, slide, bundle, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.grid.MAX_BLOCK_CELLS", 4)
    maps = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        pipeline.run([str(slide)], out, make_settings(bundle, workers=workers))
        heatmap = Heatmap.open(out / "röt 1" / "heatmap.zarr")
        assert len(heatmap.grid.blocks()) > 10
        maps.append(heatmap.probability("IDC"))
    assert np.array_equal(*maps, equal_nan=True)


def test_what_was_done_is_not_done_again(tmp_path, slide, settings):
    pipeline.run([str(slide)], tmp_path, settings)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "röt 1").rglob("*")}
    assert only(pipeline.run([str(slide)], tmp_path, settings)).status == "skipped"
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "röt 1").rglob("*")}
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as text:
        assert next(iter(csv.DictReader(text)))["idc_mm2"]


def test_results_of_other_settings_are_never_mixed(tmp_path, slide, bundle, settings):
    pipeline.run([str(slide)], tmp_path, settings)
    other = make_settings(bundle, threshold=0.7)
    (refused,) = pipeline.run([str(slide)], tmp_path, other).failed
    assert refused.error["type"] == "ResultsMismatchError"
    assert "other settings" in refused.error["why"]
    assert "--overwrite" in refused.error["hint"]
    array = next((tmp_path / "röt 1" / "heatmap.zarr" / "0").rglob("c/0/*/*"))
    before = array.stat().st_mtime_ns
    replaced = only(pipeline.run([str(slide)], tmp_path, other, overwrite=True))
    assert (replaced.status, replaced.summary.threshold) == ("done", 0.7)
    assert array.stat().st_mtime_ns == before  # another threshold needs no new map
    (refused,) = pipeline.run([str(slide)], tmp_path, make_settings(bundle, cell="25um")).failed
    assert "settings" in refused.error["why"]
    bigger = make_settings(bundle, cell="25um")
    assert only(pipeline.run([str(slide)], tmp_path, bigger, overwrite=True)).summary.cell_um == 25


def test_what_is_missing_is_made_again_and_what_is_outdated_goes(tmp_path, slide, bundle):
    folder = tmp_path / "röt 1"
    pipeline.run([str(slide)], tmp_path, make_settings(bundle, cells=True))
    for name in ("overlay.png", "heatmap.zarr"):
        shutil.move(folder / name, tmp_path / name)
        assert only(pipeline.run([str(slide)], tmp_path, make_settings(bundle, cells=True))).status == "done"
        assert (folder / name).exists()
    assert (folder / "cells.geojson.gz").exists()
    coarse = make_settings(bundle, cell="25um")
    assert only(pipeline.run([str(slide)], tmp_path, coarse, overwrite=True)).status == "done"
    assert not (folder / "cells.geojson.gz").exists()  # it told of other cells


def test_what_the_map_says_of_its_making_holds_after_another_threshold(tmp_path, slide, bundle, settings):
    pipeline.run([str(slide)], tmp_path, settings)
    pipeline.run([str(slide)], tmp_path, make_settings(bundle, threshold=0.7), overwrite=True)
    provenance = Heatmap.open(tmp_path / "röt 1" / "heatmap.zarr").attributes["provenance"]
    assert "threshold" not in json.dumps(provenance["settings"])
    assert provenance["settings"]["grid"]["cell"] == "50px@40x"


def test_the_stored_tissue_is_the_tissue_not_the_run(tmp_path, slide, bundle):
    pipeline.run([str(slide)], tmp_path, make_settings(bundle, min_tissue=0.99))
    heatmap = Heatmap.open(tmp_path / "röt 1" / "heatmap.zarr")
    assert heatmap.tissue.sum() > len(heatmap.grid.cells)


def test_results_never_go_into_the_slide_itself(tmp_path, settings):
    companion = tmp_path / "scan"
    companion.mkdir()
    (tmp_path / "scan.mrxs").write_bytes(b"not a real one")
    (failed,) = pipeline.run([str(tmp_path / "scan.mrxs")], tmp_path, settings).failed
    assert "is a part of the slide" in failed.error["why"]
    assert list(companion.iterdir()) == []


def test_results_may_lie_beside_a_slide_of_one_file(tmp_path, slide, settings):
    shutil.copy(slide, tmp_path / "x.tiff")
    assert only(pipeline.run([str(tmp_path / "x.tiff")], tmp_path, settings)).status == "done"
    assert (tmp_path / "x" / "summary.json").exists()


def test_a_damaged_patch_case_beside_its_results_keeps_every_file(tmp_path, bundle):
    case = tmp_path / "idc" / "77"
    (case / "0").mkdir(parents=True)
    for x in range(4):
        (case / "0" / f"77_idx5_x{x * 50 + 1}_y1_class0.png").write_bytes(b"no picture")
    before = sorted(case.rglob("*"))
    for out in (tmp_path / "idc", tmp_path / "out"):
        (failed,) = pipeline.run([str(case)], out, make_settings(bundle)).failed
        assert failed.error["type"] != "TypeError"
    assert sorted(case.rglob("*")) == before


def test_pixels_that_are_not_square_are_measured_as_they_are(tmp_path, settings):
    """0.25 x 0.4 µm/px: cells are 50 x 31.25 px, and areas count in both directions."""
    resolution = {"resolution": (1e4 / 0.25, 1e4 / 0.4), "resolutionunit": "CENTIMETER"}
    slide = write_pyramid(tmp_path / "s.tiff", base=tissue_picture(), mpp=None, factors=(1,), **resolution)
    allowed = settings.model_copy(update={"grid": settings.grid.model_copy(update={"allow_upsampling": True})})
    summary = only(pipeline.run([str(slide)], tmp_path / "out", allowed)).summary
    assert summary.mpp == pytest.approx((0.25, 0.4))
    heatmap = Heatmap.open(tmp_path / "out" / "s" / "heatmap.zarr")
    assert heatmap.grid.shape == (26, 20)
    assert heatmap.grid.cell_area_um2[5, 5] == pytest.approx(12.5 * 12.5, rel=0.03)
    assert summary.tissue_mm2 == pytest.approx(np.pi * 0.16 * 1000 * 800 * 0.25 * 0.4e-6, rel=0.25)


def test_slides_of_one_name_do_not_overwrite_each_other(tmp_path, settings):
    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        write_pyramid(tmp_path / folder / "x.tiff", base=tissue_picture(600, 400, seed=seed))
    record = pipeline.run([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out", settings)
    assert len({result.folder for result in record.results}) == 2
    assert len({result.summary.identity.slide for result in record.results}) == 2


def test_one_broken_slide_does_not_stop_the_others(tmp_path, slide, settings):
    (tmp_path / "slides").mkdir()
    shutil.copy(slide, tmp_path / "slides" / "good.tiff")
    (tmp_path / "slides" / "garbage.svs").write_bytes(os.urandom(5000))
    (tmp_path / "slides" / "empty.svs").touch()
    cut = tmp_path / "slides" / "cut.tiff"
    cut.write_bytes(slide.read_bytes()[:3000])
    ended = []
    record = pipeline.run([str(tmp_path / "slides")], tmp_path / "out", settings, on_slide=ended.append)
    status = {result.slide: result.status for result in record.results}
    assert status == {"good": "done", "garbage": "failed", "empty": "failed", "cut": "failed"}
    assert len(ended) == 4
    for result in record.failed:
        assert result.slide in result.error["where"]
        assert result.error["why"]
        assert result.error["hint"]
        assert result.error["type"] != "Exception"
        assert not (tmp_path / "out" / result.folder / "summary.json").exists()
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as text:
        assert sum(bool(row["error"]) for row in csv.DictReader(text)) == 3


def test_one_corrupt_tile_costs_its_cells_and_is_told(tmp_path, settings):
    whole = write_pyramid(tmp_path / "whole.tiff", base=tissue_picture(), factors=(1,))
    broken = write_pyramid(tmp_path / "broken.tiff", base=tissue_picture(), factors=(1,))
    break_tile(broken, 3 * 8 + 4)  # in the middle: columns 512..639, rows 384..511
    results = pipeline.run([str(whole), str(broken)], tmp_path / "out", settings).results
    good, bad = (
        Heatmap.open(tmp_path / "out" / name / "heatmap.zarr").probability("IDC") for name in ("whole", "broken")
    )
    heatmap = Heatmap.open(tmp_path / "out" / "broken" / "heatmap.zarr")
    rows, cols = np.nonzero(heatmap.unread())
    # The tile, and at most one native tile's worth of cells around it.
    assert 384 - 256 <= rows.min() * 50 < 512 <= rows.max() * 50 + 50 <= 512 + 256
    assert 512 - 256 <= cols.min() * 50 < 640 <= cols.max() * 50 + 50 <= 640 + 256
    kept = np.isfinite(good) & np.isfinite(bad)
    assert np.array_equal(good[kept], bad[kept])
    summary = {result.slide: result for result in results}["broken"].summary
    assert summary.unreadable_cells == len(rows)
    assert any("could not be read" in warning for warning in summary.warnings)


def test_what_could_not_be_read_is_tried_again(tmp_path, slide, settings, monkeypatch):
    """A disk or network that was away for a moment leaves no hole for good."""
    read = RasterSlide.read

    def faulty(self, box, scale):
        if box.intersection(Box(520, 390, 100, 100)).width and box.intersection(Box(520, 390, 100, 100)).height:
            raise SlideReadError(self.info.path, "is away for a moment")
        return read(self, box, scale)

    monkeypatch.setattr(RasterSlide, "read", faulty)
    holed = only(pipeline.run([str(slide)], tmp_path, settings))
    assert holed.summary.unreadable_cells
    monkeypatch.setattr(RasterSlide, "read", read)
    whole = only(pipeline.run([str(slide)], tmp_path, settings))
    assert (whole.status, whole.summary.unreadable_cells) == ("done", 0)
    assert only(pipeline.run([str(slide)], tmp_path, settings)).status == "skipped"


def test_a_slide_that_is_mostly_damaged_fails(tmp_path, settings):
    broken = write_pyramid(tmp_path / "broken.tiff", base=tissue_picture(), factors=(1,))
    for tile in range(56):
        if tile % 5:
            break_tile(broken, tile)
    (failed,) = pipeline.run([str(broken)], tmp_path / "out", settings).failed
    assert "cells cannot be read" in failed.error["why"]
    assert not list((tmp_path / "out").glob("broken/heatmap.zarr*"))


def test_all_glass_is_an_empty_and_valid_result(tmp_path, settings):
    glass = write_pyramid(tmp_path / "glass.tiff", base=np.full((600, 700, 3), 243, np.uint8))
    summary = only(pipeline.run([str(glass)], tmp_path / "out", settings)).summary
    assert (summary.cells, summary.idc_mm2, summary.idc_fraction, summary.regions) == (0, 0, None, 0)
    assert "No tissue was found: the map is empty." in summary.warnings
    folder = tmp_path / "out" / "glass"
    assert np.isnan(Heatmap.open(folder / "heatmap.zarr").probability("IDC")).all()
    assert json.loads((folder / "regions.geojson").read_text())["features"] == []
    assert (folder / "overlay.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("mpp", "more", "expected"),
    [
        (None, {}, "does not say its resolution"),
        (None, {"mpp": 896.0}, "896 µm/px is not a microscope's"),
        (0.5, {}, "0.5 µm/px, the model needs 0.25 µm/px"),
    ],
)
def test_resolutions_that_do_not_do_are_refused(tmp_path, bundle, mpp, more, expected):
    slide = write_pyramid(tmp_path / "slide.tiff", base=tissue_picture(400, 300), mpp=mpp)
    (failed,) = pipeline.run([str(slide)], tmp_path / "out", make_settings(bundle, **more)).failed
    assert expected in failed.error["why"]
    assert "--" in failed.error["hint"]


def test_upsampling_is_done_only_when_told_and_is_told(tmp_path, bundle):
    slide = write_pyramid(tmp_path / "slide.tiff", base=tissue_picture(400, 300), mpp=0.5)
    allowed = make_settings(bundle, allow_upsampling=True)
    summary = only(pipeline.run([str(slide)], tmp_path / "out", allowed)).summary
    assert any("detail is invented" in warning for warning in summary.warnings)


def test_a_slide_smaller_than_a_cell_is_refused(tmp_path, settings):
    slide = write_pyramid(tmp_path / "tiny.tiff", base=tissue_picture(40, 30), factors=(1,))
    (failed,) = pipeline.run([str(slide)], tmp_path / "out", settings).failed
    assert "smaller than one cell" in failed.error["why"]


def test_a_run_that_cannot_start_says_so_before_the_first_slide(tmp_path, slide, bundle, settings):
    with pytest.raises(SlideNotFoundError, match="no file matches"):
        pipeline.run([str(slide), str(tmp_path / "no-such-folder/*.svs")], tmp_path / "out", settings)
    with pytest.raises(BundleError, match="is no model bundle"):
        pipeline.run([str(slide)], tmp_path / "out", make_settings(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"low_threshold: 0\.8 exceeds the model's threshold 0\.5"):
        pipeline.run([str(slide)], tmp_path / "out", make_settings(bundle, low_threshold=0.8, threshold=None))
    with pytest.raises(ConfigError, match="no cell size"):
        pipeline.run([str(slide)], tmp_path / "out", make_settings(bundle, cell="tiny"))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path, slide, settings):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        pipeline.run([str(slide)], tmp_path / "file" / "out", settings)


def test_two_runs_on_one_folder_exclude_each_other(tmp_path, slide, settings):
    with folder_lock(tmp_path / "out"), pytest.raises(OutputError, match="another run"):
        pipeline.run([str(slide)], tmp_path / "out", settings)


def test_a_disk_that_fills_up_loses_nothing(tmp_path, slide, settings, monkeypatch):
    whole = tmp_path / "whole"
    pipeline.run([str(slide)], whole, settings)
    write, count = Heatmap.write_blocks, 0

    def write_until_full(self, blocks):
        nonlocal count
        count += 1
        if count > 1:
            raise OutputError(self.path, "cannot be written (No space left on device)", "Free some space.")
        write(self, blocks)

    small_blocks = {"MAX_BLOCK_CELLS": 6}
    for name, value in small_blocks.items():
        monkeypatch.setattr(f"wsi_pipeline.grid.{name}", value)
    monkeypatch.setattr(Heatmap, "write_blocks", write_until_full)
    (failed,) = pipeline.run([str(slide)], tmp_path / "out", settings).failed
    assert "No space left" in failed.error["why"]
    monkeypatch.setattr(Heatmap, "write_blocks", write)
    again = only(pipeline.run([str(slide)], tmp_path / "out", settings))
    assert again.status == "done"
    first, second = (
        Heatmap.open(out / "röt 1" / "heatmap.zarr").probability("IDC") for out in (whole, tmp_path / "out")
    )
    assert np.array_equal(first, second, equal_nan=True)


@pytest.mark.parametrize("name", ["regions.geojson", "overlay.png", "tissue.png", "summary.json", "run.json"])
def test_a_disk_that_is_full_at_any_file_leaves_nothing_half_written(tmp_path, slide, settings, monkeypatch, name):
    real = files.sync

    def full(path: Path) -> None:
        if path.name.endswith(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    monkeypatch.setattr(files, "sync", full)
    if name == "run.json":
        with pytest.raises(OutputError, match=r"run\.json: cannot be written \(No space left on device\)"):
            pipeline.run([str(slide)], tmp_path, settings)
    else:
        (failed,) = pipeline.run([str(slide)], tmp_path, settings).failed
        assert "No space left on device" in failed.error["why"]
    assert not list(tmp_path.rglob(f"*{name}"))
    assert not list(tmp_path.rglob("*-part-*"))
    monkeypatch.setattr(files, "sync", real)
    assert only(pipeline.run([str(slide)], tmp_path, settings)).status == "done"


def test_the_next_slide_is_made_ready_while_one_is_in_the_network(tmp_path, slide, settings, monkeypatch):
    for name in ("a.tiff", "c.tiff"):
        shutil.copy(slide, tmp_path / name)
    (tmp_path / "b.tiff").write_bytes(b"no slide")
    order = []
    prepare, finish = slide_module.prepare, slide_module.finish
    ready = {name: threading.Event() for name in "abc"}

    def prepared(job, *ahead):
        order.append(f"prepare {job.slide_id}")
        try:
            return prepare(job, *ahead)
        finally:
            ready[job.slide_id].set()

    def finished(found, on_cells):
        name = found.job.slide_id
        following = {"a": "b", "c": None}[name]
        assert following is None or ready[following].wait(60)
        order.append(f"finish {name}")
        return finish(found, on_cells)

    monkeypatch.setattr(batch, "prepare", prepared)
    monkeypatch.setattr(slide_module, "finish", finished)
    record = pipeline.run([str(tmp_path / f"{name}.tiff") for name in "abc"], tmp_path / "out", settings)
    assert order == ["prepare a", "prepare b", "finish a", "prepare c", "finish c"]
    assert [(r.slide, r.status) for r in record.results] == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert record.results[1].error["type"] == "SlideFormatError"


def test_the_first_slide_is_planned_while_the_network_is_built(tmp_path, slide, settings, monkeypatch):
    planned, plan, load = threading.Event(), slide_module.plan_slide, batch.get_predictor
    calls = []

    def plans(*given):
        calls.append(given)
        planned.set()
        return plan(*given)

    def loads(job):
        assert planned.wait(60)
        return load(job)

    monkeypatch.setattr(slide_module, "plan_slide", plans)
    monkeypatch.setattr(batch, "get_predictor", loads)
    for status in ("done", "skipped"):  # what has results is not planned
        record = pipeline.run([str(slide)], tmp_path / "out", settings)
        assert [result.status for result in record.results] == [status]
        assert len(calls) == 1


def test_results_that_come_while_the_network_is_built_are_not_overwritten(tmp_path, slide, settings, monkeypatch):
    """Another run of the same folder may be ending; the first slide was planned before this one had the lock."""
    planned, ahead, load = threading.Event(), slide_module.plan_ahead, batch.get_predictor
    other = settings.model_copy(update={"regions": settings.regions.model_copy(update={"threshold": 0.5})})

    def plans(job):
        try:
            return ahead(job)
        finally:
            planned.set()

    def loads(job):
        assert planned.wait(60)
        monkeypatch.undo()
        pipeline.run([str(slide)], tmp_path / "out", settings)
        return load(job)

    monkeypatch.setattr(batch, "plan_ahead", plans)
    monkeypatch.setattr(batch, "get_predictor", loads)
    (result,) = pipeline.run([str(slide)], tmp_path / "out", other).results
    assert (result.status, result.error["type"]) == ("failed", "ResultsMismatchError")


def test_a_run_that_cannot_start_waits_for_no_slide(tmp_path, slide, settings, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(batch, "plan_ahead", lambda job: goes_on.wait(60) and None)

    def loads(job):
        raise BundleError(job.bundle, "does not fit")

    monkeypatch.setattr(batch, "get_predictor", loads)
    with pytest.raises(BundleError):
        pipeline.run([str(slide)], tmp_path / "out", settings)
    (waiting,) = (thread for thread in threading.enumerate() if thread.name == "first slide")
    assert waiting.daemon
    goes_on.set()
    waiting.join(60)


def test_a_run_that_is_broken_off_leaves_no_reading_thread(tmp_path, slide, settings, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.grid.MAX_BLOCK_CELLS", 2)  # many blocks: the readers of both slides are busy
    shutil.copy(slide, tmp_path / "other.tiff")
    before = threading.active_count()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run([str(slide), str(tmp_path / "other.tiff")], tmp_path / "out", settings, on_cells=stop)
    assert [thread.name for thread in threading.enumerate() if "reader" in thread.name or "_read" in thread.name] == []
    assert threading.active_count() <= before + 1  # zarr's own


def test_cells_are_counted_up_to_all_of_them(tmp_path, slide, settings, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.grid.MAX_BLOCK_CELLS", 4)
    told = []
    record = pipeline.run([str(slide)], tmp_path, settings, on_cells=lambda *told_now: told.append(told_now))
    total = only(record).summary.cells
    done = [cells for _, cells, _ in told]
    assert {(name, whole) for name, _, whole in told} == {("röt 1", total)}
    assert (done[0], done[-1]) == (0, total)
    assert done == sorted(done)


RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from wsi_pipeline import grid
if "--tta" in sys.argv:
    import second_stage
    second_stage.add_context()
grid.MAX_BLOCK_CELLS = 3  # many blocks, so that a kill meets many states
from wsi_pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


def arguments(slide: Path, out: Path, bundle: Path) -> list[str]:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    command = ["run", str(slide), "--out", str(out), "--model", str(bundle), "--workers=0", "--batch-size=16"]
    return [sys.executable, "-c", RUN, str(Path(__file__).parent), *command, *options]


def kill_when(command: list[str], reached: Callable[[], bool], delay_s: float) -> None:
    """Start a run and kill it a little after it has come so far."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        time.sleep(0.002)
    time.sleep(delay_s)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "with symmetries and context"])
def test_a_run_killed_at_any_moment_resumes_to_the_same_map(tmp_path, slide, bundle, way):
    whole, out = tmp_path / "whole", tmp_path / "out"
    model = bundle if way == "plain" else write_corner_bundle(tmp_path / "corner")
    more = [] if way == "plain" else ["--tta"]
    subprocess.run([*arguments(slide, whole, model), *more], check=True, capture_output=True)
    expected = Heatmap.open(whole / "röt 1" / "heatmap.zarr")
    rng = random.Random(0)
    folder, again = out / "röt 1", [*arguments(slide, out, model), *more]
    blocks = folder / "heatmap.zarr.partial" / "0" / "c" / "0"
    for stored in sorted(rng.sample(range(1, 25), 3)):
        kill_when(again, lambda n=stored: sum(1 for _ in blocks.glob("*/*")) >= n, rng.uniform(0, 0.01))
    at_the_end = folder / "heatmap.zarr.image.partial", folder / "heatmap.zarr"
    kill_when(again, lambda: any(path.exists() for path in at_the_end), rng.uniform(0, 0.01))
    finished = subprocess.run(again, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = Heatmap.open(folder / "heatmap.zarr")
    for read in (lambda m: m.probability("IDC"), Heatmap.spread, Heatmap.unrefined):
        first, second = read(expected), read(found)
        assert (first is None) is (second is None)
        assert first is None or np.array_equal(first, second, equal_nan=True)
    assert (found.spread() is None, found.unrefined() is None) == ((True, True) if way == "plain" else (False, False))
    assert {path.name for path in folder.iterdir()} == {path.name for path in (whole / "röt 1").iterdir()}


def processes_of(mark: str) -> set[int]:
    """Processes whose command line or environment holds `mark`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.add(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_reading_process_behind(tmp_path, slide, bundle):
    mark = f"WSI_PIPELINE_TEST={tmp_path}"
    command = [part if part != "--workers=0" else "--workers=2" for part in arguments(slide, tmp_path / "out", bundle)]
    process = subprocess.Popen(
        command,
        env=os.environ | dict([mark.split("=", 1)]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(processes_of(mark)) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(processes_of(mark)) >= 4, "the run, its forkserver and two readers"
    process.kill()
    process.wait()
    while processes_of(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(mark)
