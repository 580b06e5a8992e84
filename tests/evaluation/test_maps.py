import numpy as np
import pytest

from wsi_pipeline.evaluation.maps import case_maps, measure_overlaps


def test_a_case_is_put_together_at_its_places():
    positions = np.array([[100, 50], [150, 50], [100, 150], [0, 0]])
    truth, p = np.array([True, False, True, True]), np.array([0.9, 0.2, 0.4, 0.7], np.float32)
    maps = list(case_maps(truth, p, positions, np.array(["b", "b", "b", "a"]), 50))
    assert [one.case for one in maps] == ["a", "b"]
    assert maps[0].labels.tolist() == [[1]]
    assert maps[1].labels.tolist() == [[1, 0], [-1, -1], [1, -1]]
    assert np.array_equal(
        maps[1].probability, np.array([[0.9, 0.2], [np.nan, np.nan], [0.4, np.nan]], np.float32), equal_nan=True
    )
    assert maps[1].rows.tolist() == [0, 1, 2]


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
