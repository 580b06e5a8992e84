"""The choice of patches is fair between classes and cases, and repeatable."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.explanation.choose import certainty, choose, rank

RNG = np.random.default_rng


@st.composite
def patches(draw):
    count = draw(st.integers(1, 60))
    rng = RNG(draw(st.integers(0, 10**6)))
    labels, groups = rng.integers(0, draw(st.integers(1, 4)), count), rng.integers(0, 7, count).astype(str)
    priority = rng.permutation(count).astype(float)
    priority[rng.random(count) < draw(st.sampled_from([0.0, 0.5]))] = np.nan
    return labels.astype(np.int64), groups, priority


@settings(deadline=None, max_examples=40)
@given(patches(), st.integers(1, 40))
def test_classes_share_and_cases_take_turns(sample, count):
    labels, groups, priority = sample
    chosen = choose(labels, groups, priority, count)
    usable = np.flatnonzero(~np.isnan(priority))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(usable))
    assert set(chosen.tolist()) <= set(usable.tolist())
    there, taken = Counter(labels[usable].tolist()), Counter(labels[chosen].tolist())
    most = max(taken.values(), default=0)
    # A class may have fewer than another only where it has no more to give, or by one where the places are odd.
    assert all(taken[label] >= min(there[label], most - 1) for label in there)
    for label in taken:
        have = Counter(groups[usable[labels[usable] == label]].tolist())
        got = Counter(groups[chosen[labels[chosen] == label]].tolist())
        turns = max(got.values())
        assert all(got[case] >= min(have[case], turns - 1) for case in have)


def test_low_priority_comes_first_within_a_case_and_between_cases():
    labels, groups = np.zeros(5, np.int64), np.array(["a", "a", "b", "b", "c"])
    priority = np.array([5.0, 1.0, 4.0, 3.0, 2.0])
    assert choose(labels, groups, priority, 2).tolist() == [1, 4]
    assert choose(labels, groups, priority, 4).tolist() == [1, 4, 3, 2]


def test_nothing_to_choose():
    assert not len(choose(np.zeros(3, np.int64), np.array(["a"] * 3), np.full(3, np.nan), 4))


@pytest.mark.parametrize(("pick", "expected"), [("right", [True, False, True]), ("wrong", [False, True, False])])
def test_right_and_wrong_are_what_they_say(pick, expected):
    priority = rank(pick, np.array([True, False, True]), np.zeros(3), RNG(0))
    assert (~np.isnan(priority)).tolist() == expected


def test_mixed_is_a_shuffle_of_all_and_uncertain_the_least_certain():
    assert sorted(rank("mixed", np.ones(9, bool), np.zeros(9), RNG(4)).tolist()) == list(range(9))
    certain = np.array([0.3, 0.1, 0.2])
    assert rank("uncertain", np.ones(3, bool), certain, RNG(0)).tolist() == certain.tolist()


def test_certainty_of_two_classes_is_the_distance_to_the_threshold():
    p = np.array([0.3, 0.2, 0.9, 0.999, 1.0, 0.0], np.float32)
    found = certainty(np.stack([1 - p, p], axis=1), 0.3)
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] == pytest.approx(np.log(0.3 / 0.7) - np.log(0.2 / 0.8), rel=1e-5)
    assert np.isfinite(found).all()
    assert found.argsort().tolist()[:4] == [0, 1, 2, 3]


def test_certainty_of_many_classes_is_the_lead_of_the_first():
    p = np.array([[0.5, 0.4, 0.1], [0.98, 0.01, 0.01]], np.float32)
    np.testing.assert_allclose(certainty(p, 0.5), np.log([0.5 / 0.4, 98.0]), rtol=1e-4)
