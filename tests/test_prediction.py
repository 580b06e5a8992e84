"""How answers of the network become probabilities: symmetries, context, and what results say of them."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Redness, tissue_picture
from qupath_rules import check_geojson, read_geojson
from scipy import ndimage
from second_stage import CONTEXT, Corner, load_with_context, write_corner_bundle
from tiffs import write_pyramid

from wsi_pipeline import pipeline
from wsi_pipeline.config import Settings, load_settings
from wsi_pipeline.context import refine
from wsi_pipeline.errors import BundleError
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.inspection import inspect_slide
from wsi_pipeline.manifest import Summary
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.models.ensemble import Ensemble, Member
from wsi_pipeline.prediction import choose_threshold, describe_prediction, prediction_facts, spread_over
from wsi_pipeline.slides.source import SlideSource

SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 0}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_corner_bundle(tmp_path_factory.mktemp("bundle") / "corner")


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "slide.tiff", base=tissue_picture())


@pytest.fixture
def context(monkeypatch) -> None:
    """Every bundle has a second stage."""
    for module in ("batch", "model"):
        monkeypatch.setattr(f"wsi_pipeline.pipeline.{module}.load_bundle", load_with_context)


def make_settings(bundle: Path, **more) -> Settings:
    fixed = {"model": str(bundle), "workers": 0, "batch_size": 32, "device": "cpu", "cell": "12.5um"}
    return load_settings(None, fixed | SMALL | more)


def run(slide: Path, out: Path, bundle: Path, **more) -> tuple[Summary, Heatmap]:
    (result,) = pipeline.run([str(slide)], out, make_settings(bundle, **more)).results
    assert result.error is None, result.error
    return result.summary, Heatmap.open(out / "slide" / "heatmap.zarr")


@pytest.mark.parametrize(("cell", "step", "spacing"), [("12.5um", 1, 1.0), ("6um", 2, 0.96), ("25um", 1, 2.0)])
@pytest.mark.usefixtures("context")
def test_a_second_stage_refines_the_map_and_what_is_made_of_it(tmp_path, slide, bundle, cell, step, spacing):
    with_context, refined = run(slide, tmp_path / "with", bundle, cell=cell)
    without, plain = run(slide, tmp_path / "without", bundle, cell=cell, context=False)
    network = plain.probability("IDC")
    np.testing.assert_array_equal(refined.unrefined(), network)
    np.testing.assert_array_equal(refined.probability("IDC"), refine(network, CONTEXT, step, spacing))
    np.testing.assert_array_equal(refined.probability("other"), 1 - refined.probability("IDC"))
    assert plain.unrefined() is None
    for summary, heatmap in ((with_context, refined), (without, plain)):
        called = heatmap.probability("IDC") >= np.float32(0.5)
        assert summary.idc_mm2 == pytest.approx(heatmap.grid.cell_area_um2[called].sum() * 1e-6)
    assert with_context.idc_mm2 != without.idc_mm2
    assert (with_context.context, without.context) == (True, False)
    far = [text for text in with_context.warnings if "neighbours 2 fields of view apart" in text]
    assert len(far) == int(spacing == 2.0)
    assert not any("fields of view apart" in text for text in without.warnings)
    assert refined.attributes["provenance"]["model"]["context"]["own"] == 0.6
    assert plain.attributes["provenance"]["model"]["context"] is None


@pytest.mark.usefixtures("context")
def test_a_threshold_that_was_chosen_with_context_is_told_where_context_is_off(tmp_path, slide, bundle):
    without, _ = run(slide, tmp_path / "a", bundle, context=False)
    assert any("threshold was chosen with it" in warning for warning in without.warnings)
    assert without.threshold_source.endswith("for maps with context, which is off")
    own, _ = run(slide, tmp_path / "b", bundle, context=False, threshold=0.6)
    assert (own.threshold_source, own.warnings) == ("user", ())
    used, _ = run(slide, tmp_path / "c", bundle)
    assert used.warnings == ()
    assert "context" not in used.threshold_source


@pytest.mark.parametrize(("alone", "expected"), [(0.3, ["Give --threshold 0.3, which was chosen without"]), (0.5, [])])
def test_the_threshold_without_context_is_named_where_the_card_has_one(
    tmp_path, slide, bundle, monkeypatch, alone, expected
):
    metrics = {"cross_validation_without_context": {"threshold": alone}}

    def load(*given):
        found = load_with_context(*given)
        card = found.card.model_copy(update={"metrics": metrics})
        return replace(found, card=card, digest=f"{found.digest} {alone}")

    for module in ("batch", "model"):
        monkeypatch.setattr(f"wsi_pipeline.pipeline.{module}.load_bundle", load)
    without, _ = run(slide, tmp_path, bundle, context=False)
    assert without.threshold == 0.5
    assert len(without.warnings) == len(expected)
    for warning, text in zip(without.warnings, expected, strict=True):
        assert text in warning


@pytest.mark.parametrize(("small_mm2", "told"), [(18.0, True), (0.01, False)])
def test_little_tissue_that_the_second_stage_takes_away_is_told(tmp_path, slide, bundle, monkeypatch, small_mm2, told):
    def load(*given):
        found = load_with_context(*given)
        context = found.card.context.model_copy(update={"intercept": -30.0})
        card = found.card.model_copy(update={"context": context})
        return replace(found, card=card, digest=f"{found.digest} strict {small_mm2}")

    for module in ("batch", "model"):
        monkeypatch.setattr(f"wsi_pipeline.pipeline.{module}.load_bundle", load)
    monkeypatch.setattr("wsi_pipeline.outputs.SMALL_MM2", small_mm2)
    summary, heatmap = run(slide, tmp_path, bundle)
    assert (summary.regions, summary.idc_mm2) == (0, 0.0)
    called_mm2 = float(heatmap.grid.cell_area_um2[heatmap.unrefined() >= summary.threshold].sum()) * 1e-6
    assert called_mm2 > 0.01
    expected = f"Before the second stage {called_mm2:.2g} mm² were called, after it 0. On little"
    assert [text.startswith(expected) for text in summary.warnings] == [True] * told


def test_a_low_threshold_is_never_above_that_of_the_map_before_the_second_stage(tmp_path, slide, bundle, monkeypatch):
    def load(*given):
        found = load_with_context(*given)
        metrics = {"cross_validation_without_context": {"threshold": 0.3}}
        card = found.card.model_copy(update={"metrics": metrics})
        return replace(found, card=card, digest=f"{found.digest} low")

    for module in ("batch", "model"):
        monkeypatch.setattr(f"wsi_pipeline.pipeline.{module}.load_bundle", load)
    summary, _ = run(slide, tmp_path, bundle, low_threshold=0.4)
    assert summary.threshold == 0.5


def test_a_leaky_model_s_results_say_so(tmp_path, slide, bundle, monkeypatch):
    def load(*given):
        found = load_bundle(*given)
        card = found.card.model_copy(update={"metrics": {"leaky": True}})
        return replace(found, card=card, digest=f"{found.digest} leaky")

    for module in ("batch", "model"):
        monkeypatch.setattr(f"wsi_pipeline.pipeline.{module}.load_bundle", load)
    summary, _ = run(slide, tmp_path, bundle)
    assert any("LEAKY split" in warning for warning in summary.warnings)


def test_augmentation_stores_the_spread_and_tells_it(tmp_path, slide, bundle):
    plain, plain_map = run(slide, tmp_path / "plain", bundle)
    summary, heatmap = run(slide, tmp_path / "tta", bundle, tta=True, cells=True)
    probability, spread = heatmap.probability("IDC"), heatmap.spread()
    np.testing.assert_array_equal(np.isnan(spread), np.isnan(probability))
    assert np.nanmax(spread) > 0.02
    assert np.nanmax(np.abs(probability - plain_map.probability("IDC"))) > 0.01
    assert plain_map.spread() is None
    assert not (tmp_path / "plain" / "slide" / "uncertainty.png").exists()
    assert (plain.tta, plain.spread_over, plain.mean_spread, plain.mean_spread_regions) == (False, None, None, None)

    inside = probability >= np.float32(0.5)
    near = ndimage.binary_dilation(inside, np.ones((3, 3))) & ~inside & np.isfinite(spread)
    assert (summary.tta, summary.spread_over) == (True, "8 symmetries")
    for found, where in (
        (summary.mean_spread, np.isfinite(spread)),
        (summary.mean_spread_regions, inside),
        (summary.mean_spread_near_regions, near),
    ):
        assert found == pytest.approx(spread[where].mean(dtype=np.float64))
    folder = tmp_path / "tta" / "slide"
    outlines = read_geojson(folder / "regions.geojson")
    check_geojson(outlines)
    measured = [feature["properties"]["measurements"] for feature in outlines["features"]]
    total = sum(m["Mean spread of p(IDC)"] * m["Cells"] for m in measured) / sum(m["Cells"] for m in measured)
    assert total == pytest.approx(summary.mean_spread_regions, abs=1e-5)
    cells = json.loads(gzip.decompress((folder / "cells.geojson.gz").read_bytes()))
    check_geojson(cells)
    given = [feature["properties"]["measurements"]["spread of p(IDC)"] for feature in cells["features"]]
    np.testing.assert_allclose(given, spread[np.isfinite(spread)], rtol=1e-5)


def test_an_ensemble_has_a_spread_without_being_asked(tmp_path, slide, bundle, monkeypatch):
    def load_pair(name):
        loaded = load_bundle(name)
        members = [Member(Corner(), loaded.card), Member(Redness(), loaded.card)]
        card = loaded.card.model_copy(update={"members": ("a", "b"), "weights": None})
        return replace(loaded, card=card, digest="e" * 64, build=lambda: Ensemble(members).eval())

    for module in ("batch", "model"):
        monkeypatch.setattr(f"wsi_pipeline.pipeline.{module}.load_bundle", load_pair)
    summary, heatmap = run(slide, tmp_path, bundle)
    assert (summary.tta, summary.spread_over) == (False, "2 networks")
    assert summary.mean_spread == pytest.approx(np.nanmean(heatmap.spread()), rel=1e-5)
    assert summary.mean_spread > 0.01
    assert (tmp_path / "slide" / "uncertainty.png").exists()


def test_the_picture_of_the_spread_belongs_to_a_whole_result(tmp_path, slide, bundle):
    run(slide, tmp_path, bundle, tta=True)
    picture = tmp_path / "slide" / "uncertainty.png"
    before = picture.read_bytes()
    picture.unlink()
    run(slide, tmp_path, bundle, tta=True)
    assert picture.read_bytes() == before
    (refused,) = pipeline.run([str(slide)], tmp_path, make_settings(bundle)).failed
    assert "other settings" in refused.error["why"]
    settings = make_settings(bundle)
    assert not pipeline.run([str(slide)], tmp_path, settings, overwrite=True).failed
    assert not picture.exists()  # it told of another run
    assert Heatmap.open(tmp_path / "slide" / "heatmap.zarr").spread() is None


def test_glass_has_no_spread_but_a_picture_of_it(tmp_path, bundle):
    glass = write_pyramid(tmp_path / "slide.tiff", base=np.full((300, 400, 3), 243, np.uint8))
    summary, heatmap = run(glass, tmp_path / "out", bundle, tta=True)
    assert summary.mean_spread is None
    assert np.isnan(heatmap.spread()).all()
    assert (tmp_path / "out" / "slide" / "uncertainty.png").stat().st_size > 1000


@pytest.mark.usefixtures("context")
def test_the_record_and_inspection_say_what_is_used(tmp_path, slide, bundle):
    run(slide, tmp_path / "out", bundle, tta=True)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["prediction"] == {"tta": True, "adaptive": False, "context": True}
    assert record["bundle"]["context"] == json.loads(CONTEXT.model_dump_json())
    assert record["bundle"]["spread_over"] == "8 symmetries"
    source = SlideSource(path=str(slide), reader="auto", mpp=None)
    facts = inspect_slide(source, make_settings(bundle, tta=True, context=False), load_with_context(bundle))
    assert facts["model"] == "corner, mean over 8 symmetries, without its context"
    assert "which is off" in facts["threshold"]


def test_what_is_said_of_ensembles():
    card = load_bundle("idc-resnet18").card.model_copy(
        update={"weights": None, "members": ("a", "b", "c"), "context": CONTEXT, "bias": (0.1, -0.1)}
    )
    plain, tta = Settings(), load_settings(None, {"tta": True})
    assert spread_over(plain, card) == "3 networks"
    assert spread_over(tta, card) == "3 networks x 8 symmetries"
    assert describe_prediction(tta, card) == f"{card.name}, mean of 3 networks, mean over 8 symmetries, with context"
    facts = prediction_facts(tta, card)
    assert (facts["members"], facts["bias"]) == (["a", "b", "c"], [0.1, -0.1])
    assert choose_threshold(plain, card) == (card.threshold.value, f"model: {card.threshold.chosen}")
    assert choose_threshold(load_settings(None, {"threshold": 0.2, "context": False}), card) == (0.2, "user")


def test_a_model_of_no_resolution_is_refused_before_the_first_slide(tmp_path, slide, bundle, monkeypatch):
    loaded = load_bundle(bundle)
    mixed = replace(loaded, card=loaded.card.model_copy(update={"mpp": None}))
    monkeypatch.setattr("wsi_pipeline.pipeline.batch.load_bundle", lambda name: mixed)
    with pytest.raises(BundleError, match="several magnifications"):
        pipeline.run([str(slide)], tmp_path / "out", make_settings(bundle))
    assert not (tmp_path / "out").exists()
    source = SlideSource(path=str(slide), reader="auto", mpp=None)
    assert "several magnifications" in inspect_slide(source, make_settings(bundle), mixed)["cells"]
