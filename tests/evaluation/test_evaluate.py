import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from shades import Shades, margins, red_bundle, sigmoid, some_patches
from sklearn import metrics as sk
from torch import nn

from wsi_pipeline.context import Context, refine, refine_points
from wsi_pipeline.errors import BundleError, ConfigError, DatasetError
from wsi_pipeline.evaluation import Options, evaluate
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.mosaic import mosaics
from wsi_pipeline.scoring.overlap import overlap

QUICK = {"draws": 60, "device": "cpu"}
CONTEXT = Context(sigmas=(1.0,), shrink=1.0, intercept=-0.1, own=0.7, near=(0.9,), trust=(0.2,))


def run(bundle, dataset, **options):
    return evaluate(bundle, dataset, Options(**QUICK | options))


def test_figures_are_those_of_scikit_learn_on_the_formula(tmp_path):
    dataset = some_patches()
    p, labels = sigmoid(margins(dataset.reds)), dataset.labels
    found = run(red_bundle(tmp_path), dataset).as_json()
    expected = {
        "auroc": sk.roc_auc_score(labels, p),
        "average_precision": sk.average_precision_score(labels, p),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, p >= 0.4),
        "f1": sk.f1_score(labels, p >= 0.4),
        "accuracy": sk.accuracy_score(labels, p >= 0.4),
        "precision": sk.precision_score(labels, p >= 0.4),
        "recall": sk.recall_score(labels, p >= 0.4),
        "specificity": sk.recall_score(labels, p >= 0.4, pos_label=0),
        "brier": sk.brier_score_loss(labels, p),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=2e-6)
    assert found["confusion"] == sk.confusion_matrix(labels, p >= 0.4).tolist()
    assert (found["patches"], found["cases"], found["threshold"]) == (72, 6, 0.4)
    assert found["positive_fraction"] == pytest.approx(labels.mean(), abs=1e-6)
    assert found["model"] == {"name": "red", "digest": "ab" * 32, "path": str(tmp_path)}
    low, high = found["interval_95"]["auroc"]
    assert low < found["auroc"] < high
    rows = dataset.groups == "c3"
    one = found["per_case"]["c3"]
    assert one["patches"] == 12
    assert one["auroc"] == pytest.approx(sk.roc_auc_score(labels[rows], p[rows]), abs=2e-6)


def test_json_has_no_nan_and_every_key(tmp_path):
    dataset = some_patches(per_case=2)
    text = json.dumps(run(red_bundle(tmp_path), dataset, whole_slide=True).as_json(), allow_nan=False)
    keys = json.loads(text).keys()
    assert keys >= {
        *("auroc", "average_precision", "balanced_accuracy", "f1", "ece", "accuracy", "precision", "recall"),
        *("specificity", "brier", "confusion", "threshold", "patches", "cases", "positive_fraction", "interval_95"),
        *("per_case", "calibration", "without_context", "whole_slide", "model", "data", "split", "seen_in_training"),
    }


def test_calibration_is_the_cards_and_is_measured_before_and_after(tmp_path):
    dataset = some_patches()
    found = run(red_bundle(tmp_path, temperature=0.5, bias=(0.0, 0.3)), dataset).as_json()
    margin, labels = margins(dataset.reds), dataset.labels
    calibration = found["calibration"]
    assert calibration["before"]["log_loss"] == pytest.approx(sk.log_loss(labels, sigmoid(margin)), abs=1e-5)
    after = sigmoid(margin / 0.5 + 0.3)
    assert calibration["after"]["log_loss"] == pytest.approx(sk.log_loss(labels, after), abs=1e-5)
    assert calibration["after"]["brier"] == found["brier"]
    assert calibration["bias"] == {"non-IDC": 0.0, "IDC": 0.3}
    assert sum(calibration["after"]["reliability"]["patches"]) == 72


def test_the_neighbourhood_refines_and_both_are_reported(tmp_path):
    dataset = some_patches()
    bundle = red_bundle(tmp_path, context=CONTEXT)
    found = run(bundle, dataset)
    before = sigmoid(margins(dataset.reds)).astype(np.float32)
    positions = np.array([sample.position for sample in dataset.samples])
    after = refine_points(before, positions, dataset.groups, 50, CONTEXT)
    assert found.patches.shipped[:, 1] == pytest.approx(after, abs=1e-5)
    assert found.patches.shipped.sum(axis=1) == pytest.approx(1)
    values = found.as_json()
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(dataset.labels, after), abs=1e-5)
    assert values["without_context"]["auroc"] == pytest.approx(sk.roc_auc_score(dataset.labels, before), abs=1e-5)
    assert values["calibration"]["after_context"]["ece"] == values["ece"]
    without = run(bundle, dataset, context=False)
    assert without.as_json()["auroc"] == values["without_context"]["auroc"]
    assert without.as_json()["without_context"] is None
    assert any("left out: as asked. The model's threshold was chosen with it" in text for text in without.warnings)


def test_without_known_places_there_is_no_context(tmp_path):
    found = run(red_bundle(tmp_path, context=CONTEXT), some_patches(positions=None), whole_slide=True)
    assert found.without_context is None
    assert found.whole_slide is None
    assert any("places of the patches are not known" in warning for warning in found.warnings)
    with pytest.raises(BundleError, match="no second stage"):
        run(red_bundle(tmp_path), some_patches(), context=True)


def test_a_card_with_the_positive_class_first_gives_the_same(tmp_path):
    class Turned(nn.Module):
        def forward(self, x):
            logit = 8 * (x[:, 0].mean(dim=(1, 2)) - 0.5)
            return torch.stack([logit, torch.zeros_like(logit)], dim=1)

    card = red_bundle(tmp_path, class_names=("IDC", "non-IDC"), temperature=1.5, bias=(0.2, 0.0)).card
    turned = ModelBundle(card=card, path=tmp_path, digest="ab" * 32, build=lambda: Turned().eval())
    plain = red_bundle(tmp_path, temperature=1.5, bias=(0.0, 0.2))
    dataset = some_patches()
    first, second = run(turned, dataset).as_json(), run(plain, dataset).as_json()
    assert {k: first[k] for k in ("auroc", "f1", "recall", "confusion", "class_names", "ece")} == {
        k: second[k] for k in ("auroc", "f1", "recall", "confusion", "class_names", "ece")
    }


def test_a_given_threshold_is_used_and_said(tmp_path):
    found = run(red_bundle(tmp_path), some_patches(), threshold=0.6)
    assert (found.threshold, found.threshold_source) == (0.6, "given")
    assert any("the model's own is 0.4" in warning for warning in found.warnings)
    with pytest.raises(ConfigError, match="no probability"):
        run(red_bundle(tmp_path), some_patches(), threshold=1.6)


def test_one_class_only_gives_what_can_be_given(tmp_path):
    found = run(red_bundle(tmp_path), Shades([90, 150, 200], [1, 1, 1], ["a", "a", "b"]))
    values = found.as_json()
    assert values["auroc"] is values["specificity"] is values["balanced_accuracy"] is None
    assert values["recall"] == pytest.approx(2 / 3, abs=1e-5)
    assert values["interval_95"]["auroc"] is None
    assert any("one class only" in warning for warning in found.warnings)


def test_an_unreadable_patch_costs_itself_alone(tmp_path):
    dataset = some_patches(broken={5, 30})
    found = run(red_bundle(tmp_path), dataset, whole_slide=True)
    kept = [n for n in range(72) if n not in {5, 30}]
    p = sigmoid(margins(np.array(dataset.reds)[kept]))
    values = found.as_json()
    assert values["patches"] == 70
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(dataset.labels[kept], p), abs=1e-5)
    assert [bad["name"] for bad in values["unreadable"]] == ["c0/5.png", "c2/30.png"]
    assert any("c0/5.png" in warning for warning in found.warnings)


def test_cases_seen_before_are_said_and_can_be_left_out(tmp_path):
    training = {"split_by_case": {"train": ["c0", "c1", "elsewhere"], "validation": ["c2"], "test": ["c3"]}}
    bundle, dataset = red_bundle(tmp_path, training=training), some_patches()
    found = run(bundle, dataset)
    values = found.as_json()
    assert values["seen_in_training"] == {"count": 2, "cases": ["c0", "c1"], "patches": 24}
    assert values["seen_in_validation"] == {"count": 1, "cases": ["c2"], "patches": 12}
    assert found.warnings[0].startswith("SEEN BEFORE: 2 of 6 cases, which hold 24 of 72 patches, trained this model")
    assert "chose its threshold" in found.warnings[1]
    assert not any("--limit" in warning for warning in found.warnings)
    found = run(bundle, dataset, unseen=True)
    assert any("left out (--unseen)" in warning for warning in found.warnings)
    unseen = found.as_json()
    assert set(unseen["per_case"]) == {"c3", "c4", "c5"}
    assert unseen["seen_in_training"]["count"] == 0
    with pytest.raises(DatasetError, match="no case that the model has not seen"):
        run(bundle, dataset, unseen=True, cases={"c0", "c2"})


def test_that_a_model_is_a_trial_is_said(tmp_path):
    bundle = red_bundle(tmp_path, training={"split": {"train": ["elsewhere"], "limit": 0.01}})
    assert "TRIAL: the model was trained with --limit 0.01" in "\n".join(run(bundle, some_patches()).warnings)


def test_of_a_leaky_split_unseen_leaves_out_whole_cases(tmp_path):
    split = {"kind": "leaky", "train": ["c0/0.png", "c1/12.png"], "validation": ["c2/24.png"], "test": ["c0/1.png"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    bundle, dataset = red_bundle(tmp_path), some_patches()
    found = run(bundle, dataset)
    assert found.as_json()["seen_in_training"]["patches"] == 2
    assert any(warning.startswith("LEAKY") for warning in found.warnings)
    assert set(run(bundle, dataset, unseen=True).per_case) == {"c3", "c4", "c5"}


def test_chosen_cases_only(tmp_path):
    found = run(red_bundle(tmp_path), some_patches(), cases={"c1", "c4", "nowhere"})
    assert set(found.per_case) == {"c1", "c4"}
    assert any("nowhere" in warning for warning in found.warnings)
    with pytest.raises(DatasetError, match="none of the cases"):
        run(red_bundle(tmp_path), some_patches(), cases={"nowhere"})


def test_a_model_that_does_not_say_what_it_saw_is_not_trusted(tmp_path):
    assert any("is not known" in warning for warning in run(red_bundle(tmp_path), some_patches()).warnings)


def test_patches_without_cases_get_no_cases(tmp_path):
    found = run(red_bundle(tmp_path), some_patches(per_case=1, cases=40, group_kind="picture"))
    assert found.as_json()["cases"] is None
    assert found.as_json()["per_case"] == {}
    assert found.as_json()["interval_95"]["auroc"] is not None
    assert any("intervals are over patches" in warning for warning in found.warnings)


def test_more_than_two_classes(tmp_path):
    class Three(nn.Module):
        def forward(self, x):
            red = x[:, 0].mean(dim=(1, 2))
            return 6 * torch.stack([1 - red, 1.013 - 2 * (red - 0.5).abs(), red], dim=1)

    names = ("a", "b", "c")
    card = red_bundle(tmp_path, class_names=names, positive_class="c").card
    bundle = ModelBundle(card=card, path=tmp_path, digest="", build=lambda: Three().eval())
    rng = np.random.default_rng(0)
    labels = np.r_[0, 1, 2, rng.integers(0, 3, 57)]
    reds = np.clip(rng.normal(60 + 65 * labels, 40), 0, 255).astype(int)
    dataset = Shades(
        reds.tolist(), labels.tolist(), [f"p{n % 12}" for n in range(60)], class_names=names, positive_class="c"
    )
    r = reds / 255
    logits = 6 * np.stack([1 - r, 1.013 - 2 * np.abs(r - 0.5), r], axis=1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with pytest.raises(ConfigError, match="not used for 3 classes"):
        run(bundle, dataset, threshold=0.3)
    found = run(bundle, dataset).as_json()
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"), abs=2e-3)
    assert found["f1"] == pytest.approx(sk.f1_score(labels, p.argmax(axis=1), average="macro"), abs=1e-5)
    assert found["confusion"] == sk.confusion_matrix(labels, p.argmax(axis=1)).tolist()
    assert found["threshold"] is None
    assert found["per_class"]["b"]["recall"] == pytest.approx(
        sk.recall_score(labels, p.argmax(axis=1), average=None)[1], abs=1e-5
    )
    assert found["positive_fraction"] == pytest.approx((labels == 2).mean(), abs=1e-5)


def test_whole_cases_are_measured_as_their_patches_lie(tmp_path):
    dataset = some_patches()
    found = run(red_bundle(tmp_path, context=CONTEXT), dataset, whole_slide=True)
    called = found.patches.shipped[:, 1] >= np.float32(0.4)
    truth = dataset.labels == 1
    values = found.as_json()["whole_slide"]
    for case in ("c0", "c5"):
        rows = dataset.groups == case
        expected = overlap(truth[rows], called[rows])
        assert {key: values["per_case"][case][key] for key in expected} == pytest.approx(expected, abs=1e-5)
    assert {key: values["pooled"][key] for key in overlap(truth, called)} == pytest.approx(
        overlap(truth, called), abs=1e-5
    )
    dice = [one["dice"] for one in values["per_case"].values()]
    assert values["mean"]["dice"] == pytest.approx(np.mean(dice), abs=1e-5)
    low, high = values["mean"]["interval_95"]["dice"]
    assert low < values["mean"]["dice"] < high


def test_maps_are_what_a_refined_map_is(tmp_path):
    dataset = some_patches()
    found = run(red_bundle(tmp_path, context=CONTEXT), dataset)
    patches = found.patches
    for mosaic in mosaics(patches.dataset.positions, patches.cases, 50):
        raw, refined = (
            mosaic.lay_out(probability[mosaic.rows, 1], empty=np.nan)
            for probability in (patches.calibrated, patches.shipped)
        )
        assert raw.shape == (3, 4)
        assert refined == pytest.approx(refine(raw, CONTEXT), abs=1e-6)


def test_patients_with_several_cases_are_drawn_whole_and_their_cases_reported(tmp_path):
    dataset = some_patches()
    patients = {"c0": "p", "c1": "p", "c2": "p", "c3": "q", "c4": "q", "c5": "q"}
    dataset.samples = tuple(
        replace(sample, case=sample.group, group=patients[sample.group]) for sample in dataset.samples
    )
    dataset.group_kind = "patient"
    found = run(red_bundle(tmp_path, context=CONTEXT), dataset, whole_slide=True)
    values = found.as_json()
    assert set(values["per_case"]) == set(values["whole_slide"]["per_case"]) == set(patients)
    assert found.warnings[-1] == "There are 2 patients only: the intervals are rough."
    by_case = run(red_bundle(tmp_path, context=CONTEXT), some_patches(), whole_slide=True)
    assert np.array_equal(found.patches.shipped, by_case.patches.shipped)
    # Two patients: a draw is the one, the other, or both.
    likely = [run(red_bundle(tmp_path), dataset, cases={name}).figures.scores["f1"] for name in ("p", "q")]
    low, high = run(red_bundle(tmp_path), dataset, draws=400).figures.interval_95["f1"]
    assert (low, high) == pytest.approx((min(likely), max(likely)))
    assert set(run(red_bundle(tmp_path), dataset, cases={"c1"}).per_case) == {"c1"}
