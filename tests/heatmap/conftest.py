"""Finished heatmaps shared by the tests of this folder; none of them may change one."""

from pathlib import Path

import pytest
from maps import make_grid, run, torn_scores_of

from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap


@pytest.fixture(scope="session")
def grid() -> Grid:
    made = make_grid()
    assert made.shape == (150, 100)
    assert len(made.blocks()) == 6
    return made


@pytest.fixture(scope="session")
def finished(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "heatmap.zarr"
    run(path, grid)
    return path


@pytest.fixture(scope="session")
def torn(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished map some cells of which could not be read."""
    path = tmp_path_factory.mktemp("torn") / "heatmap.zarr"
    run(path, grid, torn_scores_of)
    return path


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Heatmap:
    """A map of three levels with odd sides, some cells of which could not be read."""
    path = tmp_path_factory.mktemp("large") / "heatmap.zarr"
    return run(path, make_grid(601, 333), torn_scores_of, provenance={"seconds": 1.5})


@pytest.fixture(scope="session")
def large_04(tmp_path_factory: pytest.TempPathFactory) -> Heatmap:
    """The same in the older form."""
    path = tmp_path_factory.mktemp("large_04") / "heatmap.zarr"
    return run(path, make_grid(601, 333), torn_scores_of, provenance={"seconds": 1.5}, version="0.4")
