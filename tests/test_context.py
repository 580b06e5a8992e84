"""The second stage, against sums written out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from wsi_pipeline import context as module
from wsi_pipeline.context import Context, fit_context, log_odds, refine, refine_points
from wsi_pipeline.mosaic import mosaics

PATCH = 50


def context(**changes):
    values = {
        "sigmas": (1.0, 3.0),
        "shrink": 0.5,
        "intercept": -0.2,
        "own": 0.6,
        "near": (0.8, 0.3),
        "trust": (0.1, 0.2),
    }
    return Context(**{**values, **changes})


def by_hand(probability, positions, stage):
    """The definition: every pair of patches, no convolution."""
    own = log_odds(probability)
    distance2 = ((positions[:, None] - positions[None]) ** 2).sum(-1) / PATCH**2
    odds = stage.intercept + stage.own * own
    for sigma, near, trust in zip(stage.sigmas, stage.near, stage.trust, strict=True):
        weight = np.exp(-distance2 / (2 * sigma**2))
        np.fill_diagonal(weight, 0)
        total = weight.sum(1)
        odds = odds + near * (weight @ own) / (total + stage.shrink) + trust * own * total / (total + stage.shrink)
    return 1 / (1 + np.exp(-odds))


def scattered(seed, count=40, side=9):
    rng = np.random.default_rng(seed)
    cells = rng.permutation(side * side)[:count]
    positions = np.stack([cells % side, cells // side], 1) * PATCH
    return rng.random(count).astype(np.float32), positions


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_points_are_refined_as_the_definition_says(seed):
    probability, positions = scattered(seed)
    groups = np.full(len(probability), "a")
    found = refine_points(probability, positions + 7 * PATCH, groups, PATCH, context())
    # Neighbours beyond four standard deviations are left out: they could move the result by exp(-8) at most.
    assert_allclose(found, by_hand(probability, positions, context()), atol=2e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([9, 60]))
def test_a_few_cells_have_the_same_features_with_and_without_a_picture(seed, side):
    probability, positions = scattered(seed, side=side)
    probability[seed % 7] = np.nan
    (mosaic,) = mosaics(positions, np.zeros(len(probability), np.int64), PATCH)
    picture = mosaic.lay_out(probability[mosaic.rows], empty=np.nan)
    expected = module._features(picture, module.SIGMAS, 1.0)[:, *mosaic.cells]
    found = module._features_of_few(probability[mosaic.rows], mosaic.cells, module.SIGMAS, 1.0)
    assert_allclose(found, expected, atol=1e-12)


def test_cases_do_not_see_each_other():
    one, places = scattered(0)
    other, _ = scattered(1)
    apart = [refine_points(p, places, np.full(len(p), "x"), PATCH, context()) for p in (one, other)]
    mixed = np.argsort(np.random.default_rng(2).random(2 * len(one)))
    together = refine_points(
        np.r_[one, other][mixed], np.r_[places, places][mixed], np.repeat(["b", "a"], len(one))[mixed], PATCH, context()
    )
    assert_array_equal(together, np.r_[apart[0], apart[1]][mixed])


def test_a_dense_map_is_interleaved_mosaics():
    rng = np.random.default_rng(0)
    dense = rng.random((13, 17)).astype(np.float32)
    dense[3:6, 4:9] = np.nan
    step = 4
    found = refine(dense, context(), step)
    for row, col in ((0, 0), (1, 3), (3, 2)):
        assert_array_equal(found[row::step, col::step], refine(dense[row::step, col::step], context(), 1))
    assert_array_equal(np.isnan(found), np.isnan(dense))


@pytest.mark.parametrize("spacing", [2, 5])
def test_cells_that_lie_apart_hear_as_much_as_if_those_between_were_not_known(spacing):
    rng = np.random.default_rng(0)
    sparse = np.full((20, 25), np.nan, np.float32)
    sparse[::spacing, ::spacing] = rng.random(sparse[::spacing, ::spacing].shape)
    found = refine(sparse[::spacing, ::spacing], context(), 1, spacing)
    np.testing.assert_allclose(found, refine(sparse, context())[::spacing, ::spacing], atol=2e-5)


def test_a_lone_cell_hears_of_no_neighbours():
    lone = np.full((5, 5), np.nan, np.float32)
    lone[2, 2] = 0.8
    stage = context()
    expected = 1 / (1 + np.exp(-(stage.intercept + stage.own * log_odds(np.float64(0.8)))))
    assert refine(lone, stage)[2, 2] == pytest.approx(expected, abs=1e-6)


def test_certainty_is_bounded_and_nothing_overflows():
    stage = context(own=50.0)
    found = refine(np.array([[0.0, 1.0, 0.5]], np.float32), stage)
    assert np.isfinite(found).all()
    assert found[0, 0] < 1e-3
    assert found[0, 1] > 1 - 1e-3


def test_nothing_stays_nothing():
    assert np.isnan(refine(np.full((3, 4), np.nan, np.float32), context(), 2)).all()
    assert refine_points(np.empty(0), np.empty((0, 2), int), np.empty(0, str), PATCH, context()).shape == (0,)


def test_fitting_learns_that_tumour_is_contiguous():
    """Labels in large blobs, a first stage that is right 70 % of the time: the neighbours settle it."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:24, :24]
    parts = []
    for case in range(6):
        labels = ((rows - 12) ** 2 + (cols - 4 * case) ** 2 < 60).astype(np.int64).ravel()
        right = rng.random(labels.size) < 0.7
        probability = np.where(right == (labels == 1), 0.7, 0.3)
        positions = np.stack([cols.ravel(), rows.ravel()], 1) * PATCH
        parts.append((probability, labels, positions, np.full(labels.size, f"case {case}")))
    probability, labels, positions, groups = (np.concatenate(column) for column in zip(*parts, strict=True))
    known = groups != "case 5"
    stage = fit_context(probability[known], labels[known], positions[known], groups[known], PATCH)
    refined = refine_points(probability[~known], positions[~known], groups[~known], PATCH, stage)
    before = ((probability[~known] > 0.5) == labels[~known]).mean()
    after = ((refined > 0.5) == labels[~known]).mean()
    assert before < 0.75
    assert after > 0.95
    assert sum(stage.near) > stage.own


def test_a_weight_is_there_for_each_sigma():
    with pytest.raises(ValueError, match="differ in length"):
        context(near=(1.0,))


def test_a_fitted_stage_leaves_the_order_of_lone_patches():
    """Fitted on cases that are full of neighbours, it must not turn round what it says where there are none."""
    rng = np.random.default_rng(1)
    rows, cols = np.mgrid[:12, :12]
    positions = np.tile(np.stack([cols.ravel(), rows.ravel()], 1) * PATCH, (8, 1))
    groups = np.repeat([f"case {n}" for n in range(8)], 144)
    labels = (positions[:, 0] // PATCH < np.repeat(rng.integers(2, 10, 8), 144)).astype(np.int64)
    probability = 1 / (1 + np.exp(-(2 * labels - 1 + 1.5 * rng.normal(size=len(labels)))))
    stage = fit_context(probability, labels, positions, groups, PATCH)
    lone = np.array([0.05, 0.3, 0.6, 0.95], np.float32)
    refined = refine_points(lone, np.zeros((4, 2), np.int64), np.array(list("abcd")), PATCH, stage)
    assert (np.diff(refined) > 0.05).all()
    # Few neighbours, and far away, change little.
    pair = refine_points(
        np.array([0.95, 0.6]), np.array([[0, 0], [100 * PATCH, 0]]), np.array(["a", "a"]), PATCH, stage
    )
    assert pair == pytest.approx(refined[[3, 2]], abs=0.15)
