"""From logits to probabilities that mean what they say, and the threshold from which a patch is called."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import ThresholdAim
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.scoring.metrics import check_labels

Floats = NDArray[np.float64]
Probabilities = NDArray[np.float32]
Rows = NDArray[np.intp]

Refit = Callable[[Probabilities, Rows, Probabilities, Rows], Probabilities]
"""Fits a second stage on some rows and refines others with it.

Takes the calibrated probabilities [n, classes] of the rows to fit on, those rows, and the same of the rows to refine;
gives the refined rows' probability of the positive class, [n]."""

AIMS: dict[ThresholdAim, str] = {
    "balanced_accuracy": "highest balanced accuracy",
    "equal_recall": "equal recall of both classes",
}
"""What thresholds are chosen for, in words."""

SPREAD = (1.0, 3.0)
"""Standard deviations of the normal priors of log temperature (around 0) and of the biases (around 0)."""

TOO_COARSE = 0.04
"""Recall plus specificity, or difference of the two, that steps of 0.01 may cost before finer ones are taken."""

BOUNDS = (-4.0, 4.0), (-10.0, 10.0)
"""Of log temperature and of the biases: only reached where logits are absurd."""


def calibrate(
    logits: NDArray[np.floating], temperature: float = 1.0, bias: tuple[float, ...] | None = None
) -> NDArray[np.float32]:
    """Calibrated probabilities [n, k]: softmax(logits / temperature + bias)."""
    z = logits.astype(np.float64) / temperature + (0.0 if bias is None else np.asarray(bias))
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(z / z.sum(axis=1, keepdims=True), np.float32)


def fit_calibration(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> tuple[float, tuple[float, ...]]:
    """Temperature and a bias per class that minimise the negative log-likelihood on data that did not train.

    The calibrated probabilities are ``softmax(logits / temperature + bias)``; the bias of class 0 is 0, where all
    classes occur. With two classes this is Platt scaling (Platt 1999); with biases of 0 it would be temperature scaling
    (Guo et al., ICML 2017), which cannot undo class weights. Weak normal priors keep both near (1, 0) where the data
    say little: few patches, or logits that separate the classes without a fault.

    A class that does not occur says nothing of its bias, which is 0: the others are fitted among themselves, and
    shifted together so that the mean log-odds between them and those that do not occur stay the network's. Where only
    one occurs, nothing can be fitted and (1, zeros) comes back.

    Args:
        logits: [n, k], of the network as it is.
        labels: [n], classes from 0 on.

    Returns:
        The temperature, and k biases.

    Raises:
        DatasetError: where a label is none of the k classes, or logits are not finite.
    """
    from scipy.optimize import minimize

    classes = logits.shape[1]
    check_labels(labels, classes)
    if not np.isfinite(logits).all():
        raise DatasetError("calibration", "the network's outputs are not finite", "The training has failed.")
    there, number = np.unique(labels, return_inverse=True)
    if len(there) < 2:
        return 1.0, (0.0,) * classes
    z, truth = logits[:, there].astype(np.float64), np.eye(len(there))[number]
    bounds = [BOUNDS[0], *[BOUNDS[1]] * (len(there) - 1)]
    start = np.zeros(len(there))
    found = minimize(_loss, start, args=(z, truth), jac=True, method="L-BFGS-B", bounds=bounds).x
    bias = np.zeros(classes)
    bias[there[1:]] = found[1:]
    temperature = float(np.exp(found[0]))
    if len(there) < classes:
        bias[there] += _log_odds(logits, there).mean() - _log_odds(logits / temperature + bias, there).mean()
    return temperature, tuple(bias.tolist())


def _log_odds(logits: NDArray[np.floating], classes: NDArray[np.integer]) -> Floats:
    """[n]: between some classes together and the others together."""
    from scipy.special import logsumexp

    odds: Floats = logsumexp(logits[:, classes], axis=1) - logsumexp(np.delete(logits, classes, axis=1), axis=1)
    return odds


def _loss(parameters: Floats, logits: Floats, truth: Floats) -> tuple[float, Floats]:
    """Mean of the negative log-posterior, and its gradient by log temperature and the biases but the first."""
    count = len(logits)
    scaled = logits / np.exp(parameters[0])
    z = scaled.copy()
    z[:, 1:] += parameters[1:]
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    excess = np.exp(log_p) - truth
    spread = np.array([SPREAD[0], *[SPREAD[1]] * (len(parameters) - 1)])
    value = -(truth * log_p).sum() + 0.5 * np.square(parameters / spread).sum()
    gradient = np.append(-(excess * scaled).sum(), excess[:, 1:].sum(axis=0)) + parameters / spread**2
    return float(value / count), gradient / count


def cross_fit(
    logits: NDArray[np.float32], labels: NDArray[np.integer], fold: NDArray[np.integer], refit: Refit
) -> tuple[Probabilities, Probabilities]:
    """Calibrate and refine each fold by what was fitted on the other folds.

    Args:
        logits: [n, classes], each of a network that did not see the row's case.
        labels: [n], classes from 0 on.
        fold: [n], in which fold each row was held out.
        refit: The second stage.

    Returns:
        Calibrated probabilities [n, classes], and refined ones of the positive class [n].

    Raises:
        DatasetError: as `fit_calibration`.
    """
    first, final = np.empty_like(logits), np.empty(len(labels), np.float32)
    for number in np.unique(fold):
        others, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        calibration = fit_calibration(logits[others], labels[others])
        first[held_out] = calibrate(logits[held_out], *calibration)
        final[held_out] = refit(calibrate(logits[others], *calibration), others, first[held_out], held_out)
    return first, final


def best_threshold(
    labels: NDArray[np.integer], probability: NDArray[np.floating], aim: ThresholdAim = "balanced_accuracy"
) -> float:
    """The threshold with the highest balanced accuracy (Youden's J) or the most equal recalls, of 0.01, 0.02 … 0.99.

    Where several are equally good, the middle of them, which is the safest on other data. Where probabilities lie so
    close together that these are too coarse, of the places halfway between them.

    Args:
        labels: [n], 0 or 1.
        probability: [n], of class 1.
        aim: What it is chosen for.

    Raises:
        DatasetError: where only one class occurs.
    """
    positive, negative = (np.sort(probability[labels == n].astype(np.float64)) for n in (1, 0))
    if not len(positive) or not len(negative):
        raise DatasetError("threshold", "cannot be chosen where only one class occurs", "Give patches of both classes.")
    (value, gain), (finer, finer_gain) = (
        _best_of(candidates, positive, negative, aim) for candidates in (np.arange(1, 100) / 100, _between(probability))
    )
    return finer if finer_gain > gain + TOO_COARSE else value


def _best_of(candidates: Floats, positive: Floats, negative: Floats, aim: ThresholdAim) -> tuple[float, float]:
    """The best of some thresholds, the middle one of equals, and how good it is."""
    recall = 1 - np.searchsorted(positive, candidates) / len(positive)
    specificity = np.searchsorted(negative, candidates) / len(negative)
    gain = recall + specificity if aim == "balanced_accuracy" else -np.abs(recall - specificity)
    best = np.flatnonzero(np.isclose(gain, gain.max(), rtol=0, atol=1e-12))
    return float(candidates[best[(len(best) - 1) // 2]]), float(gain.max())


def _between(probability: NDArray[np.floating]) -> Floats:
    """Halfway between neighbouring probabilities, and below the lowest."""
    values = np.unique(probability.astype(np.float64))
    return np.append((values[1:] + values[:-1]) / 2, values[0] / 2)
