"""The demo on a slide small enough for a test."""

import re

import numpy as np

from wsi_pipeline.cli import OK, main
from wsi_pipeline.demo import map_auroc
from wsi_pipeline.geometry import Scale, Size
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.phantom import Phantom


def test_the_demo_makes_a_slide_runs_it_and_tells_how_good_the_map_is(tmp_path, capsys):
    folder = tmp_path / "démo"
    assert main(["demo", "--out", str(folder), "--width", "2400", "--height", "2000", "--seed", "3"]) == OK
    text = capsys.readouterr().out
    assert re.search(r"AUROC \d\.\d{3}\.|the slide drew no tumour", text)
    for name in ("overlay.png", "tissue.png", "regions.geojson", "heatmap.zarr"):
        path = folder / "results" / "phantom" / name
        assert path.exists()
        assert str(path) in text
    # Again: the slide is drawn the same, so that nothing is computed twice.
    assert main(["demo", "--out", str(folder), "--width", "2400", "--height", "2000", "--seed", "3"]) == OK
    assert "done before" in capsys.readouterr().out


def test_the_auroc_is_one_for_the_truth_and_a_half_for_chance(tmp_path, monkeypatch):
    size = Size(2400, 2000)
    phantom = Phantom(size=size, seed=3)
    assert main(["demo", "--out", str(tmp_path), "--width", "2400", "--height", "2000", "--seed", "3"]) == OK
    heatmap = Heatmap.open(tmp_path / "results" / "phantom" / "heatmap.zarr")
    rows, cols = heatmap.grid.shape
    truth = phantom.tumour_mask(Scale(50, 50))[:rows, :cols].astype(np.float32)
    visited = np.isfinite(heatmap.probability("IDC"))
    monkeypatch.setattr(heatmap, "probability", lambda _: np.where(visited, truth, np.nan))
    assert map_auroc(heatmap, phantom) > 0.9
    monkeypatch.setattr(heatmap, "probability", lambda _: np.where(visited, np.float32(0.5), np.nan))
    assert map_auroc(heatmap, phantom) == 0.5
