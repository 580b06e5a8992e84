"""The same batch on dask.distributed gives the same files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import tissue_picture, write_redness_bundle
from tiffs import write_pyramid

from wsi_pipeline import cluster, pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.errors import ClusterError, ConfigError
from wsi_pipeline.heatmap import Heatmap

SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 0}

# dask closes its own sockets and event loops late; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    bundle = write_redness_bundle(tmp_path_factory.mktemp("bundle") / "redness")
    return load_settings(None, {"model": str(bundle), "workers": 0, "batch_size": 32, "device": "cpu", **SMALL})


@pytest.fixture
def slides(tmp_path) -> list[str]:
    pictures = {f"s{n}": tissue_picture(400, 300, seed=n) for n in range(3)}
    return [str(write_pyramid(tmp_path / f"{name}.tiff", base=base)) for name, base in pictures.items()]


def comparable(out: Path) -> dict:
    run = json.loads((out / "run.json").read_text())
    return {key: value for key, value in run.items() if key not in {"started", "finished"}}


@pytest.mark.slow
def test_a_cluster_gives_the_same_results_as_one_process(tmp_path, slides, settings):
    broken = tmp_path / "broken.tiff"
    broken.write_bytes(b"II*\0nonsense")
    inputs = [*slides, str(broken)]
    pipeline.run(inputs, tmp_path / "one", settings)
    pipeline.run(inputs, tmp_path / "many", settings, runner=cluster.cluster_runner("local:2"))
    one, many = comparable(tmp_path / "one"), comparable(tmp_path / "many")
    assert one == many
    assert [r["status"] for r in many["results"]].count("failed") == 1
    for name in ("s0", "s1", "s2"):
        first, second = (tmp_path / out / name for out in ("one", "many"))
        maps = [Heatmap.open(folder / "heatmap.zarr").probability("IDC") for folder in (first, second)]
        assert np.array_equal(*maps, equal_nan=True)
        assert (first / "regions.geojson").read_bytes() == (second / "regions.geojson").read_bytes()
        assert {p.name for p in first.iterdir()} == {p.name for p in second.iterdir()}


def dies_the_first_time(job, *_):
    """Stands for `run_job`: the first worker to get the job is killed with it."""
    mark = job.folder.parent / f"{job.slide_id}.tried"
    if not mark.exists():
        mark.touch()
        os._exit(9)
    return pipeline.job_result(job, "done")


def always_dies(*_):
    os._exit(9)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "status"), [(dies_the_first_time, "done"), (always_dies, "failed")])
def test_a_worker_that_dies_costs_a_retry(tmp_path, slides, settings, monkeypatch, task, status):
    monkeypatch.setattr(cluster, "_run_alone", task)
    record = pipeline.run(slides[:1], tmp_path / "out", settings, runner=cluster.cluster_runner("local:1"))
    (result,) = record.results
    assert result.status == status
    if status == "failed":
        assert result.error["type"] == "ClusterError"
        assert "workers died on it" in result.error["why"]


@pytest.mark.parametrize("address", ["local:", "local:0", "local:x", "somewhere"])
def test_addresses_are_checked(address):
    with pytest.raises(ConfigError, match="local:4"):
        cluster.cluster_runner(address)


def test_a_scheduler_that_does_not_answer_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"tcp://127.0.0.1:1: no dask scheduler answers.*dask scheduler"):
        list(cluster.cluster_runner("tcp://127.0.0.1:1")([], lambda *_: None))
