"""The examples in the docstrings do what they say; and what they leave out."""

import doctest
import gc
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import redness, tissue_picture, write_redness_bundle
from tiffs import write_pyramid

import wsi_pipeline
from wsi_pipeline import Heatmap, analyze, api, errors, open_slide
from wsi_pipeline.errors import ConfigError, ResultsMismatchError, SlideFormatError
from wsi_pipeline.geometry import Size
from wsi_pipeline.phantom import write_phantom

DOCS = Path(__file__).parents[1] / "docs"
QUICK = {"workers": 0, "device": "cpu", "batch_size": 32, "min_region_um2": 0, "threshold": 0.85,
         "tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_redness_bundle(tmp_path_factory.mktemp("bundle") / "redness", mpp=0.25)


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", base=tissue_picture(500, 400))


@pytest.fixture
def phantom(tmp_path, monkeypatch) -> Path:
    """A folder with ``slide.tiff``, the working folder of the examples."""
    write_phantom(tmp_path / "slide.tiff", Size(2400, 2000))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("text", ["wsi_pipeline.api", "wsi_pipeline", "python.md"])
def test_the_examples_run_as_they_are_written(phantom, text):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if text.endswith(".md"):
        failed, tried = doctest.testfile(str(DOCS / text), module_relative=False, optionflags=options)
    else:
        failed, tried = doctest.testmod(sys.modules[text], optionflags=options)
    assert tried > 0
    assert failed == 0


def test_a_result_is_that_of_the_run(slide, bundle, tmp_path):
    result = analyze(slide, tmp_path / "out", model=str(bundle), **QUICK)
    probability = result.probability()
    with open_slide(slide) as opened:
        grid = result.heatmap.grid
        row, col = grid.cells[len(grid.cells) // 2]
        field = opened.read(grid.block_box(np.array([[row, col]], np.int32)), grid.scale)
    assert probability[row, col] == pytest.approx(redness(field), abs=1e-5)
    assert len(result.regions) == result.summary.regions > 0
    assert sum(region.area_um2 for region in result.regions) * 1e-6 == pytest.approx(result.summary.idc_mm2)
    for region in result.regions:
        assert region.id in result.geojson.read_text(encoding="utf-8")
    everything = result.regions_at(0)
    assert sum(region.area_um2 for region in everything) * 1e-6 == pytest.approx(result.summary.analysed_mm2)
    assert result.probability("other")[row, col] == pytest.approx(1 - probability[row, col], abs=1e-6)
    assert {result.overlay.name, result.tissue.name} == {"overlay.png", "tissue.png"}
    assert result.overlay.exists()
    assert result.tissue.exists()
    assert (tmp_path / "out" / "report.html").exists()
    html = result._repr_html_()
    assert "For research use only" in html
    assert "data:image/jpeg" in html
    with pytest.raises(ConfigError, match="is no probability"):
        result.regions_at(1.5)


def test_without_a_folder_the_files_live_as_long_as_what_reads_them(slide, bundle):
    result = analyze(slide, model=str(bundle), **QUICK)
    folder = result.folder
    heatmap = result.heatmap
    del result
    gc.collect()
    assert np.isfinite(heatmap.probability("IDC")).any()
    del heatmap
    gc.collect()
    assert not folder.parent.exists()


def test_what_is_wrong_with_a_slide_is_raised_as_what_it_is(tmp_path, slide, bundle):
    (tmp_path / "empty.svs").touch()
    with pytest.raises(SlideFormatError) as told:
        analyze(tmp_path / "empty.svs", model=str(bundle), **QUICK)
    assert told.value.where == str(tmp_path / "empty.svs")
    assert told.value.hint
    analyze(slide, tmp_path / "out", model=str(bundle), **QUICK)
    with pytest.raises(ResultsMismatchError, match="other settings"):
        analyze(slide, tmp_path / "out", model=str(bundle), **QUICK | {"threshold": 0.9})
    again = analyze(slide, tmp_path / "out", model=str(bundle), overwrite=True, **QUICK | {"threshold": 0.9})
    assert again.summary.threshold == 0.9


def test_a_fault_of_the_program_is_no_fault_of_the_slide(slide, bundle, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("wsi_pipeline.pipeline.slide.write_outputs", broken)
    with pytest.raises(errors.WsiPipelineError, match="ZeroDivisionError: of ours") as told:
        analyze(slide, model=str(bundle), **QUICK)
    assert type(told.value) is errors.WsiPipelineError
    assert "Traceback" in told.value.hint


def test_several_slides_are_refused_by_name(tmp_path, bundle, slide):
    for name in ("a.tiff", "b.tiff"):
        (tmp_path / name).write_bytes(slide.read_bytes())
    with pytest.raises(ConfigError, match=r"names 2 slides.*a\.tiff"):
        analyze(tmp_path, model=str(bundle), **QUICK)


def test_a_setting_of_a_wrong_value_is_refused(slide):
    with pytest.raises(ConfigError, match="threshold"):
        analyze(slide, threshold=7)


def test_the_package_loads_nothing_before_it_is_asked():
    code = "import sys, wsi_pipeline; print(*(m for m in sys.modules if '.' not in m)); print(*dir(wsi_pipeline))"
    loaded, names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert not {"torch", "numpy", "zarr", "pydantic", "openslide"} & set(loaded.split())
    assert set(wsi_pipeline.__all__) <= set(names.split())


def test_the_names_of_the_package_are_those_of_its_modules():
    assert wsi_pipeline.analyze is api.analyze
    assert wsi_pipeline.Result is api.Result
    assert Heatmap.__module__.startswith("wsi_pipeline.heatmap")
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        _ = wsi_pipeline.analyse


@pytest.mark.parametrize("thing", [api.analyze, api.Result, Heatmap, open_slide])
def test_everything_public_is_documented(thing):
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for name, member in inspect.getmembers(thing):
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{thing.__name__}.{name}"
