"""A whole run with --adaptive: its map, its counts, its interruption, and where it does nothing."""

import json

import numpy as np
import pytest
from helpers import tissue_picture, write_redness_bundle
from tiffs import write_pyramid

from wsi_pipeline import pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.heatmap import Heatmap

SMALL = {"tissue_min_area_um2": 50, "tissue_min_hole_um2": 50, "tissue_closing_um": 1, "min_region_um2": 0}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Fields of view of 8 µm."""
    return write_redness_bundle(tmp_path_factory.mktemp("bundle") / "redness", size_px=32, mpp=0.25)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    base = tissue_picture(400, 320)
    return write_pyramid(tmp_path_factory.mktemp("slide") / "slide.tiff", base=base, factors=(1, 2))


def run(slide, out, bundle, **more):
    fixed = {"model": str(bundle), "workers": 0, "batch_size": 64, "device": "cpu", "engine": "torch", "cell": "1um"}
    (result,) = pipeline.run([str(slide)], out, load_settings(None, fixed | SMALL | more)).results
    return result


def finished(slide, out, bundle, **more):
    result = run(slide, out, bundle, **more)
    assert result.error is None, result.error
    return result.summary, Heatmap.open(out / "slide" / "heatmap.zarr")


def test_the_map_is_near_the_full_one_and_says_how_it_was_made(tmp_path, slide, bundle):
    full, full_map = finished(slide, tmp_path / "full", bundle)
    summary, heatmap = finished(slide, tmp_path / "adaptive", bundle, adaptive=True)
    assert full.evaluated_cells == full.cells
    assert 0 < summary.evaluated_cells < 0.7 * summary.cells == 0.7 * full.cells
    assert summary.warnings == full.warnings
    assert heatmap.attributes["cells"]["evaluated"] == summary.evaluated_cells
    assert heatmap.attributes["provenance"]["model"]["adaptive"] is True
    assert json.loads((tmp_path / "adaptive/slide/summary.json").read_text())["evaluated_cells"] > 0
    one, other = heatmap.probability("IDC"), full_map.probability("IDC")
    assert np.array_equal(np.isnan(one), np.isnan(other))
    assert np.nanmax(np.abs(one - other)) < 0.02
    assert (one == other).sum() >= summary.evaluated_cells


def test_an_interrupted_run_ends_in_the_same_map_and_count(tmp_path, slide, bundle, monkeypatch):
    expected, whole = finished(slide, tmp_path / "whole", bundle, adaptive=True)
    write, stored = Heatmap.write_blocks, []

    def fail_at_the_third(heatmap, blocks):
        for block in blocks:
            if len(stored) == 2:
                raise OSError("pulled out")
            write(heatmap, [block])
            stored.append(block.block.index)

    monkeypatch.setattr(Heatmap, "write_blocks", fail_at_the_third)
    assert run(slide, tmp_path / "twice", bundle, adaptive=True).error is not None
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr(Heatmap, "write_blocks", lambda heatmap, blocks: (seen.extend(blocks), write(heatmap, blocks)))
    summary, resumed = finished(slide, tmp_path / "twice", bundle, adaptive=True, batch_size=7)
    assert seen
    assert not {block.block.index for block in seen} & set(stored)
    assert np.array_equal(resumed.probability("IDC"), whole.probability("IDC"), equal_nan=True)
    assert summary.evaluated_cells == expected.evaluated_cells


def test_a_full_map_is_not_gone_on_with_as_an_adaptive_one(tmp_path, slide, bundle):
    finished(slide, tmp_path, bundle)
    assert "other settings" in run(slide, tmp_path, bundle, adaptive=True).error["why"]


@pytest.mark.parametrize("cell", ["native", "2um"])
def test_where_fields_of_view_overlap_little_it_does_nothing_and_says_so(tmp_path, slide, bundle, cell):
    summary, heatmap = finished(slide, tmp_path / "adaptive", bundle, adaptive=True, cell=cell)
    _, full = finished(slide, tmp_path / "full", bundle, cell=cell)
    assert np.array_equal(heatmap.probability("IDC"), full.probability("IDC"), equal_nan=True)
    assert summary.evaluated_cells == summary.cells
    assert any("--adaptive was not applied" in warning for warning in summary.warnings)


def test_the_picture_is_refined_around_the_models_threshold_whichever_is_used(tmp_path, slide, bundle):
    _, one = finished(slide, tmp_path / "a", bundle, adaptive=True)
    _, other = finished(slide, tmp_path / "b", bundle, adaptive=True, threshold=0.9)
    assert np.array_equal(one.probability("IDC"), other.probability("IDC"), equal_nan=True)
