"""A teacher's word in the place of labels: blended as asked, learnt, and from no patch that is to be unseen."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers import printed_by, redness, write_bundle_of, write_redness_bundle
from painted import painted, write_idc
from torch import nn

from wsi_pipeline.errors import InferenceError, TrainingError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import load_bundle, save_bundle
from wsi_pipeline.models.card import Weights
from wsi_pipeline.training import train as training
from wsi_pipeline.training.cross_validate import cross_validate
from wsi_pipeline.training.fit import fit
from wsi_pipeline.training.module import Classifier
from wsi_pipeline.training.recipe import Recipe, load_recipe
from wsi_pipeline.training.teacher import Teacher
from wsi_pipeline.training.train import train

SMALL = {"architecture": "idc-cnn", "pretrained": "no"}
TAUGHT = {
    "optimisation.epochs": 3,
    "optimisation.batch_size": 16,
    "optimisation.lr": 0.005,
    "distillation": {"model": SMALL, "optimisation": {"epochs": 2, "batch_size": 16, "lr": 0.005}},
}


def pale_patches(count: int) -> np.ndarray:
    """uint8 [count, 16, 16, 3] of various redness."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 100, (count, 16, 16, 3), dtype=np.uint8)
    patches[..., 0] += np.linspace(0, 150, count).astype(np.uint8)[:, None, None]
    return patches


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_its_probabilities_take_their_part_of_each_label(tmp_path, weight):
    teacher = Teacher(load_bundle(write_redness_bundle(tmp_path, size_px=16, mpp=4.0)), weight)
    patches = pale_patches(6)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]] * 2)
    given = torch.from_numpy(patches).permute(0, 3, 1, 2).float() + 0.3  # as augmentation leaves them: no whole numbers
    blended = teacher.blend(given, labels)
    said = torch.tensor([[1 - redness(patch), redness(patch)] for patch in patches], dtype=torch.float32)
    torch.testing.assert_close(blended, labels * (1 - weight) + said * weight, atol=1e-5, rtol=0)
    assert said[:, 1].max() - said[:, 1].min() > 0.3
    torch.testing.assert_close(blended.sum(1), torch.ones(6))
    assert deepcopy({"teacher": teacher})["teacher"] is teacher


class Contrary(nn.Module):
    """Says that what is not red is of class 1, and is sure of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = 60.0 * (0.56 - x[:, 0].mean(dim=(1, 2)))
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def test_a_network_believes_its_teacher_as_far_as_it_is_told_to(tmp_path):
    """A teacher that says the opposite of all labels: whom the network follows depends on the weight alone."""
    wrong = load_bundle(write_bundle_of(tmp_path / "wrong", Contrary(), size_px=16, mpp=4.0))
    recipe = Recipe.model_validate({"optimisation": {"epochs": 6, "batch_size": 16, "lr": 0.02, "ema_decay": 0.9}})
    scores = {}
    for weight in (0.1, 0.9):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
        )
        parts = np.arange(96), np.arange(96, 128)
        folder, teacher = tmp_path / str(weight), Teacher(wrong, weight)
        fitted = fit(network, painted(), *parts, recipe, folder=folder, device="cpu", teacher=teacher)
        scores[weight] = fitted.history[-1]["validation_auroc"]
    assert scores[0.1] > 0.99
    assert scores[0.9] < 0.01


def test_it_is_shown_what_the_network_is_shown(tmp_path):
    """Augmented and mixed alike (Beyer et al., CVPR 2022): of other patches its word would be wrong."""
    told, seen = [], []

    class Listening(Teacher):
        def blend(self, patches, targets, *, mixed=False):
            told.append(patches.clone())
            return super().blend(patches, targets, mixed=mixed)

    def look(network, inputs):
        if network.training:
            seen.append(inputs[0].detach().clone())

    bundle, dataset = load_bundle(write_redness_bundle(tmp_path / "teacher", size_px=16, mpp=4.0)), painted()
    network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    network.register_forward_pre_hook(look)
    recipe = Recipe.model_validate(
        {
            "precision": "32",
            "model": {"normalisation": "none"},
            "optimisation": {"epochs": 1, "batch_size": 16, "mixup": 0.4},
            "augmentation": {"contrast": 0.3},
        }
    )
    given = {"folder": tmp_path, "device": "cpu", "teacher": Listening(bundle, 0.5)}
    fit(network, dataset, np.arange(96), np.arange(96, 128), recipe, **given)
    assert len(told) == len(seen) == 6
    for patches, inputs in zip(told, seen, strict=True):
        torch.testing.assert_close(patches / 255, inputs)
    shown = torch.cat(told).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    raw = {dataset.read(n).tobytes() for n in range(96)}
    assert not any(patch.tobytes() in raw for patch in shown)


@pytest.mark.parametrize(("trained_in", "precision"), [("32", "fp32"), ("bf16", "bf16")])
def test_it_computes_in_what_the_training_computes_in(tmp_path, monkeypatch, trained_in, precision):
    bundle, made = load_bundle(write_redness_bundle(tmp_path / "teacher", size_px=16, mpp=4.0)), []

    def noted(**given):
        made.append(given["precision"])
        return Predictor(**given)

    monkeypatch.setattr("wsi_pipeline.training.teacher.Predictor", noted)
    recipe = Recipe.model_validate({"precision": trained_in, "optimisation": {"epochs": 1, "batch_size": 16}})
    network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    parts = np.arange(32), np.arange(96, 128)
    fit(network, painted(), *parts, recipe, folder=tmp_path, device="cpu", teacher=Teacher(bundle, 0.5))
    assert made == [precision]


def test_a_teacher_s_word_is_no_label_to_be_accurate_in(tmp_path):
    bundle = load_bundle(write_redness_bundle(tmp_path / "teacher", size_px=16, mpp=4.0))
    recipe = Recipe.model_validate({"precision": "32", "optimisation": {"epochs": 1, "batch_size": 16}})
    network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    given = {"folder": tmp_path, "device": "cpu", "teacher": Teacher(bundle, 0.5)}
    (row,) = fit(network, painted(), np.arange(32), np.arange(96, 128), recipe, **given).history
    assert np.isnan(row["train_accuracy"])
    assert np.isfinite(row["validation_accuracy"])


def test_a_teacher_that_fails_is_told_in_the_words_of_a_recipe(tmp_path, monkeypatch):
    def full(self, fields):
        raise InferenceError("network teacher", "the device's memory is full", "Try --batch-size 8.")

    monkeypatch.setattr(Predictor, "logits", full)
    bundle = load_bundle(write_redness_bundle(tmp_path / "teacher", size_px=16, mpp=4.0))
    recipe = Recipe.model_validate({"precision": "32", "optimisation": {"epochs": 1, "batch_size": 16}})
    network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    given = {"folder": tmp_path, "device": "cpu", "teacher": Teacher(bundle, 0.5)}
    with pytest.raises(TrainingError, match=r"memory is full\. Lower optimisation\.batch_size") as told:
        fit(network, painted(), np.arange(32), np.arange(96, 128), recipe, **given)
    assert "--batch-size" not in str(told.value)


def test_to_hear_a_teacher_leaves_chance_alone(tmp_path):
    """Building some networks draws random numbers, and the pupil's dropout must not depend on when that happens."""
    card = load_bundle(write_redness_bundle(tmp_path / "any")).card
    own = {"architecture": "idc-residual-7ch", "weights": Weights(sha256="0" * 64)}
    bundle = save_bundle(tmp_path / "seven", build_network("idc-residual-7ch", 2), card.model_copy(update=own))
    teacher = Teacher(bundle, 0.5)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    teacher.blend(torch.zeros(2, 3, 50, 50), torch.eye(2))
    torch.testing.assert_close(torch.rand(4), expected)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_idc(tmp_path_factory.mktemp("patches"), cases=10)


@pytest.fixture(scope="module")
def taught(patches, tmp_path_factory):
    return train(load_recipe("idc-cnn", TAUGHT), patches, tmp_path_factory.mktemp("out") / "taught", device="cpu")


def test_the_bundle_tells_of_the_teacher_and_holds_the_pupil(taught, patches, tmp_path):
    recipe = load_recipe(taught.path / "recipe.yaml")
    assert recipe == load_recipe("idc-cnn", TAUGHT)
    assert taught.card.training["recipe"]["distillation"]["model"]["architecture"] == "idc-cnn"
    assert taught.card.training["start"] == "random weights; its teacher: random weights"
    assert taught.card.training["epochs"] == 3
    assert taught.card.metrics["test"]["auroc"] > 0.95
    left = taught.path.with_name("taught.training")
    assert {path.name for path in left.iterdir() if path.is_dir()} == {"logs", "teacher"}
    assert [path.name for path in (left / "teacher").iterdir()] == ["logs"]
    alone = train(load_recipe("idc-cnn", {**TAUGHT, "distillation": None}), patches, tmp_path / "alone", device="cpu")
    assert alone.card.weights != taught.card.weights


@pytest.mark.parametrize("step", [3, 22])
def test_interrupted_in_either_training_it_goes_on_to_the_same_bundle(taught, patches, tmp_path, monkeypatch, step):
    """Two epochs of the teacher and three of the pupil, of 7 batches each."""
    steps, original = [], Classifier.training_step

    def counted(self, batch, number):
        steps.append(number)
        if len(steps) == step:
            raise KeyboardInterrupt
        return original(self, batch, number)

    monkeypatch.setattr(Classifier, "training_step", counted)
    with pytest.raises(KeyboardInterrupt):
        train(load_recipe("idc-cnn", TAUGHT), patches, tmp_path / "torn", device="cpu")
    assert not (tmp_path / "torn").exists()
    torn = train(load_recipe("idc-cnn", TAUGHT), patches, tmp_path / "torn", device="cpu")
    assert torn.card.weights == taught.card.weights
    assert torn.card.metrics == taught.card.metrics


def test_in_cross_validation_a_teacher_sees_no_case_that_its_pupil_must_not(tmp_path, monkeypatch):
    dataset, seen = painted(cases=6), {}

    def watch(network, of, train_rows, validation, recipe, *, folder, **more):
        seen[str(folder.relative_to(tmp_path / "cv.training"))] = set(of.groups[train_rows])
        return fit(network, of, train_rows, validation, recipe, folder=folder, **more)

    monkeypatch.setattr(training, "fit", watch)
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: dataset)
    cross_validate(load_recipe("idc-cnn", TAUGHT), "painted", tmp_path / "cv", count=2, device="cpu")
    assert set(seen) == {f"{part}{teacher}" for part in ("fold-0", "fold-1", "all") for teacher in ("", "/teacher")}
    assert all(cases == seen[part.removesuffix("/teacher")] for part, cases in seen.items())
    assert seen["fold-0"] & seen["fold-1"] == set()
    assert seen["all"] == seen["fold-0"] | seen["fold-1"]


TWO_PROCESSES = """
import sys
from functools import partial
import numpy as np
from pathlib import Path
from painted import painted
from wsi_pipeline.training import train
from wsi_pipeline.training.recipe import Recipe

if __name__ == "__main__":
    train.fit = partial(train.fit, devices=2)
    model = {"architecture": "idc-cnn", "pretrained": "no"}
    quick = {"epochs": 2, "batch_size": 16, "lr": 0.005, "ema_decay": 0.9}
    recipe = Recipe.model_validate({
        "model": model, "optimisation": quick, "distillation": {"model": model, "optimisation": quick},
    })
    parts = np.arange(96), np.arange(96, 128)
    _, fitted = train.build_and_fit(painted(), *parts, recipe, folder=Path(sys.argv[1]), device="cpu")
    if fitted.history:
        print(len(fitted.history), fitted.history[-1]["validation_auroc"])
"""


@pytest.mark.slow
def test_two_processes_wait_for_their_teacher(tmp_path):
    epochs, auroc = printed_by(TWO_PROCESSES, tmp_path, tmp_path / "training").split()
    assert (epochs, float(auroc) > 0.9) == ("2", True)
    assert (tmp_path / "training" / "teacher" / "draft" / "model.safetensors").exists()
