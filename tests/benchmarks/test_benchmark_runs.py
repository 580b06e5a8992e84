"""The benchmarks themselves at tiny sizes: what they write, not how fast anything is."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ceilings, peers, regions, scaling, startup, throughput, viewer
from benchmarks.bundles import MEAN, STD, resnet18_bundle, resnet18_script, stub_bundle
from benchmarks.measure import Row
from benchmarks.peer_jobs import OURS, SCRIPTS, Candidate, Jobs, Setting, lay_patches
from benchmarks.slides import repeated_slide
from benchmarks.venvs import PEERS
from wsi_pipeline.geometry import Size
from wsi_pipeline.models.bundle import load_bundle


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def test_the_bundles_are_one_network_in_two_forms(work: Path) -> None:
    ours, script = load_bundle(resnet18_bundle(work)), load_bundle(resnet18_script(work))
    for bundle in (ours, script):
        card = bundle.card
        assert (card.patch_size_px, card.mpp, card.mean, card.std) == (50, 0.25, MEAN, STD)
    fields = torch.randn(3, 3, 50, 50)
    with torch.inference_mode():
        answers = [bundle.build()(fields) for bundle in (ours, script)]
    torch.testing.assert_close(*answers)
    assert answers[0].std() > 0.1, "answers differ from field to field"


def test_the_stub_answers_with_the_mean(work: Path) -> None:
    network = load_bundle(stub_bundle(work)).build()
    fields = torch.rand(4, 3, 50, 50)
    expected = fields.mean((1, 2, 3))
    torch.testing.assert_close(network(fields), torch.stack([expected, -expected], 1))


def test_ceilings(work: Path, tmp_path: Path) -> None:
    slide = repeated_slide(work, Size(1500, 1500))
    options = ["--slide", str(slide), "--repeat", "2", "--burst", "0.01", "--engine", "torch", "--batch", "4"]
    ceilings.main([*options, "--work", str(work), "--json", str(tmp_path / "f.json")])
    found = read(tmp_path / "f.json")
    assert found["benchmark"] == "ceilings"
    assert found["raw"].keys() == {"decode", "network torch"}
    assert all(len(rows) == 2 for rows in found["raw"].values())
    assert found["medians"]["decode"]["cells_per_s"]["median"] > 0


def test_ceilings_of_two_models_take_turns(work: Path, tmp_path: Path) -> None:
    slide, models = repeated_slide(work, Size(1500, 1500)), [resnet18_bundle(work), stub_bundle(work)]
    options = ["--slide", str(slide), "--repeat", "1", "--burst", "0.01", "--engine", "torch", "--batch", "4"]
    named = ["--model", *map(str, models), "--work", str(work), "--json", str(tmp_path / "f.json")]
    ceilings.main([*options, *named])
    assert read(tmp_path / "f.json")["raw"].keys() == {"decode", "random-resnet18 torch", "stub-script torch"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("benchmark", [ceilings, throughput, scaling, startup, peers])
def test_without_a_gpu_cuda_is_skipped_with_a_word(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    benchmark.main(["--device", "cuda", "--work", str(tmp_path), "--json", str(tmp_path / "f.json")])
    assert "skipped, there is no CUDA device" in capsys.readouterr().out
    assert "no CUDA" in read(tmp_path / "f.json")["skipped"]


def test_regions(tmp_path: Path) -> None:
    options = ["--cells", "2500", "--repeat", "1", "--all-cells", "--work", str(tmp_path)]
    regions.main([*options, "--json", str(tmp_path / "f.json")])
    found = read(tmp_path / "f.json")
    assert found["raw"].keys() == {"few", "many", "speckled"}
    assert found["medians"]["speckled"]["regions"]["median"] > found["medians"]["few"]["regions"]["median"]
    assert (tmp_path / "scratch" / "cells.geojson.gz").exists()


def test_the_maps_are_spread_over_0_to_1() -> None:
    made = regions.make_map(10_000, 2.0)
    assert made.shape == (100, 100)
    assert made.mean() == pytest.approx(0.5, abs=0.1)
    assert made.min() < 0.1
    assert made.max() > 0.9


def test_the_binding_ceiling_is_the_lower_one_and_of_two_bursts_the_faster() -> None:
    def at(*rates: float) -> list[Row]:
        return [{"cells_per_s": rate} for rate in rates]

    raw = {"decode": at(900, 50), "network": at(100, 100), "network again": at(120, 90)}
    assert throughput.binding_ceilings(raw) == at(120, 50)


def test_a_run_faster_than_its_ceiling_is_no_measurement() -> None:
    def found(ratio: float) -> dict[str, Row]:
        return {"ratio": {"median": 0.4}, "ratio_map": {"median": ratio}}

    assert throughput.unsound(found(0.99)) is None
    assert "1.22 times" in (throughput.unsound(found(1.22)) or "")


@pytest.mark.slow
def test_throughput(work: Path, tmp_path: Path) -> None:
    slide = repeated_slide(work, Size(1500, 1500))
    options = ["--slide", str(slide), "--model", str(stub_bundle(work)), "--engine", "torch", "--burst", "0.01"]
    throughput.main([*options, "--repeat", "1", "--work", str(work), "--json", str(tmp_path / "f.json")])
    found = read(tmp_path / "f.json")
    assert 0 < found["ratio"] <= found["ratios"]["ratio_steady"]["median"]
    run = found["raw"]["run"][0]
    assert run["seconds"] == pytest.approx(run["steady_s"] + run["start_s"])
    assert run["peak_mb"] > 100


@pytest.mark.slow
def test_scaling(work: Path, tmp_path: Path) -> None:
    options = ["--sizes", "1500", "--workers", "0", "--workers-size", "1000", "--repeat", "1"]
    scaling.main([*options, "--work", str(work), "--json", str(tmp_path / "f.json")])
    found = read(tmp_path / "f.json")
    small, large = found["by_workers"]["medians"]["0 workers"], found["by_size"]["medians"]["1500 px"]
    assert small["cells"]["median"] < large["cells"]["median"] < 30 * 30
    assert large["peak_mb"]["median"] > 100
    assert 0 < large["plan_s"]["median"] < large["seconds"]["median"]


@pytest.mark.slow
def test_startup(work: Path, tmp_path: Path) -> None:
    options = ["--engine", "torch", "--cells", "500", "--repeat", "1", "--work", str(work)]
    startup.main([*options, "--json", str(tmp_path / "f.json")])
    medians = read(tmp_path / "f.json")["medians"]
    first = "first cells, engine torch"
    assert medians.keys() == {"python", "import torch", "help", "run --help", first, f"{first}, network new"}


@pytest.mark.slow
def test_viewer(work: Path, tmp_path: Path) -> None:
    options = ["--cells", "500", "--levels", "1", "--repeat", "2", "--work", str(work)]
    viewer.main([*options, "--json", str(tmp_path / "f.json")])
    found = read(tmp_path / "f.json")
    assert found["benchmark"] == "viewer"
    assert found["options"]["levels"] == 1
    assert len(found["raw"]) == 2
    medians = found["medians"]
    assert medians.keys() == found["raw"][0].keys() >= {"opened_to_first_tile_ms", "made_tiles_per_s", "kept_p95_ms"}
    assert medians["made_tiles"]["median"] == medians["kept_tiles"]["median"] > 1
    assert all(row["min"] > 0 for row in medians.values())


def test_the_tiles_of_the_finest_levels() -> None:
    facts = {"max_level": 12, "tile_size": 254, "width": 1000, "height": 255}
    paths = viewer.tiles_of(facts, 2)
    assert len(paths) == 4 * 2 + 2
    assert (paths[0], paths[7], paths[-1]) == ("tiles/12/0_0.jpg", "tiles/12/3_1.jpg", "tiles/11/1_0.jpg")


@pytest.mark.slow
def test_one_run_of_our_own_feed_visits_the_cells_of_a_run(work: Path) -> None:
    slide = repeated_slide(work, Size(1500, 1500))
    corners, grid = lay_patches(slide, resnet18_bundle(work))
    assert grid == (30, 30)
    (work / "scratch").mkdir(exist_ok=True)
    np.save(work / "scratch" / "coords.npy", corners)
    setting = Setting(slide=slide, work=work, batch=64, threads=1, device="cpu", timeout=120)
    ours = Candidate(name=OURS, python=Path(sys.executable), script=SCRIPTS / "run_ours.py", workers=0)
    row, file = Jobs(setting=setting, grid=grid).run(ours, stub=True)
    with np.load(file) as found:
        assert {tuple(corner) for corner in found["coords"]} == {tuple(corner) for corner in corners}
        assert (np.abs(found["probability"] - 0.5) < 0.5).all()
    assert row["call_s"] < row["seconds"]


def test_every_peer_has_its_script() -> None:
    assert all((SCRIPTS / f"run_{name}.py").exists() for name in PEERS)


def test_our_default_is_compared_with_each_peers_fastest() -> None:
    def run(rate: float):
        def once() -> Row:
            return {"cells_per_s": rate, "call_cells_per_s": 2 * rate, "peak_mb": 1.0}

        return once

    runs = {f"{OURS}, a": run(100), f"{OURS}, b": run(300), "slow, 0": run(10), "slow, 2": run(20), "other, 0": run(50)}
    found = peers._take_turns("turns", runs, 2, "cells_per_s")
    assert found["fastest_of_peers"] == {"slow": "slow, 2", "other": "other, 0"}
    assert found["ours"] == f"{OURS}, a", "the default, although b is faster"
    assert found["ratio"] == 2
    assert found["times_as_fast"][f"{OURS}, b"]["slow"]["median"] == 15
