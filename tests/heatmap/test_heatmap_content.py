"""What is in a heatmap, and what it says of itself."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from maps import CLASSES, IDENTITY, begin, expected_map, make_grid, run, scores_of, tissue_of, torn_scores_of

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap


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
