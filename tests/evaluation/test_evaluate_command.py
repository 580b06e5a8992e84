"""`wsi-pipeline evaluate`, end to end, on patches in the Kaggle layout and a model that numpy can compute."""

import json
import os
from io import BytesIO

import numpy as np
import pytest
from helpers import redness, write_redness_bundle
from patches import name, png, write_folder, write_zip
from PIL import Image
from sklearn import metrics as sk

from wsi_pipeline.cli import main
from wsi_pipeline.datasets import open_dataset
from wsi_pipeline.evaluation import Options, evaluate
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.mosaic import mosaics

CASES = ("8863", "9022", "9135")


def files() -> dict[str, bytes]:
    """Three cases of 4 x 3 patches, the last column 31 px wide; IDC is redder."""
    rng, found = np.random.default_rng(0), {}
    for case in CASES:
        for n in range(12):
            col, row = n % 4, n // 4
            label = int(rng.random() < 0.4) if n > 1 else n
            red = int(np.clip(rng.normal(115 + 30 * label, 35), 0, 255))
            pixels = rng.integers(90, 170, (50, 31 if col == 3 else 50, 3), dtype=np.uint8)
            pixels[..., 0] = red
            found[name(col, row, label, case)] = png(pixels)
    return found


def expected(content: dict[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities by numpy; what is beyond a patch is white."""
    labels, p = [], []
    for path, data in content.items():
        field = np.full((50, 50, 3), 255, np.uint8)
        pixels = np.asarray(Image.open(BytesIO(data)))
        field[: pixels.shape[0], : pixels.shape[1]] = pixels
        labels.append(int(path.split("/")[1]))
        p.append(redness(field))
    return np.array(labels), np.array(p)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_redness_bundle(tmp_path_factory.mktemp("model") / "red", mpp=4.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "patches", files())


def command(*words: object) -> int:
    return main(["evaluate", "--device", "cpu", "--draws", "50", *map(str, words)])


def test_figures_are_those_of_numpy_and_scikit_learn(bundle, data, tmp_path, capsys):
    out = tmp_path / "new" / "figures.json"
    assert command("--model", bundle, "--data", data, "--json", out, "--whole-slide") == 0
    values = json.loads(out.read_text())
    labels, p = expected(files())
    figures = {
        "auroc": sk.roc_auc_score(labels, p),
        "average_precision": sk.average_precision_score(labels, p),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, p >= 0.5),
        "f1": sk.f1_score(labels, p >= 0.5),
        "brier": sk.brier_score_loss(labels, p),
        "positive_fraction": labels.mean(),
    }
    assert {key: values[key] for key in figures} == pytest.approx(figures, abs=1e-5)
    assert (values["patches"], values["cases"], set(values["per_case"])) == (36, 3, set(CASES))
    assert values["whole_slide"]["pooled"]["dice"] == pytest.approx(values["f1"], abs=1e-5)
    printed = capsys.readouterr().out
    assert f"{values['auroc']:.3f}" in printed
    assert "For research use only" in printed
    assert list(out.parent.iterdir()) == [out]


def test_a_zip_with_its_second_copy_gives_the_same(bundle, data, tmp_path):
    content = files()
    twice = content | {f"IDC_regular_ps50_idx5/{path}": pixels for path, pixels in content.items()}
    archive = write_zip(tmp_path / "patches.zip", twice)
    for source, out in ((data, "a.json"), (archive, "b.json")):
        assert command("--model", bundle, "--data", source, "--json", tmp_path / out) == 0
    first, second = (json.loads((tmp_path / out).read_text()) for out in ("a.json", "b.json"))
    for different in ("data", "warnings"):
        first.pop(different)
        second.pop(different)
    assert first == second


def test_nothing_is_written_unasked(bundle, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("--model", bundle, "--data", data) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_written(bundle, data, tmp_path):
    out = tmp_path / "report.html"
    assert command("--model", bundle, "--data", data, "--report", out, "--whole-slide") == 0
    text = out.read_text(encoding="utf-8")
    assert "Labels next to maps" in text
    assert "8863" in text


def test_chosen_cases(bundle, data, tmp_path, capsys):
    (tmp_path / "cases.txt").write_text("8863\n# a remark\n9135\n")
    out = tmp_path / "figures.json"
    assert command("--model", bundle, "--data", data, "--cases", tmp_path / "cases.txt", "--json", out) == 0
    assert set(json.loads(out.read_text())["per_case"]) == {"8863", "9135"}
    (tmp_path / "cases.txt").write_text("\n")
    assert command("--model", bundle, "--data", data, "--cases", tmp_path / "cases.txt") == 2
    assert "names no case" in capsys.readouterr().err


def test_data_that_do_not_fit_are_refused_with_both_numbers(bundle, data, tmp_path, capsys):
    other = write_redness_bundle(tmp_path / "fine", mpp=0.25)
    assert command("--model", other, "--data", data) == 2
    assert "4 µm/px, the model fine sees 0.25 µm/px" in capsys.readouterr().err
    large = write_redness_bundle(tmp_path / "large", size_px=96, mpp=4.0)
    assert command("--model", large, "--data", data) == 2
    assert "50 x 50 px, the model large sees 96 x 96 px" in capsys.readouterr().err


def test_patches_that_cannot_be_read_cost_themselves_alone(bundle, tmp_path, capsys):
    content = files()
    first, second, *_ = content
    torn = content[second]
    data = write_folder(tmp_path / "data", content | {first: b"", second: torn[: len(torn) // 2]})
    assert command("--model", bundle, "--data", data, "--json", tmp_path / "figures.json") == 0
    values = json.loads((tmp_path / "figures.json").read_text())
    assert values["patches"] == 34
    assert {bad["name"] for bad in values["unreadable"]} == {first, second}
    assert "2 of 36 patches cannot be read" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_file_that_cannot_be_opened_costs_itself_alone(bundle, tmp_path):
    data = write_folder(tmp_path / "data", files())
    gone = next(data.rglob("*.png"))
    gone.unlink()
    gone.symlink_to(tmp_path / "nowhere")
    figures, report = tmp_path / "figures.json", tmp_path / "r.html"
    assert command("--model", bundle, "--data", data, "--json", figures, "--report", report) == 0
    values = json.loads(figures.read_text())
    assert (values["patches"], [bad["name"] for bad in values["unreadable"]]) == (35, [str(gone.relative_to(data))])
    assert report.exists()


def test_one_class_only_gives_what_can_be_given(bundle, tmp_path):
    content = {path: pixels for path, pixels in files().items() if "/1/" in path}
    data, out = write_folder(tmp_path / "data", content), tmp_path / "figures.json"
    assert command("--model", bundle, "--data", data, "--json", out) == 0
    values = json.loads(out.read_text())
    assert values["auroc"] is None
    assert 0 < values["recall"] < 1


def test_wrong_numbers_are_wrong_usage(bundle, data, capsys):
    assert command("--model", bundle, "--data", data, "--threshold", "1.5") == 2
    assert command("--model", bundle, "--data", data, "--batch-size", "0") == 2
    assert "less than 1" in capsys.readouterr().err


def test_output_of_another_kind_than_its_name_says_is_wrong_usage(bundle, data, tmp_path, capsys):
    for option, file in (("--report", "r.pdf"), ("--json", "same"), ("--json", "r.html")):
        assert command("--model", bundle, "--data", data, option, tmp_path / file) == 2
        assert f"{file} does not end in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_the_same_patches_gives_the_same_map(bundle, data, tmp_path):
    from wsi_pipeline import pipeline
    from wsi_pipeline.config import load_settings
    from wsi_pipeline.heatmap import Heatmap

    settings = load_settings(None, {"model": str(bundle), "cell": "native", "device": "cpu", "workers": 0})
    pipeline.run([str(data)], tmp_path / "run", settings)
    found = evaluate(load_bundle(bundle), open_dataset(data), Options(device="cpu", draws=0))
    patches = found.patches
    for mosaic in mosaics(patches.dataset.positions, patches.cases, 50):
        expected = mosaic.lay_out(patches.shipped[mosaic.rows, 1], empty=np.nan)
        (folder,) = tmp_path.glob(f"run/*{patches.cases[mosaic.rows[0]]}*/heatmap.zarr")
        probability = Heatmap.open(folder).probability("IDC")
        assert probability.shape == expected.shape
        assert np.array_equal(np.isnan(probability), np.isnan(expected))
        assert probability == pytest.approx(expected, abs=1e-6, nan_ok=True)
