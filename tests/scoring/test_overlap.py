import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from wsi_pipeline.scoring.overlap import overlap

MASKS = hnp.arrays(bool, (4, 5))


@given(MASKS, MASKS)
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_learn(truth, called):
    found, flat = overlap(truth, called), (truth.ravel(), called.ravel())
    if truth.any():
        assert found["sensitivity"] == pytest.approx(sk.recall_score(*flat))
    if called.any():
        assert found["ppv"] == pytest.approx(sk.precision_score(*flat))
    if not truth.all():
        assert found["specificity"] == pytest.approx(sk.recall_score(*flat, pos_label=False))
    if not called.all():
        assert found["npv"] == pytest.approx(sk.precision_score(*flat, pos_label=False))
    if truth.any() or called.any():
        assert found["dice"] == pytest.approx(sk.f1_score(*flat))
    assert all(0 <= value <= 1 for value in found.values())


def test_what_has_no_denominator_is_left_out():
    nothing = np.zeros((2, 2), bool)
    assert overlap(nothing, nothing) == {"specificity": 1.0, "npv": 1.0}


@given(MASKS, MASKS, hnp.arrays(np.int64, (4, 5), elements=st.integers(0, 3)))
@settings(max_examples=30, deadline=None)
def test_a_weight_of_three_is_three_cells(truth, called, times):
    weights, flat = times.astype(float), times.ravel()
    repeated = overlap(np.repeat(truth.ravel(), flat), np.repeat(called.ravel(), flat))
    assert overlap(truth, called, weights) == pytest.approx(repeated)
