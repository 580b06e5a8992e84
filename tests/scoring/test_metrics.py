"""Every figure against scikit-learn, on any labels and probabilities, with any weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.scoring.metrics import (
    SCORES,
    Scorer,
    call,
    class_scores,
    confusion,
    expected_calibration_error,
    log_loss,
    score,
)


@st.composite
def patches(draw, classes):
    """Labels, probabilities with many ties, and weights; every class occurs."""
    n = draw(st.integers(classes, 40))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)) + list(range(classes)))
    raw = draw(hnp.arrays(np.float64, (len(labels), classes), elements=st.integers(1, 6).map(float)))
    weights = draw(hnp.arrays(np.float64, len(labels), elements=st.integers(0, 3).map(float)))
    return labels, raw / raw.sum(axis=1, keepdims=True), weights


@given(patches(2), st.sampled_from([0.2, 0.5, 0.77]))
@settings(max_examples=60, deadline=None)
def test_two_classes_agree_with_scikit_learn(found, threshold):
    labels, probabilities, _ = found
    p = probabilities[:, 1]
    called = p >= threshold
    expected = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "f1": sk.f1_score(labels, called, zero_division=0.0),
        "recall": sk.recall_score(labels, called),
        "specificity": sk.recall_score(labels, called, pos_label=0),
        "auroc": sk.roc_auc_score(labels, p),
        "average_precision": sk.average_precision_score(labels, p),
        "brier": sk.brier_score_loss(labels, p),
    }
    if called.any():
        expected["precision"] = sk.precision_score(labels, called)
    if not called.all():
        expected["negative_predictive_value"] = sk.precision_score(labels, called, pos_label=0)
    for given_as in (probabilities, p):
        values = score(labels, given_as, threshold)
        assert values.keys() == expected.keys() | {"ece"} <= set(SCORES)
        assert {key: values[key] for key in expected} == pytest.approx(expected)
        assert values["ece"] == pytest.approx(expected_calibration_error(labels, given_as))
    assert np.array_equal(confusion(labels, call(p, threshold), 2), sk.confusion_matrix(labels, called))
    assert log_loss(labels, p) == pytest.approx(sk.log_loss(labels, p))


@given(patches(4))
@settings(max_examples=60, deadline=None)
def test_more_classes_agree_with_scikit_learn(found):
    labels, probabilities, _ = found
    called = probabilities.argmax(axis=1)
    values = score(labels, probabilities)
    negatives = [sk.recall_score(labels != n, called != n) for n in range(4)]
    expected = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "f1": sk.f1_score(labels, called, average="macro", zero_division=0.0),
        "precision": sk.precision_score(labels, called, average="macro", zero_division=0.0),
        "recall": sk.recall_score(labels, called, average="macro"),
        "specificity": np.mean(negatives),
        "auroc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "average_precision": sk.average_precision_score(np.eye(4)[labels], probabilities),
        "brier": sk.brier_score_loss(labels, probabilities),
        "ece": expected_calibration_error(called == labels, probabilities.max(axis=1)),
    }
    assert values == pytest.approx(expected)
    assert np.array_equal(confusion(labels, call(probabilities), 4), sk.confusion_matrix(labels, called))


@pytest.mark.parametrize("classes", [2, 3])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_weight_of_three_is_three_patches(classes, data):
    labels, probabilities, weights = data.draw(patches(classes))
    times = weights.astype(int)
    repeated = score(np.repeat(labels, times), np.repeat(probabilities, times, axis=0), 0.4) if times.any() else {}
    weighed = Scorer(labels, probabilities, 0.4)(weights)
    if classes > 2 and len(np.unique(labels[times > 0])) < classes:  # then there are no means over classes
        repeated = {key: value for key, value in repeated.items() if key in {"accuracy", "brier", "ece"}}
    assert weighed.keys() == repeated.keys()
    assert weighed == pytest.approx(repeated)


def test_calibration_error_by_hand():
    labels, p = np.array([0, 1, 1, 1]), np.array([0.1, 0.12, 0.9, 1.0])
    # Bin 1 of 15 holds 0.1 and 0.12, bin 13 holds 0.9, bin 14 holds 1.0.
    assert expected_calibration_error(labels, p) == pytest.approx((abs(0.22 - 1) + 0.1 + 0) / 4)


def test_one_class_only_leaves_out_what_is_not_defined():
    p = np.array([0.2, 0.7])
    assert score(np.zeros(2, int), p).keys() == {"accuracy", "brier", "ece", "specificity"}
    assert score(np.ones(2, int), p).keys() == {"accuracy", "brier", "ece", "recall"}
    assert score(np.ones(2, int), np.eye(3)[[0, 1]]).keys() == {"accuracy", "brier", "ece"}


def test_where_nothing_is_called_there_is_no_precision():
    labels, p = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])
    none = score(labels, p)
    assert "precision" not in none
    assert (none["recall"], none["f1"]) == (0, 0)
    assert none["negative_predictive_value"] == pytest.approx(1 / 3)
    assert "negative_predictive_value" not in score(labels, p, 0.05)


def test_a_draw_without_a_class_gives_no_mean_over_fewer():
    """Two rare classes that are always wrong: a draw without one must not raise the mean over classes."""
    labels = np.array([0] * 6 + [1] * 6 + [2, 3])
    probabilities = np.eye(4)[np.where(labels > 1, 0, labels)]
    scorer = Scorer(labels, probabilities)
    assert scorer()["balanced_accuracy"] == pytest.approx(0.5)
    without = scorer(np.where(labels == 3, 0.0, 1.0))
    assert without.keys() == {"accuracy", "brier", "ece"}


def test_a_class_that_does_not_occur_leaves_the_others_their_means():
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.1, 0.3, 0.6]])
    values = score(labels, probabilities)
    assert values["auroc"] == pytest.approx(np.mean([1.0, 1.0]))
    assert values["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert values["f1"] == pytest.approx(
        sk.f1_score(labels, probabilities.argmax(axis=1), average="macro", zero_division=0.0)
    )


def test_a_threshold_is_compared_as_the_map_is():
    p = np.array([0.38], np.float32)
    assert float(p[0]) > 0.38 or float(p[0]) < 0.38, "the case is about rounding"
    assert call(p, 0.38).tolist() == [1]


def test_a_label_outside_the_classes_is_refused():
    with pytest.raises(DatasetError, match="label 2 is none of the classes 0 to 1"):
        score(np.array([0, 2]), np.array([0.1, 0.9]))


def test_class_scores_say_none_where_there_is_nothing_to_say():
    table = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    first, second, third = class_scores(table)
    assert first == {"precision": 0.75, "recall": 0.75, "f1": 0.75, "patches": 4}
    assert second["precision"] == second["recall"] == 0.5
    assert third == {"precision": None, "recall": None, "f1": None, "patches": 0}
    _, alone = class_scores(np.array([[0, 0], [1, 3]]))
    assert alone == {"precision": None, "recall": 0.75, "f1": None, "patches": 4}
