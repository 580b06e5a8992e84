"""The trainer on patches it can learn in seconds: red ones are IDC."""

import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sk

from wsi_pipeline.errors import DatasetError, SlideNotFoundError
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.training.fit import Recipe, augment, predict_logits
from wsi_pipeline.training.metrics import (
    best_threshold,
    bootstrap_over_cases,
    expected_calibration_error,
    fit_calibration,
    score,
)
from wsi_pipeline.training.patches import load_patches
from wsi_pipeline.training.splits import Split, read_published, split_cases
from wsi_pipeline.training.train_idc import Parts, publish, train_idc


def png(label: int, rng: np.random.Generator, side: tuple[int, int] = (50, 50)) -> bytes:
    pixels = rng.integers(100, 156, (*side, 3), dtype=np.uint8)
    pixels[..., 0] += np.uint8(80 * label)
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def write_cases(path, cases, per_case=24, labels=(0, 1)):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for case in cases:
            for n in range(per_case):
                label = labels[n % len(labels)]
                name = f"{case}/{label}/{case}_idx5_x{1 + 50 * n}_y1_class{label}.png"
                archive.writestr(name, png(label, rng))
    return path


def test_training_ends_in_a_bundle_that_has_learnt(tmp_path):
    (tmp_path / "data").mkdir()
    write_cases(tmp_path / "data" / "a.zip", [f"a{n}" for n in range(5)])
    write_cases(tmp_path / "data" / "b.zip", [f"b{n}" for n in range(5)])
    (tmp_path / "data" / "split_published.csv").write_text("case,split\na0,validation\na1,train\nb0,validation\n")
    parts = Parts.load(tmp_path / "data", seed=0)
    network = train_idc(parts, Recipe(epochs=2, batch_size=16, learning_rate=1e-3, ema_decay=0.5))
    bundle = publish(network, parts, tmp_path / "red", training={"command": "test"})
    card = load_bundle(tmp_path / "red").card
    assert card == bundle.card
    assert card.metrics["test"]["auroc"] > 0.9
    split = card.training["split_by_case"]
    assert set(split["validation"]) == {"a0", "b0"}
    assert len(split["test"]) == 2
    assert len(split["train"]) == 6
    # The card tells of the weights as they ship, in half precision.
    test = load_patches([tmp_path / "data"]).of(split["test"])
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    logits = torch.from_numpy(predict_logits(bundle.build(), test.images, mean, std) / card.temperature)
    again = score(test.labels, logits.softmax(1)[:, 1].numpy(), card.threshold.value)
    assert {key: round(value, 4) for key, value in again.items()}.items() <= card.metrics["test"].items()
    low, high = card.metrics["test"]["interval_95"]["accuracy"]
    assert low <= card.metrics["test"]["accuracy"] <= high


def test_patches_come_once_padded_and_with_their_case(tmp_path):
    rng = np.random.default_rng(0)
    for name, side in (("7_idx5_x1_y1_class0", (50, 50)), ("7_idx5_x51_y1_class1", (50, 1))):
        for nested in ("", "again"):
            folder = tmp_path / nested / "7" / name[-1]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(png(int(name[-1]), rng, side))
    patches = load_patches([tmp_path])
    assert patches.images.shape == (2, 50, 50, 3)
    assert patches.labels.tolist() == [0, 1]
    assert set(patches.cases) == {"7"}
    assert (patches.images[1][:, 1:] == 255).all()
    assert (patches.images[1][:, :1] < 255).all()


def test_bad_data_is_refused_with_its_name(tmp_path):
    with pytest.raises(SlideNotFoundError, match="nowhere"):
        load_patches([tmp_path / "nowhere"])
    with pytest.raises(DatasetError, match="holds no IDC patch"):
        load_patches([tmp_path])
    with pytest.raises(DatasetError, match="class 0 only"):
        load_patches([write_cases(tmp_path / "one.zip", ["1"], labels=(0,))])
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("1/0/1_idx5_x1_y1_class0.png", b"no picture")
        archive.writestr("1/1/1_idx5_x51_y1_class1.png", png(1, np.random.default_rng(0)))
    with pytest.raises(DatasetError, match=r"bad.zip: 1/0/1_idx5_x1_y1_class0.png: is no readable image"):
        load_patches([tmp_path / "bad.zip"])
    (tmp_path / "torn.zip").write_bytes(b"PK nonsense")
    with pytest.raises(DatasetError, match=r"torn.zip: is no readable zip"):
        load_patches([tmp_path / "torn.zip"])


@given(st.sets(st.text("0123456789", min_size=1, max_size=5), min_size=12, max_size=60), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_splits_share_no_case_and_lose_none(cases, seed):
    split = split_cases(cases, seed=seed)
    assert set(split.train) | set(split.validation) | set(split.test) == cases
    assert len(split.train) + len(split.validation) + len(split.test) == len(cases)
    assert split == split_cases(sorted(cases, reverse=True), seed=seed)


def test_a_split_keeps_published_cases_and_fractions_of_each_stratum():
    strata = {f"w{n}": "whole" for n in range(10)} | {f"s{n}": "sample" for n in range(40)}
    split = split_cases(strata, validation=["w0", "s0", "elsewhere"], strata=strata, test_fraction=0.2)
    assert split.validation == ("s0", "w0")
    assert sum(case.startswith("w") for case in split.test) == 2
    assert sum(case.startswith("s") for case in split.test) == 8


def test_a_case_in_two_parts_is_refused():
    with pytest.raises(DatasetError, match="case b is in two parts"):
        Split(train=("a", "b"), validation=("b",), test=("c",))
    with pytest.raises(DatasetError, match="leave none for"):
        split_cases(["a", "b"])


def test_a_published_split_without_its_columns_is_refused(tmp_path):
    file = tmp_path / "split.csv"
    file.write_text("id,part\n1,train\n")
    with pytest.raises(DatasetError, match="lacks the column"):
        read_published(file, "train")


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    probability = np.clip(labels * 0.3 + rng.random(500) * 0.7, 0, 1)
    called = probability >= 0.55
    found = score(labels, probability, 0.55)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, called))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, called))
    assert found["specificity"] == pytest.approx(sk.recall_score(labels, called, pos_label=0))
    assert found["recall"] == pytest.approx(sk.recall_score(labels, called))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(labels, probability))
    assert "auroc" not in score(np.ones(3, np.int64), np.full(3, 0.5), 0.5)


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    probability = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1)
    balanced = [sk.balanced_accuracy_score(labels, probability >= t) for t in np.arange(0.02, 0.99, 0.01)]
    chosen = best_threshold(labels, probability)
    assert sk.balanced_accuracy_score(labels, probability >= chosen) == pytest.approx(max(balanced), abs=1e-9)


def test_the_calibration_undoes_overconfidence_and_class_weights():
    rng = np.random.default_rng(2)
    true = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-true))).astype(np.int64)
    distorted = np.stack([np.zeros(20_000), 3 * (true + 1)], axis=1)
    temperature, shift = fit_calibration(distorted, labels)
    assert temperature == pytest.approx(3, rel=0.1)
    assert shift == pytest.approx(-1, abs=0.1)
    assert expected_calibration_error(labels, 1 / (1 + np.exp(-true))) < 0.02
    assert expected_calibration_error(labels, 1 / (1 + np.exp(-3 * true))) > 0.05


def test_the_bootstrap_draws_cases_not_patches():
    """All patches of a case are alike here: the interval is as wide as for one patch a case."""
    cases = np.repeat([f"c{n}" for n in range(20)], 50)
    labels = np.repeat(np.arange(20) % 2, 50)
    probability = np.repeat(np.where(np.arange(20) < 12, np.arange(20) % 2, 0.5), 50).astype(float)
    low, high = bootstrap_over_cases(labels, probability, cases, lambda y, p: score(y, p, 0.6))["accuracy"]
    assert high - low > 0.25


def test_augmentation_keeps_shape_and_changes_stain_but_not_structure():
    images = torch.full((8, 50, 50, 3), 200, dtype=torch.uint8)
    images[:, :25] = torch.tensor([120, 60, 140], dtype=torch.uint8)
    changed = augment(images, Recipe(), torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)
    still = augment(images, Recipe(stain_jitter=0.0), torch.Generator().manual_seed(0)).int()
    assert set(still.flatten().tolist()) <= {v + d for v in (200, 120, 60, 140) for d in (-1, 0, 1)}
