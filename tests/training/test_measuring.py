from types import SimpleNamespace

import numpy as np
import pytest
from painted import painted
from shades import margins, red_bundle, some_patches

from wsi_pipeline.datasets import Split, ahead
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.scoring.bootstrap import bootstrap_over_cases
from wsi_pipeline.scoring.calibration import best_threshold, calibrate, fit_calibration
from wsi_pipeline.training import measuring
from wsi_pipeline.training.measuring import measure, predict_logits
from wsi_pipeline.training.recipe import load_recipe


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 3 * 50 * 50 * 7)
    monkeypatch.setattr(ahead, "READ_TOGETHER", 3)


def test_logits_come_in_the_order_that_was_asked_for(tmp_path):
    dataset, indices = some_patches(), np.array([40, 3, 3, *range(70, 50, -1)])
    found = predict_logits(red_bundle(tmp_path), dataset, indices, device="cpu")
    assert found.dtype == np.float32
    assert found.shape == (len(indices), 2)
    assert found[:, 1] - found[:, 0] == pytest.approx(margins(np.array(dataset.reds)[indices]), abs=1e-4)


def test_of_no_patches_there_are_none(tmp_path):
    found = predict_logits(red_bundle(tmp_path), some_patches(), np.array([], np.int64), device="cpu")
    assert found.shape == (0, 2)


def test_all_broken_patches_are_told_at_once_and_no_number_is_made_up(tmp_path):
    dataset = some_patches(broken={2, 30})
    names = ".*".join(dataset.samples[n].name for n in (2, 30))
    with pytest.raises(DatasetError, match=rf"2 of 72 patches cannot be used: {names}"):
        predict_logits(red_bundle(tmp_path), dataset, np.arange(72), device="cpu")
    predict_logits(red_bundle(tmp_path), dataset, np.arange(3, 30), device="cpu")


def test_calibration_and_threshold_are_of_validation_alone_and_intervals_over_cases(monkeypatch):
    dataset, rng = painted(cases=12), np.random.default_rng(0)
    number = np.unique(dataset.groups, return_inverse=True)[1]
    parts = {name: np.flatnonzero(number // 4 == part) for part, name in enumerate(("train", "validation", "test"))}
    margin = 2 * (2 * dataset.labels - 1) + rng.normal(0, 3, len(dataset)) + np.where(number < 8, 2.0, -3.0)
    logits = np.stack([-margin, margin], 1).astype(np.float32)
    monkeypatch.setattr(measuring, "predict_logits", lambda _bundle, _data, indices, **_: logits[indices])
    split, recipe = Split(kind="case", seed=0, **parts), load_recipe("idc-cnn")
    found = measure(SimpleNamespace(positive=1), dataset, split, recipe, device="cpu")
    labels, groups = dataset.labels, dataset.groups
    own, other = (fit_calibration(logits[parts[name]], labels[parts[name]]) for name in ("validation", "test"))
    assert (found.temperature, found.bias) == own
    assert found.bias != pytest.approx(other[1], abs=0.1)
    probability = {name: calibrate(logits[parts[name]], *own)[:, 1] for name in parts}
    chosen = best_threshold(labels[parts["validation"]], probability["validation"], recipe.threshold)
    assert found.threshold.value == chosen
    assert found.threshold.value != best_threshold(labels[parts["test"]], probability["test"], recipe.threshold)
    rows = parts["test"]
    ranges = bootstrap_over_cases(labels[rows], probability["test"], groups[rows], chosen)
    shown = found.metrics["test"]["interval_95"]
    assert shown == {key: pytest.approx(pair, abs=1e-6) for key, pair in ranges.items()}
