import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from wsi_pipeline.scoring.curves import precision_recall, reliability, roc, thin


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=50))
@settings(max_examples=60, deadline=None)
def test_curves_agree_with_scikit_learn(drawn):
    labels, p = np.array([*[one for one, _ in drawn], True, False]), np.array([*[n for _, n in drawn], 3, 3]) / 10
    x, y, threshold = sk.roc_curve(labels, p, drop_intermediate=False)
    curve = roc(labels, p)
    assert np.allclose(curve.x, x)
    assert np.allclose(curve.y, y)
    assert np.allclose(curve.threshold, threshold)
    precision, recall, _ = sk.precision_recall_curve(labels, p)
    found = precision_recall(labels, p)
    assert np.allclose(found.x, recall[-2::-1])
    assert np.allclose(found.y, precision[-2::-1])


def test_reliability_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    p = rng.random(500)
    labels = (rng.random(500) < p).astype(float)
    observed, predicted = calibration_curve(labels, p, n_bins=15)
    found = reliability(labels, p)
    assert np.allclose(found.observed, observed)
    assert np.allclose(found.predicted, predicted)
    assert found.count.sum() == 500


def test_a_thinned_curve_keeps_its_ends_and_its_area():
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.3
    curve = roc(labels, rng.normal(size=20_000) + labels)
    less = thin(curve, 300)
    assert len(less.x) <= 302
    assert (less.x[0], less.y[0], less.x[-1], less.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(less.y, less.x) == pytest.approx(np.trapezoid(curve.y, curve.x), abs=1e-3)
    assert thin(less, 300) is less or len(thin(less, 300).x) <= 302
