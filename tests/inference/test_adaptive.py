"""Which cells are looked at and what is made of them, with answers looked up in a map that is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wsi_pipeline.grid import Block
from wsi_pipeline.inference.adaptive import Refinement, Rule

RULE = Rule(threshold=0.25, positive=1, classes=2, per_view=16, coarsest=4, finest=2)
LEAST = {"margin": -1e9, "tolerance": 1.0}
"""Never refine."""


def rule(**more):
    return Rule(**({name: getattr(RULE, name) for name in Rule.__dataclass_fields__} | more))


def block_of(wanted, corner=(0, 0)):
    rows, cols = wanted.shape
    cells = (np.argwhere(wanted) + corner).astype(np.int32)
    return Block(index=(0, 0), rows=(corner[0], corner[0] + rows), cols=(corner[1], corner[1] + cols), cells=cells)


def refine(truth, a_rule, *, wanted=None, readable=None, corner=(0, 0), spread=None):
    """The block's columns and which cells were looked at, both on the raster; asked for each cell once at most."""
    wanted = np.ones(truth.shape, bool) if wanted is None else wanted
    block = block_of(wanted, corner)
    answers = np.column_stack([1 - truth[wanted], truth[wanted]] + ([] if spread is None else [spread[wanted]]))
    readable = np.ones(len(block.cells), bool) if readable is None else readable[wanted]
    refinement = Refinement(block, readable, answers.shape[1], a_rule)
    seen = []
    while len(refinement.wanted):
        assert not set(refinement.wanted) & set(seen)
        seen += refinement.wanted.tolist()
        refinement.give(answers[refinement.wanted].astype(np.float32))
    columns = np.full((*truth.shape, answers.shape[1]), np.nan, np.float32)
    columns[wanted] = refinement.columns()
    looked_at = np.zeros(truth.shape, bool)
    looked_at[wanted] = refinement.evaluated
    assert looked_at.sum() == len(seen)
    return columns, looked_at


def log_odds(p):
    return np.log(p) - np.log1p(-p)


def random_map(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.01, 0.99, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("per_view", "expected"), [(16, (4, 2)), (8, (2, 1)), (15, (2, 1)), (64, (16, 8)), (7, None), (1, None)]
)
def test_the_lattice_has_four_points_or_a_few_more_to_a_field_of_view(per_view, expected):
    found = Rule.suited(per_view, threshold=0.3, positive=0, classes=3)
    assert (found and (found.coarsest, found.finest)) == expected


def test_a_flat_map_is_looked_at_on_the_coarse_lattice_and_along_the_last_row_and_column():
    columns, looked_at = refine(np.full((64, 64), 0.9, np.float32), RULE)
    points = [*range(0, 64, 4), 63]
    expected = np.zeros((64, 64), bool)
    expected[np.ix_(points, points)] = True
    assert np.array_equal(looked_at, expected)
    np.testing.assert_allclose(columns[..., 1], 0.9, atol=1e-6)
    np.testing.assert_allclose(columns.sum(-1), 1, atol=1e-6)


def test_log_odds_that_are_bilinear_come_out_as_they_were():
    row, col = np.mgrid[:33, :40] / 40
    truth = 1 / (1 + np.exp(-(4 * row - 2 * col - 3 * row * col + 1)))
    columns, looked_at = refine(truth, rule(**LEAST))
    assert looked_at.mean() < 0.1
    np.testing.assert_allclose(columns[..., 1], truth, atol=1e-5)


def test_refined_to_the_end_it_is_the_full_map():
    truth = random_map((40, 23))
    columns, looked_at = refine(truth, rule(finest=1, margin=1e9))
    assert looked_at.all()
    assert np.array_equal(columns[..., 1], truth)


def test_squares_are_refined_where_their_corners_differ_and_nowhere_else():
    truth = np.full((33, 33), 0.02, np.float32)
    truth[:, 18:] = 0.98
    _, looked_at = refine(truth, rule(finest=1, margin=-1e9, tolerance=0.5))
    assert looked_at[:, 16:19].all()
    assert not looked_at[:, 19].any()
    others = np.delete(looked_at, np.s_[16:21], axis=1)
    assert np.array_equal(others, np.delete(refine(truth, rule(**LEAST))[1], np.s_[16:21], axis=1))


def test_squares_are_refined_where_they_come_near_the_threshold_and_nowhere_else():
    """Log-odds rise by 0.1 a row; a square of 4 cells strays by 0.8 * sqrt(4 / 16) = 0.4, that is 4 rows."""
    a_rule = rule(margin=0.8, tolerance=1.0)
    level = log_odds(0.25)
    truth = 1 / (1 + np.exp(-(level + 0.1 * (np.arange(97) - 48.5)[:, None] + np.zeros(9))))
    _, looked_at = refine(truth, a_rule)
    refined = looked_at[2::4].all(axis=1, where=np.arange(9) % 2 == 0)
    between = np.arange(2, 97, 4)
    # A square of rows a..a+4 is refined where a - 4 < 48.5 <= a + 4 + 4.
    assert between[refined].tolist() == [a + 2 for a in range(0, 96, 4) if a - 4 < 48.5 <= a + 8]


def test_the_far_side_of_the_threshold_is_refined_alike():
    truth = random_map((50, 50), 3)
    below, above = rule(threshold=0.3), rule(threshold=0.7)
    assert np.array_equal(refine(truth, below)[1], refine(1 - truth.astype(np.float64), above)[1])


def test_a_block_of_one_cell_is_looked_at():
    columns, looked_at = refine(np.array([[0.4]], np.float32), RULE)
    assert looked_at.all()
    assert columns[0, 0].tolist() == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (2, 2), (5, 3)])
def test_thin_blocks(shape):
    truth = random_map(shape)
    columns, looked_at = refine(truth, rule(finest=1, margin=1e9))
    assert looked_at.all()
    assert np.array_equal(columns[..., 1], truth)
    assert np.isfinite(refine(truth, RULE)[0]).all()


def test_a_missing_corner_is_stood_in_for_by_the_nearest_cell():
    wanted = np.ones((5, 5), bool)
    wanted[4, 3:] = wanted[3:, 4] = False
    truth = np.full((5, 5), 0.3)
    truth[3, 3] = 0.6
    columns, looked_at = refine(truth, rule(**LEAST), wanted=wanted)
    assert sorted(map(tuple, np.argwhere(looked_at))) == [(0, 0), (0, 4), (3, 3), (4, 0)]
    middle = 1 / (1 + np.exp(-(0.75 * log_odds(0.3) + 0.25 * log_odds(0.6))))
    assert columns[2, 2, 1] == pytest.approx(middle, abs=1e-5)
    assert np.isnan(columns[4, 4]).all()


def test_cells_that_cannot_be_read_are_never_asked_for_and_stay_nan():
    truth, readable = random_map((20, 20)), np.random.default_rng(1).random((20, 20)) < 0.6
    columns, looked_at = refine(truth, RULE, readable=readable)
    assert not looked_at[~readable].any()
    assert np.array_equal(np.isnan(columns[..., 1]), ~readable)
    columns, looked_at = refine(truth, RULE, readable=np.zeros((20, 20), bool))
    assert not looked_at.any()
    assert np.isnan(columns).all()


def test_a_spread_is_interpolated_and_more_classes_keep_their_proportions():
    truth, spread = np.full((9, 9), 0.9), np.linspace(0, 0.2, 9)[None] * np.ones((9, 1))
    columns, looked_at = refine(truth, rule(**LEAST), spread=spread)
    assert looked_at.sum() == 9
    np.testing.assert_allclose(columns[..., 2], spread, atol=1e-6)
    shares = np.array([0.2, 0.3, 0.5])
    block = block_of(np.ones((9, 9), bool))
    refinement = Refinement(block, np.ones(81, bool), 3, rule(classes=3, positive=2, **LEAST))
    refinement.give(np.tile(shares, (len(refinement.wanted), 1)).astype(np.float32))
    np.testing.assert_allclose(refinement.columns(), np.tile(shares, (81, 1)), atol=1e-6)


def test_probabilities_of_0_and_1_are_interpolated_too():
    truth = np.zeros((9, 9), np.float32)
    truth[:, 4:] = 1
    columns, _ = refine(truth, rule(**LEAST))
    assert np.isfinite(columns).all()
    assert (np.diff(columns[0, :, 1]) > -1e-5).all()


shapes = st.tuples(st.integers(1, 30), st.integers(1, 30))


@st.composite
def cases(draw):
    shape = draw(shapes)
    wanted = draw(arrays.arrays(bool, shape, elements=st.booleans(), fill=st.just(True)))
    wanted[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    readable = draw(arrays.arrays(bool, shape, elements=st.booleans(), fill=st.just(True)))
    coarsest = draw(st.sampled_from([2, 4, 8]))
    more = {
        "coarsest": coarsest,
        "finest": draw(st.sampled_from([side for side in (1, 2, 4, 8) if side <= coarsest])),
        "margin": draw(st.sampled_from([-1e9, 0.0, 0.8])),
        "tolerance": draw(st.sampled_from([0.1, 0.5, 1.0])),
    }
    return wanted, readable, rule(**more), draw(st.integers(0, 1000)), draw(shapes)


@settings(deadline=None, max_examples=150)
@given(cases())
def test_every_readable_cell_gets_a_probability_and_those_looked_at_keep_theirs(case):
    wanted, readable, a_rule, seed, corner = case
    truth = random_map(wanted.shape, seed)
    columns, looked_at = refine(truth, a_rule, wanted=wanted, readable=readable, corner=corner)
    there = wanted & readable
    assert not looked_at[~there].any()
    assert np.array_equal(np.isfinite(columns[..., 1]), there)
    assert np.array_equal(columns[looked_at][:, 1], truth[looked_at])
    if there.any():
        assert columns[there][:, 1].min() >= truth[looked_at].min() - 1e-6
        assert columns[there][:, 1].max() <= truth[looked_at].max() + 1e-6
    np.testing.assert_allclose(columns[there].sum(1), 1, atol=1e-5)
    again = refine(truth, a_rule, wanted=wanted, readable=readable)
    assert np.array_equal(again[0], columns, equal_nan=True)


@settings(deadline=None, max_examples=50)
@given(cases())
def test_a_stricter_rule_looks_at_more(case):
    wanted, readable, a_rule, seed, _ = case
    truth = random_map(wanted.shape, seed)
    stricter = rule(coarsest=a_rule.coarsest, finest=1, margin=0.8, tolerance=0.1)
    loose, strict = (refine(truth, one, wanted=wanted, readable=readable)[1] for one in (a_rule, stricter))
    assert (strict | ~loose).all()
