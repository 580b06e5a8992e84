"""What the network's numbers were rounded to goes with a result: no map is continued in other arithmetic."""

import json

import openvino
import pytest
from helpers import tissue_picture, write_redness_bundle
from tiffs import write_pyramid

from wsi_pipeline.config import load_settings
from wsi_pipeline.errors import InferenceError
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.pipeline import run
from wsi_pipeline.pipeline.model import _cached_predictor

SETTINGS = {"workers": 0, "tissue_min_area_um2": 0}
"""The slide is smaller than the smallest piece of tissue that a run looks at by itself."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    slide = write_pyramid(folder / "slide.tiff", base=tissue_picture(600, 500))
    return str(slide), str(write_redness_bundle(folder / "bundle"))


def run_with(world, out, **settings):
    slide, bundle = world
    (result,) = run([slide], out, load_settings(None, {"model": bundle, **SETTINGS, **settings})).results
    assert result.summary is None or result.summary.cells > 0
    return result


def test_an_engine_of_the_same_arithmetic_takes_a_result_as_it_is(world, tmp_path):
    first = run_with(world, tmp_path, engine="torch")
    assert (first.status, first.summary.engine, first.summary.precision) == ("done", "torch", "fp32")
    folder = tmp_path / first.folder
    model = json.loads((folder / "summary.json").read_text())
    assert (model["engine"], model["precision"]) == ("torch", "fp32")
    assert run_with(world, tmp_path, engine="openvino").status == "skipped"


def test_a_result_of_other_arithmetic_is_refused(world, tmp_path):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16, which OpenVINO then refuses")
    assert run_with(world, tmp_path, engine="torch").status == "done"
    other = run_with(world, tmp_path, engine="openvino", precision="bf16")
    assert other.status == "failed"
    assert "made with other settings" in other.error["why"]


def test_an_interrupted_map_is_not_continued_in_other_arithmetic(world, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Heatmap, "finish", interrupt)
        assert run_with(world, tmp_path, engine="torch").status == "failed"
    other = run_with(world, tmp_path, engine="torch", precision="bf16")
    assert other.status == "failed"
    assert "made with other settings" in other.error["why"]
    finished = run_with(world, tmp_path, engine="openvino", precision="fp32")
    assert (finished.status, finished.summary.engine) == ("done", "torch")  # which had computed every block


class Refused:
    """An OpenVINO that takes no network."""

    def __init__(self, *_, **__):
        raise InferenceError("engine openvino", "cannot take this network (it is stubborn)", "Use --engine torch.")


@pytest.fixture
def fresh_predictor():
    _cached_predictor.cache_clear()
    yield
    _cached_predictor.cache_clear()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_result_names_the_engine_that_ran_not_the_one_that_was_chosen(
    world, tmp_path, monkeypatch, fresh_predictor, precision
):
    monkeypatch.setattr("wsi_pipeline.inference.engines.openvino_engine.OpenVinoEngine", Refused)
    result = run_with(world, tmp_path, engine="auto", precision=precision, device="cpu")
    ran = {"engine": "torch", "precision": precision}
    assert (result.status, result.error) == ("done", None)
    told = json.loads((tmp_path / result.folder / "summary.json").read_text())
    assert {key: told[key] for key in ran} == ran
    heatmap = Heatmap.open(tmp_path / result.folder / "heatmap.zarr")
    assert heatmap.computed_by == ran
    assert heatmap.attributes["provenance"]["computed_by"] == [ran]
    assert run_with(world, tmp_path, engine="torch", precision=precision, device="cpu").status == "skipped"


def test_a_map_that_is_kept_keeps_the_name_of_its_engine(world, tmp_path):
    slide, bundle = world
    assert run_with(world, tmp_path, engine="torch").status == "done"
    other = load_settings(None, {"model": bundle, **SETTINGS, "engine": "openvino", "threshold": 0.9})
    (again,) = run([slide], tmp_path, other, overwrite=True).results
    assert (again.status, again.summary.threshold, again.summary.engine) == ("done", 0.9, "torch")


def test_a_map_that_another_engine_goes_on_with_has_both_names(world, tmp_path, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.grid.MAX_BLOCK_CELLS", 4)
    write = Heatmap.write_blocks

    def first(self, blocks):
        write(self, blocks[:1])
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Heatmap, "write_blocks", first)
        assert run_with(world, tmp_path, engine="torch").status == "failed"
    finished = run_with(world, tmp_path, engine="openvino", precision="fp32")
    assert (finished.status, finished.summary.engine, finished.summary.precision) == (
        "done",
        "torch and openvino",
        "fp32",
    )


def test_no_map_is_filled_in_other_arithmetic_than_it_was_begun_for(world, tmp_path, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.inference.Predictor.arithmetic", "fp16")
    result = run_with(world, tmp_path, engine="torch")
    assert result.status == "failed"
    assert "computes in fp16 here, for which this map was not begun" in result.error["why"]
    assert not (tmp_path / result.folder / "heatmap.zarr").exists()
