import numpy as np
import pytest
from sklearn import metrics as sk

from wsi_pipeline.scoring.bootstrap import bootstrap_over_cases, intervals
from wsi_pipeline.scoring.metrics import score


def cases_of(rng, count, size):
    """Cases whose patches are alike: each case has its own shift of the probabilities."""
    labels = rng.integers(0, 2, (count, size))
    logits = rng.normal(size=(count, 1)) + 1.5 * (2 * labels - 1) + rng.normal(size=(count, size))
    names = np.repeat([f"case{n}" for n in range(count)], size)
    return labels.ravel(), 1 / (1 + np.exp(-logits.ravel())), names


def test_a_draw_is_what_scikit_learn_says_of_the_cases_drawn():
    labels, p, cases = cases_of(np.random.default_rng(0), 6, 20)
    rng, values = np.random.default_rng(7), []
    rows_of = [np.flatnonzero(cases == case) for case in np.unique(cases)]
    for _ in range(50):
        rows = np.concatenate([rows_of[n] for n in rng.integers(0, 6, 6)])
        values.append(sk.roc_auc_score(labels[rows], p[rows]))
    expected = tuple(np.percentile(values, [2.5, 97.5]))
    assert bootstrap_over_cases(labels, p, cases, draws=50, seed=7)["auroc"] == pytest.approx(expected)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    labels, p, _ = cases_of(np.random.default_rng(12345), 20_000, 10)
    truth, covered = sk.accuracy_score(labels, p >= 0.5), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels, p, cases = cases_of(rng, 40, 10)
        low, high = bootstrap_over_cases(labels, p, cases, draws=200, seed=seed)["accuracy"]
        covered += low <= truth <= high
    assert 86 <= covered <= 100


def test_the_interval_of_ece_is_of_the_true_one_and_not_of_what_chance_adds():
    def drawn(seed, count):
        rng = np.random.default_rng(seed)
        logits = np.repeat(rng.normal(-1.5, 1.2, count), 40) + rng.normal(0, 2, 40 * count)
        truth = 1 / (1 + np.exp(-(logits + np.repeat(rng.normal(0, 0.7, count), 40))))
        labels = (rng.random(40 * count) < truth).astype(np.int64)
        return labels, 1 / (1 + np.exp(-0.85 * logits)), np.repeat(np.arange(count).astype(str), 40)

    labels, p, _ = drawn(12345, 20_000)
    truth, covered = score(labels, p)["ece"], 0
    for seed in range(40):
        labels, p, cases = drawn(seed, 40)
        low, high = bootstrap_over_cases(labels, p, cases, draws=100, seed=seed)["ece"]
        assert 0 <= low <= high
        covered += low <= truth <= high
    assert covered >= 30  # percentile intervals cover it never


def test_intervals_over_cases_are_wider_than_over_patches():
    labels, p, cases = cases_of(np.random.default_rng(1), 12, 100)
    over_cases = bootstrap_over_cases(labels, p, cases, draws=300)["accuracy"]
    over_patches = bootstrap_over_cases(labels, p, np.arange(len(p)).astype(str), draws=300)["accuracy"]
    assert np.diff(over_cases) > 2 * np.diff(over_patches)


def test_no_interval_where_many_draws_leave_a_figure_undefined():
    labels, p, cases = np.array([0, 0, 1]), np.array([0.1, 0.4, 0.8]), np.array(["a", "b", "c"])
    found = bootstrap_over_cases(labels, p, cases)
    assert "auroc" not in found
    assert "accuracy" in found


def test_one_case_says_nothing_of_how_cases_differ():
    assert bootstrap_over_cases(np.array([0, 1]), np.array([0.1, 0.8]), np.array(["a", "a"])) == {}


def test_anything_with_weights_gets_an_interval():
    values = np.array([1.0, 2.0, 6.0])
    found = intervals(lambda w: {"mean": float(w @ values / w.sum())}, np.array(["a", "b", "c"]), draws=2000)
    assert found == {"mean": (1.0, 6.0)}
