"""Curves over the threshold, and how probabilities compare with what came true. Arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points of a curve, from the highest threshold to the lowest."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    threshold: NDArray[np.float64]
    """Probability from which a patch is called, for each point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Bins of equal width that hold at least one patch."""

    predicted: NDArray[np.float64]
    """[bins]: mean probability."""
    observed: NDArray[np.float64]
    """[bins]: how often it came true."""
    count: NDArray[np.int64]
    """[bins]: patches."""


def bin_of(probability: NDArray[np.floating], bins: int = BINS) -> NDArray[np.int64]:
    """[n]: bin of each probability; the last one takes 1.0."""
    return np.minimum((probability.astype(np.float64) * bins).astype(np.int64), bins - 1)


def reliability(came_true: NDArray[np.floating], probability: NDArray[np.floating], bins: int = BINS) -> Reliability:
    """Predicted against observed frequency.

    Args:
        came_true: [n], 0 or 1.
        probability: [n], that it would.
        bins: Number of bins of equal width over 0..1.
    """
    places = bin_of(probability, bins)
    count = np.bincount(places, minlength=bins)
    filled = count > 0
    predicted = np.bincount(places, probability, bins)[filled] / count[filled]
    observed = np.bincount(places, came_true, bins)[filled] / count[filled]
    return Reliability(predicted=predicted, observed=observed, count=count[filled])


def roc(positive: NDArray[np.bool_], probability: NDArray[np.floating]) -> Curve:
    """1 - specificity (x) and sensitivity (y), from (0, 0) to (1, 1). Both classes must occur."""
    hits, misses, threshold = _counts(positive, probability)
    x, y = np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1])
    return Curve(x=x, y=y, threshold=np.append(np.inf, threshold))


def precision_recall(positive: NDArray[np.bool_], probability: NDArray[np.floating]) -> Curve:
    """Recall (x) and precision (y); to be drawn as steps that reach back from each point. Positives must occur."""
    hits, misses, threshold = _counts(positive, probability)
    return Curve(x=hits / hits[-1], y=hits / (hits + misses), threshold=threshold)


def thin(curve: Curve, points: int = 600) -> Curve:
    """The same curve with about so many points, evenly along its length: more is not seen."""
    if len(curve.x) <= points:
        return curve
    length = np.append(0, np.cumsum(np.hypot(np.diff(curve.x), np.diff(curve.y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)))
    kept = np.union1d(kept, [0, len(curve.x) - 1])
    return Curve(x=curve.x[kept], y=curve.y[kept], threshold=curve.threshold[kept])


def _counts(
    positive: NDArray[np.bool_], probability: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Positives and negatives called at each distinct probability, falling."""
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(positive[order])[ends].astype(np.float64)
    return hits, ends + 1 - hits, ranked[ends].astype(np.float64)
