"""How good probabilities are, with intervals by bootstrap over cases. Metrics themselves are scikit-learn's."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def expected_calibration_error(labels: Labels, probability: Floats, bins: int = 15) -> float:
    """ECE of the positive class's probability over bins of equal width (Naeini et al., AAAI 2015)."""
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [
        abs(probability[bin_of == n].mean() - labels[bin_of == n].mean()) * (bin_of == n).mean()
        for n in np.unique(bin_of)
    ]
    return float(sum(gaps))


def score(labels: Labels, probability: Floats, threshold: float) -> dict[str, float]:
    """Metrics of one set of patches; those that need both classes are left out where only one occurs.

    Args:
        labels: [n], 0 or 1.
        probability: [n], of class 1.
        threshold: From which a patch is called positive.
    """
    from sklearn import metrics as sk

    called = (probability >= threshold).astype(np.int64)
    positive, negative = labels == 1, labels == 0
    values = {
        "accuracy": float((called == labels).mean()),
        "brier": float(np.mean((probability - labels) ** 2)),
        "ece": expected_calibration_error(labels, probability),
    }
    if positive.any() and negative.any():
        sensitivity, specificity = float(called[positive].mean()), float(1 - called[negative].mean())
        values |= {
            "auroc": float(sk.roc_auc_score(labels, probability)),
            "average_precision": float(sk.average_precision_score(labels, probability)),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "f1": float(sk.f1_score(labels, called, zero_division=0.0)),
            "precision": float(sk.precision_score(labels, called, zero_division=0.0)),
            "recall": sensitivity,
            "specificity": specificity,
        }
    return values


def bootstrap_over_cases(
    labels: Labels,
    probability: Floats,
    cases: NDArray[np.str_],
    measure: Callable[[Labels, Floats], Mapping[str, float]],
    *,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals, drawing whole cases with replacement (patches of a case are not independent).

    Returns:
        (low, high) for each key that `measure` gives in every draw.
    """
    rows_of = [np.flatnonzero(cases == case) for case in np.unique(cases)]
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        rows = np.concatenate([rows_of[n] for n in rng.integers(0, len(rows_of), len(rows_of))])
        for key, value in measure(labels[rows], probability[rows]).items():
            found.setdefault(key, []).append(value)
    return {
        key: (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)))
        for key, values in found.items()
        if len(values) == draws
    }


def best_threshold(labels: Labels, probability: Floats) -> float:
    """The threshold with the highest balanced accuracy (Youden's J), rounded to 0.01."""
    candidates = np.arange(0.02, 0.99, 0.01)
    positive, negative = np.sort(probability[labels == 1]), np.sort(probability[labels == 0])
    recall = 1 - np.searchsorted(positive, candidates) / len(positive)
    specificity = np.searchsorted(negative, candidates) / len(negative)
    return float(np.round(candidates[np.argmax(recall + specificity)], 2))


def fit_calibration(logits: Floats, labels: Labels) -> tuple[float, float]:
    """Platt scaling of a two-class network: temperature and shift that minimise the negative log-likelihood.

    The calibrated probability of class 1 is ``sigmoid(margin / temperature + shift)``, margin = logit 1 - logit 0.
    The shift undoes class weights, which a temperature alone (Guo et al., ICML 2017) cannot. Platt 1999.

    Args:
        logits: [n, 2].
        labels: [n], 0 or 1.
    """
    from scipy.optimize import minimize

    margin, sign = logits[:, 1] - logits[:, 0], 2 * labels - 1

    def loss(parameters: Floats) -> float:
        log_temperature, shift = parameters
        return float(np.logaddexp(0, -sign * (margin / np.exp(log_temperature) + shift)).mean())

    log_temperature, shift = minimize(loss, np.zeros(2), bounds=[(-2, 2), (-5, 5)]).x
    return float(np.exp(log_temperature)), float(shift)
