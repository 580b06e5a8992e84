"""What the network's numbers were rounded to goes with a result: no map is continued in other arithmetic."""

import json

import pytest
from helpers import tissue_picture, write_redness_bundle
from tiffs import write_pyramid

from wsi_pipeline.config import load_settings
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.pipeline import run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    slide = write_pyramid(folder / "slide.tiff", base=tissue_picture(600, 500))
    return str(slide), str(write_redness_bundle(folder / "bundle"))


def run_with(world, out, **settings):
    slide, bundle = world
    (result,) = run([slide], out, load_settings(None, {"model": bundle, "workers": 0, **settings})).results
    return result


def test_an_engine_of_the_same_arithmetic_takes_a_result_as_it_is_and_another_does_not(world, tmp_path):
    first = run_with(world, tmp_path, engine="torch")
    assert (first.status, first.summary.engine, first.summary.precision) == ("done", "torch", "fp32")
    folder = tmp_path / first.folder
    model = json.loads((folder / "summary.json").read_text())
    assert (model["engine"], model["precision"]) == ("torch", "fp32")
    assert run_with(world, tmp_path, engine="openvino").status == "skipped"
    other = run_with(world, tmp_path, engine="openvino", precision="bf16")
    assert other.status == "failed"
    assert "made with another settings" in other.error["why"]


def test_an_interrupted_map_is_not_continued_in_other_arithmetic(world, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Heatmap, "finish", interrupt)
        assert run_with(world, tmp_path, engine="torch").status == "failed"
    other = run_with(world, tmp_path, engine="torch", precision="bf16")
    assert other.status == "failed"
    assert "made with another settings" in other.error["why"]
    finished = run_with(world, tmp_path, engine="openvino", precision="fp32")
    assert (finished.status, finished.summary.engine) == ("done", "openvino")
