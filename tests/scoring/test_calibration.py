import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.scoring.calibration import best_threshold, calibrate, cross_fit, fit_calibration


def drawn(rng, count, temperature, bias):
    """Logits, and labels that come true as often as the calibrated probabilities say."""
    logits = 3 * rng.normal(size=(count, len(bias)))
    probabilities = calibrate(logits, temperature, bias).astype(np.float64)
    labels = (rng.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(0, len(bias) - 1)
    return logits, labels


@pytest.mark.parametrize(("temperature", "bias"), [(2.0, (0.0, -1.0)), (0.5, (0.0, 0.7)), (1.5, (0.0, 1.0, -0.5, 0.3))])
def test_temperature_and_bias_are_found_again(temperature, bias):
    logits, labels = drawn(np.random.default_rng(0), 40_000, temperature, bias)
    found, shifts = fit_calibration(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert shifts == pytest.approx(bias, abs=0.08)
    assert shifts[0] == 0


def test_two_classes_are_platt_scaling():
    logits, labels = drawn(np.random.default_rng(1), 5000, 1.7, (0.0, -0.8))
    margin = logits[:, 1] - logits[:, 0]
    platt = LogisticRegression(C=np.inf).fit(margin[:, None], labels)
    temperature, (_, shift) = fit_calibration(logits, labels)
    assert 1 / temperature == pytest.approx(platt.coef_[0, 0], rel=0.01)
    assert shift == pytest.approx(platt.intercept_[0], abs=0.01)
    assert calibrate(logits, temperature, (0.0, shift))[:, 1] == pytest.approx(
        platt.predict_proba(margin[:, None])[:, 1], abs=0.003
    )


def test_what_separates_without_a_fault_stays_moderate():
    logits = np.array([[2.0, -2.0], [1.0, -1.0], [-1.0, 1.0], [-3.0, 3.0]])
    temperature, bias = fit_calibration(logits, np.array([0, 0, 1, 1]))
    assert 0.2 < temperature < 1
    assert abs(bias[1]) < 0.5


def test_logits_without_information_do_not_run_away():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    temperature, bias = fit_calibration(logits, labels)
    assert 1 < temperature < 50
    assert calibrate(logits, temperature, bias)[:, 1].mean() == pytest.approx(labels.mean(), abs=0.05)


def test_nothing_is_fitted_to_one_class_and_absent_classes_keep_their_bias():
    logits = np.random.default_rng(0).normal(size=(60, 3))
    assert fit_calibration(logits, np.ones(60, int)) == (1.0, (0.0, 0.0, 0.0))
    temperature, bias = fit_calibration(logits, np.arange(60) % 2 * 2)
    assert bias[1] == 0
    assert (temperature, bias[2] - bias[0]) == pytest.approx(_of_two(logits[:, [0, 2]], np.arange(60) % 2))


def _of_two(logits, labels):
    temperature, (_, bias) = fit_calibration(logits, labels)
    return temperature, bias


def test_a_few_patches_of_two_classes_do_not_speak_against_the_others():
    """Of eight classes two are there: what the network says of the other six is as likely as it was."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(4, 8)), np.array([2, 2, 2, 4])
    rare = rng.normal(size=(1000, 8)), np.where(np.arange(1000) < 5, 4, 2)
    absurd = np.where(np.arange(8) == 7, 5.0, rng.normal(size=(60, 8))), np.arange(60) % 2 * 2 + 2
    others = [0, 1, 3, 5, 6, 7]
    for logits, labels in (few, rare, absurd):
        odds = [
            np.log(p[:, others].sum(1) / p[:, [2, 4]].sum(1)).mean()
            for p in (calibrate(logits), calibrate(logits, *fit_calibration(logits, labels)))
        ]
        assert odds[1] == pytest.approx(odds[0], abs=1e-4)


def test_huge_logits_neither_overflow_nor_are_refused():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]] * 10)
    labels = np.array([0, 1] * 10)
    labels[0] = 1
    temperature, bias = fit_calibration(logits, labels)
    assert np.isfinite([temperature, *bias]).all()
    assert calibrate(logits, temperature, bias).sum(axis=1) == pytest.approx(1)
    with pytest.raises(DatasetError, match="not finite"):
        fit_calibration(np.full((2, 2), np.nan), np.array([0, 1]))


def test_best_threshold_has_the_highest_balanced_accuracy():
    rng = np.random.default_rng(2)
    labels = (rng.random(400) < 0.25).astype(int)
    p = 1 / (1 + np.exp(-(rng.normal(size=400) + 2 * labels - 1.5)))
    found = best_threshold(labels, p)
    scores = {t: balanced_accuracy_score(labels, p >= t) for t in np.arange(1, 100) / 100}
    assert scores[found] == pytest.approx(max(scores.values()))


def test_of_equally_good_thresholds_the_middle_is_taken():
    assert best_threshold(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.8])) == pytest.approx(0.5, abs=0.011)
    with pytest.raises(DatasetError, match="only one class"):
        best_threshold(np.ones(3, int), np.array([0.1, 0.2, 0.8]))


def test_a_threshold_for_equal_recall_finds_both_classes_equally_often():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [3000, 1000])
    p = 1 / (1 + np.exp(-rng.normal(np.where(labels == 1, 1.0, -2.0), np.where(labels == 1, 2.0, 1.0))))
    recalls = {}
    for aim in ("balanced_accuracy", "equal_recall"):
        called = p >= best_threshold(labels, p, aim)
        recalls[aim] = called[labels == 1].mean(), (~called)[labels == 0].mean()
    assert abs(np.subtract(*recalls["equal_recall"])) < 0.01
    assert abs(np.subtract(*recalls["balanced_accuracy"])) > 0.1
    assert sum(recalls["balanced_accuracy"]) > sum(recalls["equal_recall"])


def test_a_threshold_between_probabilities_that_lie_close_together():
    labels = np.repeat([0, 1], 5)
    value = best_threshold(labels, np.repeat([0.281, 0.288], 5))
    assert 0.281 < value < 0.288


def test_a_fold_is_judged_by_what_the_other_folds_taught():
    rng = np.random.default_rng(3)
    logits, labels = drawn(rng, 900, 1.7, (0.0, -0.8))
    fold, seen = rng.integers(0, 3, 900), []

    def refit(known, others, new, held_out):
        seen.append((others, held_out))
        assert not np.intersect1d(fold[others], fold[held_out]).size
        np.testing.assert_array_equal(
            known, calibrate(logits[others], *fit_calibration(logits[others], labels[others]))
        )
        return new[:, 1] / 2

    logits = logits.astype(np.float32)
    first, final = cross_fit(logits, labels, fold, refit)
    np.testing.assert_array_equal(np.sort(np.concatenate([held_out for _, held_out in seen])), np.arange(900))
    np.testing.assert_array_equal(final, first[:, 1] / 2)
    others, held_out = seen[1]
    calibration = fit_calibration(logits[others], labels[others])
    np.testing.assert_array_equal(first[held_out], calibrate(logits[held_out], *calibration))
