"""Draws of groups into parts of wanted sizes, alike in their labels: the arithmetic below the splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset

MOST_TRIALS, FEWEST_TRIALS, WORK = 64, 8, 1_000_000
"""Draws that are compared: some for many groups, which are alike by chance, more for few."""

SWAPS_PER_GROUP, MOST_SWAPS = 20, 6_000
"""Swaps tried on the best of them."""

_EMPTY, _ONE_CLASS, _CLASS_MISSING = 1e6, 1e3, 1.0
"""What weighs against a draw, beside shares that are not as wanted; a class that a part lacks weighs as much as the
part is large, so that training lacks none if that can be."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """The groups of a data set and what is in them."""

    names: NDArray[np.str_]
    """[g], sorted."""
    number: NDArray[np.int64]
    """[n]: group of each sample, an index into `names`."""
    labels: NDArray[np.float64]
    """[g, classes that occur]: the share of all samples of the class that is in the group."""
    strata: NDArray[np.float64]
    """[g, strata]: the same for each stratum."""

    @classmethod
    def of(cls, dataset: PatchDataset) -> "Groups":
        """Count what the groups of a data set hold."""
        names, number = np.unique(dataset.groups, return_inverse=True)
        strata = np.array([sample.stratum for sample in dataset.samples], np.str_)
        return cls(
            names=names,
            number=number.astype(np.int64),
            labels=_shares(number, len(names), dataset.labels),
            strata=_shares(number, len(names), strata),
        )

    @property
    def kind(self) -> NDArray[np.int64]:
        """[g]: the class that is strongest in each group, measured by how much of all there is of it.

        In a set with few positive patches, groups with more of them than usual are of the positive kind.
        """
        return np.asarray(self.labels.argmax(axis=1), np.int64)


def _shares(number: NDArray[np.int64], groups: int, values: NDArray[np.generic]) -> NDArray[np.float64]:
    """[groups, distinct values]: share of all samples with the value that each group holds."""
    _, column = np.unique(values, return_inverse=True)
    columns = int(column.max()) + 1
    counts = np.bincount(number * columns + column, minlength=groups * columns).reshape(groups, columns)
    return np.asarray(counts / counts.sum(axis=0), np.float64)


def draw_groups(groups: Groups, fractions: Sequence[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Give each group a part, so that every part is a small picture of the whole.

    Of some random draws, each of them right in the number of groups of every kind, the one is taken whose parts come
    nearest to the wanted shares of groups, of samples of every class and of every stratum; then groups of two parts
    are swapped wherever that brings them nearer.

    Args:
        groups: What is drawn.
        fractions: Wanted share of each part; they add up to 1.
        rng: Of the draws.

    Returns:
        [g]: index into `fractions`.
    """
    wanted = np.asarray(fractions, np.float64)
    kinds = groups.kind
    trials = int(np.clip(WORK // len(kinds), FEWEST_TRIALS, MOST_TRIALS))
    draws = [deal(kinds, wanted, rng) for _ in range(trials)]
    best = min(draws, key=lambda draw: _unlikeness(groups, draw, wanted))
    swaps = min(SWAPS_PER_GROUP * len(kinds), MOST_SWAPS) if len(kinds) <= MOST_SWAPS else 0
    return _swapped(groups, best, wanted, rng.integers(0, len(kinds), (swaps, 2)))


def _swapped(
    groups: Groups, parts: NDArray[np.int64], wanted: NDArray[np.float64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`parts` after every swap of two groups, of those proposed in `pairs` [n, 2], that makes them more alike."""
    least = _unlikeness(groups, parts, wanted)
    for first, second in pairs:
        if parts[first] == parts[second]:
            continue
        other = parts.copy()
        other[first], other[second] = parts[second], parts[first]
        unlike = _unlikeness(groups, other, wanted)
        if unlike < least:
            parts, least = other, unlike
    return parts


def deal(kinds: NDArray[np.int64], fractions: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """[n]: a random part for each member, the wanted fraction of each kind up to less than one member."""
    parts = np.empty(len(kinds), np.int64)
    upper = np.cumsum(fractions)
    for kind in np.unique(kinds):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        # One random offset for all bounds: the expected number in each part is exactly the wanted one.
        bounds = np.floor(upper * len(members) + rng.random() + 1e-9).astype(np.int64)
        parts[members] = np.searchsorted(bounds[:-1], np.arange(len(members)), side="right")
    return parts


def _unlikeness(groups: Groups, parts: NDArray[np.int64], wanted: NDArray[np.float64]) -> float:
    """How far the parts of a draw are from what is wanted; 0 where every share is right."""
    used = np.flatnonzero(wanted > 0)
    numbers = np.bincount(parts, minlength=len(wanted))[used]
    families = (numbers[:, None] / len(parts), _sums(groups.labels, parts, used), _sums(groups.strata, parts, used))
    aim = wanted[used][:, None]
    unlike = sum(float(((family - aim) ** 2 / aim).mean(axis=1).sum()) for family in families)
    present = (families[1] > 0).sum(axis=1)
    unlike += _EMPTY * np.count_nonzero(numbers == 0) + _ONE_CLASS * np.count_nonzero(present < 2)
    return unlike + _CLASS_MISSING * float(((families[1].shape[1] - present) * aim[:, 0]).sum())


def _sums(shares: NDArray[np.float64], parts: NDArray[np.int64], used: NDArray[np.int64]) -> NDArray[np.float64]:
    """[parts in use, columns]: sum of the groups' shares in each part."""
    return np.stack([np.bincount(parts, column, used.max() + 1)[used] for column in shares.T], axis=1)
