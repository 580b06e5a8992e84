"""The benchmark of adaptive maps on a small case: which square it takes, what it compares, what it writes."""

import json
import zipfile

import numpy as np
import pytest
from grids import make_grid
from helpers import write_redness_bundle
from patches import name, png

from benchmarks import adaptive
from benchmarks.squares import border_square
from wsi_pipeline.inference.adaptive import Rule


def test_the_square_lies_on_the_border_of_the_tumour():
    labels = np.zeros((9, 12), np.uint8)
    labels[:, 6:] = 1
    labels[:, 10:] = 255
    row, col = border_square(labels, 4)
    assert col in (3, 4)
    assert row <= 5
    assert border_square(np.zeros((9, 9), np.uint8), 4) is None
    assert border_square(labels, 10) is None


def test_comparison_in_small():
    full = np.array([[0.1, 0.4], [0.6, np.nan]], np.float32)
    other = np.array([[0.3, 0.4], [0.5, np.nan]], np.float32)
    found = adaptive.compare(full, other, 0.25)
    assert found == pytest.approx({"max": 0.2, "mean": 0.1, "dice": 2 * 2 / 5})


def test_seams_are_steps_over_the_borders_of_blocks():
    grid, full = make_grid(8, 16), np.zeros((8, 16), np.float32)
    other = full.copy()
    other[:, 8:] = 0.5
    found = adaptive.seam(full, other, grid)
    assert found == {"over_mean": 0.5, "over_max": 0.5, "within_mean": 0.0, "within_max": 0.0}


def test_every_rule_is_another():
    rules = adaptive.variants(Rule.suited(16, threshold=0.2, positive=1, classes=2))
    assert len(set(rules.values())) == len(rules)


def test_the_benchmark_writes_what_it_found_and_keeps_the_full_map(tmp_path, capsys):
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(data / "8863.zip", "w") as archive:
        for row in range(3):
            for col in range(4):
                shade = np.array([120 + 30 * col, 80, 150]) + rng.integers(-30, 31, (50, 50, 3))
                archive.writestr(f"8863/{name(col, row, int(col > 1))}", png(shade.astype(np.uint8)))
    bundle = write_redness_bundle(tmp_path / "redness", mpp=4.0)
    command = ["--data", str(data), "--side", "3", "--model", str(bundle), "--engine", "torch", "--work", str(work)]
    for _ in range(2):
        adaptive.main([*command, "--json", str(tmp_path / "f.json")])
    found = json.loads((tmp_path / "f.json").read_text())
    square = found["squares"]["8863"]
    assert square["cells"] > 1000
    shipped = square["rules"]["shipped"]
    assert shipped["equal"]
    assert shipped["saved"] > 1
    assert shipped["before"]["dice"] > 0.9
    assert found["worst"]["shipped"]["saved"] == shipped["saved"]
    assert found["worst"]["to 1"]["saved"] <= shipped["saved"] <= found["worst"]["every 8th"]["saved"]
    assert len(list((work / "adaptive").glob("*.npz"))) == 1
    assert "ANOTHER MAP" not in capsys.readouterr().out


def test_a_folder_without_such_cases_is_told(tmp_path):
    with pytest.raises(SystemExit, match="no case has a square"):
        adaptive.main(["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--engine", "torch"])
