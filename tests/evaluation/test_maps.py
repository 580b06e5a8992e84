import numpy as np
import pytest

from wsi_pipeline.evaluation.maps import measure_overlaps


def test_pooled_and_mean_differ_where_cases_differ_in_size():
    truth = np.array([True] * 8 + [False, True])
    called = np.array([True] * 8 + [True, True])
    found = measure_overlaps(truth, called, np.array(["a"] * 8 + ["b"] * 2), draws=100)
    assert found.per_case["a"]["dice"] == 1
    assert found.per_case["b"]["dice"] == pytest.approx(2 / 3, abs=1e-5)
    assert found.per_case["a"]["npv"] is None
    assert found.pooled["dice"] == pytest.approx(18 / 19)
    assert found.mean["dice"] == pytest.approx(5 / 6)
    assert found.interval_95["mean"]["dice"] == (pytest.approx(2 / 3), 1.0)


def test_a_case_without_positives_counts_in_no_mean_dice():
    truth, called = np.array([True, True, False]), np.array([True, False, False])
    found = measure_overlaps(truth, called, np.array(["a", "a", "b"]), draws=50)
    assert found.per_case["b"]["dice"] is None
    assert found.mean["dice"] == pytest.approx(2 / 3)
    assert (found.defined["dice"], found.defined["npv"]) == (1, 2)
    assert found.per_case["b"]["specificity"] == 1


def test_the_bootstrap_draws_patients_and_not_their_cases():
    """Two patients of two cases each: a draw is both of one's cases, twice, or all four."""
    truth = np.array([True] * 12)
    called = np.array([True, False, False, False] + [True, True, False, False] + [True] * 4)
    cases, groups = np.array(["a", "b", "c", "d"]).repeat([1, 3, 2, 6]), np.array(["p", "q"]).repeat([4, 8])
    found = measure_overlaps(truth, called, cases, groups=groups, draws=100)
    pooled, mean = (found.interval_95[name]["sensitivity"] for name in ("pooled", "mean"))
    assert pooled == pytest.approx((1 / 4, 6 / 8))
    assert mean == pytest.approx(((1 + 0) / 2, (1 + 4 / 6) / 2))
