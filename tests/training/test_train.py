"""The whole command on files: recipe and patches in, a bundle out that tells the truth about itself."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from painted import write_idc
from PIL import Image

from wsi_pipeline.cli import main
from wsi_pipeline.datasets import load_images, open_dataset, split_dataset
from wsi_pipeline.datasets.idc import LIMITS
from wsi_pipeline.errors import DatasetError, OutputError, TrainingError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.scoring.metrics import score
from wsi_pipeline.training import train as training
from wsi_pipeline.training.measuring import measure
from wsi_pipeline.training.module import Classifier
from wsi_pipeline.training.recipe import Recipe, load_recipe
from wsi_pipeline.training.train import train

QUICK = {
    "limits": ["Knows painted patches only."],
    "optimisation.epochs": 3,
    "optimisation.batch_size": 16,
    "optimisation.lr": 0.005,
}


def quick(name: str = "idc-cnn", **given) -> Recipe:
    return load_recipe(name, {**QUICK, **{key.replace("__", "."): value for key, value in given.items()}})


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_idc(tmp_path_factory.mktemp("patches"), cases=10)


@pytest.fixture(scope="module")
def bundle(patches, tmp_path_factory):
    return train(quick(), patches, tmp_path_factory.mktemp("out") / "cnn", device="cpu", command="a command")


def test_a_bundle_says_how_it_was_made(bundle, patches):
    card, training = bundle.card, bundle.card.training
    assert (card.architecture, card.positive_class, card.patch_size_px, card.mpp) == ("idc-cnn", "IDC", 50, 4.0)
    assert "research use only" in card.description
    assert card.limits == (*LIMITS, "Knows painted patches only.")
    assert training["command"] == "a command"
    assert training["start"] == "random weights"
    assert training["epochs"] == 3
    assert training["recipe"]["optimisation"]["lr"] == 0.005
    assert {"wsi_pipeline", "torch", "lightning"} <= set(training["software"])
    assert "cpu" in training["hardware"]
    assert card.description.endswith("plain CNN. 50 x 50 px at 4 µm/px. For research use only.")
    assert (training["data"].split(",")[0], card.licence) == (
        "Kaggle Breast Histopathology Images (IDC_regular_ps50_idx5)", "MIT",
    )  # fmt: skip
    assert sum(sum(part.values()) for part in training["patches"].values()) == 160
    assert load_recipe(bundle.path / "recipe.yaml") == quick()
    split = json.loads((bundle.path / "split.json").read_text())
    cases = [set(split[part]) for part in ("train", "validation", "test")]
    assert sum(len(part) for part in cases) == len(set.union(*cases)) == 10
    with (bundle.path / "history.csv").open() as text:
        assert [row["epoch"] for row in csv.DictReader(text)] == ["1", "2", "3"]
    assert str(patches) not in (bundle.path / "model.json").read_text()


def test_a_bundle_of_one_s_own_data_does_not_call_them_published(tmp_path):
    folder = write_idc(tmp_path / "own", cases=10)
    (folder / "dataset.json").write_text(json.dumps({"patch_size_px": 50, "mpp": 0.5}))
    card = train(quick(optimisation__epochs=1), folder, tmp_path / "b", device="cpu").card
    assert card.training["data"] == "patches of one's own, in the layout idc"
    assert (card.licence, card.limits) == ("", ("Knows painted patches only.",))
    assert "50 x 50 px at 0.5 µm/px." in card.description


def test_cases_of_other_names_are_one_s_own(tmp_path):
    folder = write_idc(tmp_path / "own", cases=2)
    assert open_dataset(folder).source
    for patch in list(folder.rglob("9000_*.png")):
        patch.rename(patch.with_name(patch.name.replace("9000", "slide-1")))
    assert not open_dataset(folder).source


def test_its_figures_are_those_of_the_weights_as_they_ship(bundle, patches):
    dataset = open_dataset(patches)
    split = json.loads((bundle.path / "split.json").read_text())
    predictor = Predictor(bundle=load_bundle(bundle.path), device="cpu")
    for part in ("validation", "test"):
        rows = np.flatnonzero(np.isin(dataset.groups, split[part]))
        probability = predictor.probabilities(load_images(dataset, rows))[:, 1]
        expected = score(dataset.labels[rows], probability, bundle.card.threshold.value)
        told = bundle.card.metrics[part]
        assert told["patches"] == len(rows)
        for key, value in expected.items():
            assert told[key] == pytest.approx(value, abs=2e-4), key
    assert bundle.card.metrics["test"]["auroc"] > 0.9
    assert any("too few to claim" in note for note in bundle.card.metrics["notes"])
    assert any("No second stage" in note for note in bundle.card.metrics["notes"])
    assert not bundle.card.metrics["leaky"]


def test_checkpoints_are_gone_and_logs_are_kept(bundle):
    folder = bundle.path.with_name("cnn.training")
    assert not list(folder.rglob("*.ckpt"))
    assert not list(folder.rglob("draft"))
    assert list(folder.rglob("metrics.csv"))


def test_a_bundle_is_replaced_only_when_told(bundle, patches):
    with pytest.raises(OutputError, match="holds a bundle already"):
        train(quick(), patches, bundle.path, device="cpu")
    before = bundle.path.stat().st_ino, (bundle.path / "model.safetensors").stat().st_mtime_ns
    again = train(quick(seed=1), patches, bundle.path, device="cpu", overwrite=True)
    assert (bundle.path / "model.safetensors").stat().st_mtime_ns != before[1]
    assert again.card.training["recipe"]["seed"] == 1


def test_a_replacement_that_was_interrupted_goes_on(tmp_path, patches, monkeypatch):
    """Until it is done the old bundle stays as it is, and then nothing of it is left."""
    out = tmp_path / "b"
    old = train(quick(), patches, out, device="cpu")
    (out / "folds.json").write_text("{}")

    def killed(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_pipeline.training.train.measure", killed)
    with pytest.raises(KeyboardInterrupt):
        train(quick(seed=1), patches, out, device="cpu", overwrite=True)
    assert load_bundle(out).digest == old.digest
    last = next((tmp_path / "b.training").rglob("last.ckpt")).stat().st_mtime_ns
    with pytest.raises(TrainingError, match=r"of another recipe .* --restart"):
        train(quick(seed=2), patches, out, device="cpu", overwrite=True)

    def watched(*args, **more):
        seen.append(next((tmp_path / "b.training").rglob("last.ckpt")).stat().st_mtime_ns)
        return measure(*args, **more)

    seen: list[int] = []
    monkeypatch.setattr("wsi_pipeline.training.train.measure", watched)
    new = train(quick(seed=1), patches, out, device="cpu", overwrite=True)
    assert seen == [last]
    assert new.digest != old.digest
    assert not (out / "folds.json").exists()


@pytest.mark.parametrize(("part", "cache"), [("test", "auto"), ("train", "none")])
def test_a_broken_patch_that_a_training_does_not_read_at_once_is_told_before_it(tmp_path, monkeypatch, part, cache):
    folder = write_idc(tmp_path / "patches", cases=10)
    dataset = open_dataset(folder)
    broken = folder / dataset.samples[split_dataset(dataset, seed=quick().split.seed).parts[part][0]].name
    broken.write_bytes(broken.read_bytes()[:200])
    monkeypatch.setattr("wsi_pipeline.training.train.fit", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(DatasetError, match=broken.name):
        train(quick(data__cache=cache), folder, tmp_path / "out", device="cpu")


def test_the_validation_part_s_figures_are_called_what_they_are(bundle, patches, tmp_path):
    note = "Calibration and threshold were chosen on the validation part: its figures flatter."
    assert note in bundle.card.metrics["notes"]
    recipe = quick(split__test_fraction=0, optimisation__keep="best", optimisation__epochs=1)
    only = train(recipe, patches, tmp_path / "only", device="cpu").card
    assert any(note.startswith("Calibration, threshold and the epoch that is kept") for note in only.metrics["notes"])
    assert any("the only ones there are, flatter" in note for note in only.metrics["notes"])


def test_two_trainings_of_one_bundle_keep_out_of_each_other_s_way(tmp_path, patches):
    with folder_lock(tmp_path / "b.training"), pytest.raises(OutputError, match="another run"):
        train(quick(), patches, tmp_path / "b", device="cpu", overwrite=True)


def test_the_leak_is_shown_beside_the_honest_figures(tmp_path, patches, caplog):
    recipe = quick(
        "idc-residual-7ch", data__subset={"IDC": 60, "non-IDC": 70}, optimisation__epochs=1, optimisation__lr=0.001
    )
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        made = train(recipe, patches, tmp_path / "seven", device="cpu")
    card = made.card
    assert card.training["split"]["kind"] == "case"
    assert card.mean == (0, 0, 0)
    assert not card.metrics["leaky"]
    leaky = card.metrics["leaky_comparison"]
    assert leaky["leaky"]
    assert any("LEAKY" in note for note in leaky["notes"])
    assert any(text.startswith("LEAKY split: random patches") for text in caplog.messages)
    assert sum(text.startswith("LEAKY split, epoch 1 of 1") for text in caplog.messages) == 1
    assert sum(sum(part.values()) for part in card.training["patches"].values()) == 130
    line = caplog.messages[-1]
    assert f"test accuracy {card.metrics['test']['accuracy']:.4f} on unseen cases" in line
    assert f"{leaky['test']['accuracy']:.4f} on the LEAKY split" in line


def test_a_leaky_split_is_called_so_everywhere(tmp_path, patches, caplog):
    recipe = quick(split__kind="leaky", optimisation__epochs=1)
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        made = train(recipe, patches, tmp_path / "leaky", device="cpu")
    assert made.card.metrics["leaky"]
    assert "LEAKY" in made.card.description
    assert "LEAKY" in caplog.messages[0]
    assert any(text.startswith("LEAKY split, epoch 1 of 1") for text in caplog.messages)
    assert "LEAKY test" in caplog.messages[-1]
    assert json.loads((made.path / "split.json").read_text())["leaky"]


def test_without_validation_and_test_parts_it_trains_on_everything(tmp_path, patches):
    recipe = quick(split__validation_fraction=0, split__test_fraction=0, optimisation__epochs=1)
    card = train(recipe, patches, tmp_path / "all", device="cpu").card
    assert (card.temperature, card.threshold.value) == (1.0, 0.5)
    assert "test" not in card.metrics
    assert card.training["patches"]["train"] == {"non-IDC": 80, "IDC": 80}


def test_an_interrupted_training_goes_on_to_the_same_bundle(tmp_path, patches, monkeypatch):
    whole = train(quick(), patches, tmp_path / "whole", device="cpu")
    original = Classifier.training_step

    def step(self, batch, number):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return original(self, batch, number)

    monkeypatch.setattr(Classifier, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(quick(), patches, tmp_path / "torn", device="cpu")
    assert not (tmp_path / "torn").exists()
    monkeypatch.setattr(Classifier, "training_step", original)
    with pytest.raises(TrainingError, match="of another recipe"):
        train(quick(optimisation__lr=0.1), patches, tmp_path / "torn", device="cpu")
    torn = train(quick(), patches, tmp_path / "torn", device="cpu")
    assert torn.card.weights == whole.card.weights
    assert torn.card.metrics == whole.card.metrics


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
def test_a_killed_training_goes_on_with_the_same_command(tmp_path, patches):
    command = [
        sys.executable, "-m", "wsi_pipeline.cli", "train", "idc-cnn", "--data", str(patches), "--out",
        str(tmp_path / "killed"), "--device", "cpu", "--set", "optimisation.epochs=6",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    last, deadline = tmp_path / "killed.training" / "last.ckpt", time.monotonic() + 200
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert last.exists()
    assert not (tmp_path / "killed").exists()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "epoch 6 of 6" in done.stdout
    assert "epoch 1 of 6" not in done.stdout
    assert done.stderr == ""
    assert len(load_bundle(tmp_path / "killed").card.training["recipe"]) > 3
    assert {path.name for path in tmp_path.iterdir()} == {"killed", "killed.training"}


def test_bad_data_is_refused_by_its_name(tmp_path):
    folder = write_idc(tmp_path / "bad")
    name = "9003_idx5_x1_y1_class1.png"
    (folder / "9003" / "1" / name).write_bytes(b"\x89PNG\r\n\x1a\n and then nonsense")
    with pytest.raises(DatasetError, match=name):
        train(quick(), folder, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    for path in folder.rglob("*class1.png"):
        path.unlink()
    with pytest.raises(DatasetError, match="one class only"):
        train(quick(), folder, tmp_path / "out", device="cpu")


def test_the_command_prints_data_epochs_figures_and_the_bundle(tmp_path, patches, capsys):
    out = tmp_path / "b"
    options = ["--set", "optimisation.epochs=2", "--limit", "0.4", "--seed", "3", "--device", "cpu"]
    assert main(["train", "idc-cnn", "--data", str(patches), "--out", str(out), *options]) == 0
    printed = capsys.readouterr()
    for expected in ("split by case", "epoch 2 of 2", "AUROC", "test, ", "research use only", f"Bundle: {out}"):
        assert expected in printed.out
    assert printed.err == ""
    card = load_bundle(out).card
    assert card.training["command"] == (
        "wsi-pipeline train idc-cnn --data DATA --out b --set optimisation.epochs=2 --limit 0.4 --seed 3"
    )
    assert any("trial" in note for note in card.metrics["notes"])


def test_nothing_of_the_test_part_trains_or_validates(tmp_path, patches, monkeypatch):
    used, original = {}, training.fit

    def fit(network, dataset, train, validation, *args, **more):
        used.update(train=set(dataset.groups[train]), validation=set(dataset.groups[validation]))
        return original(network, dataset, train, validation, *args, **more)

    monkeypatch.setattr(training, "fit", fit)
    bundle = train(quick(optimisation__epochs=1), patches, tmp_path / "b", device="cpu")
    split = json.loads((bundle.path / "split.json").read_text())
    assert split["test"]
    assert used == {part: set(split[part]) for part in ("train", "validation")}


@pytest.mark.parametrize("out", [".", "9001/bundle"])
def test_no_bundle_is_written_among_the_patches(patches, out):
    before = sorted(patches.rglob("*"))
    with pytest.raises(OutputError, match="lies in the data"):
        train(quick(), patches, patches / out, device="cpu")
    assert sorted(patches.rglob("*")) == before


def test_a_published_split_may_be_given_as_a_file(tmp_path, patches):
    rows = [f"{9000 + n},{'train' if n < 6 else 'validation' if n < 8 else 'test'}" for n in range(10)]
    (tmp_path / "split.txt").write_text("\n".join(["case,split", *rows]))
    arguments = ["--set", "optimisation.epochs=1", "--device", "cpu", "--split", str(tmp_path / "split.txt")]
    assert main(["train", "idc-cnn", "--data", str(patches), "--out", str(tmp_path / "b"), *arguments]) == 0
    split = json.loads((tmp_path / "b" / "split.json").read_text())
    assert (split["kind"], split["test"]) == ("published", ["9008", "9009"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "idc-bset", "--data", "."], "is no recipe"),
        (["train", "idc-cnn", "--data", ".", "--set", "optimisation.epoch=3"], "Did you mean 'optimisation.epochs'?"),
        (["train", "idc-cnn", "--data", ".", "--split", "random"], "random is neither a kind of split nor a file"),
        (["train", "idc-cnn", "--data", ".", "--set", "data.subset=0.01"], "how many patches of it are drawn"),
        (["train", "idc-cnn", "--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_told(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--out", "b"]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def breakhis(folder):
    """Two classes of four patients each, small images (which are continued in white)."""
    rng = np.random.default_rng(0)
    for kind, name, red in (("B", "A", 0), ("M", "DC", 80)):
        for patient in range(4):
            for n in range(2):
                pixels = rng.integers(60, 140, (46, 70, 3), dtype=np.uint8)
                pixels[..., 0] += np.uint8(red)
                for factor in (40, 100):
                    file = folder / f"SOB_{kind}_{name}-14-{patient}{red}-{factor}-{n:03}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(file)
    return folder


@pytest.mark.parametrize("magnifications", [[], ["40X"]])
def test_images_of_several_magnifications_make_a_bundle_without_a_resolution(tmp_path, magnifications):
    recipe = load_recipe(
        "idc-cnn",
        {
            "data.layout": "breakhis", "data.magnifications": magnifications, "optimisation.epochs": 1,
            "optimisation.batch_size": 8, "model.input_px": 24, "data.workers": 0, "augmentation.offsets": 0,
            "split.validation_fraction": 0.25, "split.test_fraction": 0.25,
        },
    )  # fmt: skip
    card = train(recipe, breakhis(tmp_path / "data"), tmp_path / "b", device="cpu").card
    assert card.input_px == 24
    assert card.patch_size_px == 460
    assert (card.mpp is None) == (not magnifications)
    assert len(card.class_names) == 8
    assert len(card.bias) == 8
