"""Intervals by bootstrap over cases: patches of a case are not independent, cases are."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.scoring.metrics import Scorer

Interval = tuple[float, float]

MIN_DEFINED = 0.95
"""Part of the draws in which a measure must be defined for an interval to be given."""

LEANING = ("ece",)
"""Figures that chance makes larger, being sums of absolute differences: a draw has more of it than the cases that it is
drawn from, and these more than the cases that they stand for. Their interval is the basic one."""


def bootstrap_over_cases(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    cases: NDArray[np.str_],
    threshold: float = 0.5,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % interval of each metric of `scoring.metrics.score`, drawing whole cases with replacement.

    Args:
        labels: [n], classes from 0 on.
        probabilities: [n] of class 1, or [n, k].
        cases: [n], case of each patch.
        threshold: From which class 1 of two is called.
        draws: How often the cases are drawn.
        seed: Of the draws.

    Returns:
        (low, high) by metric; see `intervals` for those left out.
    """
    return intervals(Scorer(labels, probabilities, threshold), cases, draws=draws, seed=seed, leaning=LEANING)


def intervals(
    measure: Callable[[NDArray[np.float64]], Mapping[str, float]],
    cases: NDArray[np.str_],
    *,
    draws: int = 1000,
    seed: int = 0,
    leaning: Collection[str] = (),
    progress: str | None = None,
) -> dict[str, Interval]:
    """95 % percentile intervals of anything that can be measured with weights (Efron & Tibshirani 1993).

    Those of leaning figures are basic intervals (Davison & Hinkley 1997): what the draws add is taken off at both ends,
    down to 0 at most. Such a figure leans as its draws do, so that it may lie above its interval.

    Args:
        measure: Takes float64 weights [n], how often each item counts, and gives its figures by name.
        cases: [n], case of each item.
        draws: How often as many cases as there are get drawn, with replacement.
        seed: Of the draws.
        leaning: Names of figures, never below 0, that chance makes larger.
        progress: Text of a progress bar; None for none.

    Returns:
        (low, high) by name. A figure that is not defined in 5 % of the draws or more (no positive case drawn, say)
        has none; with a single case there are none at all, as nothing is known of how cases differ.
    """
    from tqdm import tqdm

    _, case_of = np.unique(cases, return_inverse=True)
    count = int(case_of.max()) + 1 if len(case_of) else 0
    if count < 2:
        return {}
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in tqdm(range(draws), desc=progress, unit="draw", leave=False, disable=None if progress else True):
        times = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        for key, value in measure(times[case_of]).items():
            found.setdefault(key, []).append(value)
    ends = {
        key: (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)))
        for key, values in found.items()
        if len(values) > MIN_DEFINED * draws
    }
    figures = measure(np.ones(len(case_of))) if leaning else {}
    return ends | {key: _basic(figures[key], ends[key]) for key in leaning if key in ends}


def _basic(figure: float, ends: Interval) -> Interval:
    low, high = (max(0.0, 2 * figure - end) for end in reversed(ends))
    return low, high
