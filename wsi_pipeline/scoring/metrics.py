"""How good probabilities are. Sorted once, then cheap to weigh anew: that is what makes a bootstrap fast."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.scoring.curves import bin_of

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]

HIGHER_IS_BETTER = (
    "auroc", "average_precision", "balanced_accuracy", "f1", "accuracy", "precision", "recall", "specificity",
    "negative_predictive_value",
)  # fmt: skip
LOWER_IS_BETTER = ("ece", "brier")
SCORES = HIGHER_IS_BETTER + LOWER_IS_BETTER
"""Every key that `score` may give."""


def score(
    labels: NDArray[np.integer], probabilities: Floats, threshold: float = 0.5, *, weights: Floats | None = None
) -> dict[str, float]:
    """Metrics of one set of patches; those that are not defined on it are left out.

    With two classes they are those of class 1 (`recall` its sensitivity, `specificity` the recall of class 0,
    `negative_predictive_value` the precision of class 0). With more, the most probable class is called, `precision`,
    `recall`, `specificity`, `f1`, `auroc` (one against the rest) and `average_precision` are means over the classes,
    and `ece` is that of the most probable class. Means over classes are those of scikit-learn: of `precision`,
    `recall` and `f1` over the classes that occur or are called, of the others over those that occur; there are none
    where the weights leave out all patches of a class.

    Args:
        labels: [n], classes from 0 on.
        probabilities: [n] of class 1, or [n, k] of each class.
        threshold: From which class 1 of two is called; it is compared in the precision of `probabilities`.
        weights: [n], how often each patch counts; None for once.

    Raises:
        DatasetError: where a label is none of the k classes.
    """
    return Scorer(labels, probabilities, threshold)(weights)


class Scorer:
    """`score` of one set of patches, ready to be asked again and again with other weights."""

    def __init__(self, labels: NDArray[np.integer], probabilities: Floats, threshold: float = 0.5) -> None:
        """Sort the patches; see `score` for the arguments."""
        self._probabilities = as_columns(probabilities)
        self._labels = labels.astype(np.int64)
        self._classes = self._probabilities.shape[1]
        check_labels(self._labels, self._classes)
        self._called = call(probabilities, threshold)
        self._binary = self._classes == 2
        self._present = np.bincount(self._labels, minlength=self._classes) > 0
        ranked = (1,) if self._binary else range(self._classes)
        self._rankings = {n: _Ranking.make(self._labels == n, self._probabilities[:, n]) for n in ranked}
        self._squares = squared_errors(self._labels, self._probabilities)
        self._confidence, self._right = confidence(self._labels, self._probabilities)
        self._bin_of = bin_of(self._confidence)

    def __call__(self, weights: Floats | None = None) -> dict[str, float]:
        """Metrics with each patch counted `weights` times; see `score`."""
        weights = np.ones(len(self._labels)) if weights is None else weights.astype(np.float64)
        total = weights.sum()
        if total == 0:
            return {}
        table = self._confusion(weights)
        occurs = table.sum(axis=1) > 0
        values = {
            "accuracy": float(np.trace(table) / total),
            "brier": float(weights @ self._squares / total),
            "ece": self._calibration_error(weights) / float(total),
        }
        if self._binary:
            values |= _of_two(table)
        elif (occurs == self._present).all():  # a mean over fewer classes would be another figure
            values |= _of_many(table)
        else:
            return values
        return values | self._ranked(weights, occurs)

    def _confusion(self, weights: Floats) -> NDArray[np.float64]:
        cells = np.bincount(self._labels * self._classes + self._called, weights, self._classes**2)
        return np.asarray(cells, np.float64).reshape(self._classes, self._classes)

    def _calibration_error(self, weights: Floats) -> float:
        return float(np.abs(np.bincount(self._bin_of, weights * (self._confidence - self._right))).sum())

    def _ranked(self, weights: Floats, occurs: NDArray[np.bool_]) -> dict[str, float]:
        if occurs.sum() < 2:
            return {}
        found = [ranking.areas(weights) for n, ranking in self._rankings.items() if occurs[n]]
        auroc, average_precision = np.mean(found, axis=0)
        return {"auroc": float(auroc), "average_precision": float(average_precision)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranking:
    """Patches by falling probability of one class."""

    order: NDArray[np.intp]
    positive: NDArray[np.float64]
    """[n] in that order: 1 where the patch is of the class."""
    ends: NDArray[np.intp]
    """Last place of each run of equal probabilities."""

    @classmethod
    def make(cls, positive: NDArray[np.bool_], probability: Floats) -> "_Ranking":
        order = np.argsort(-probability, kind="stable")
        ranked = probability[order]
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        return cls(order=order, positive=positive[order].astype(np.float64), ends=ends)

    def areas(self, weights: Floats) -> tuple[float, float]:
        """Area under the ROC curve (trapezoids), and average precision (steps)."""
        ranked = weights[self.order]
        above = np.cumsum(ranked)[self.ends]
        hits = np.cumsum(ranked * self.positive)[self.ends]
        misses = above - hits
        new_hits, new_misses = np.diff(hits, prepend=0), np.diff(misses, prepend=0)
        auroc = (new_misses @ (hits - new_hits / 2)) / (hits[-1] * misses[-1])
        precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
        return float(auroc), float(new_hits @ precision / hits[-1])


def _of_two(table: NDArray[np.float64]) -> dict[str, float]:
    """From [[true negative, false positive], [false negative, true positive]]."""
    (tn, fp), (fn, tp) = table
    values = {}
    if tn + fp:
        values["specificity"] = tn / (tn + fp)
    if tp + fn:
        values["recall"] = tp / (tp + fn)
    if len(values) == 2:
        values |= {
            "balanced_accuracy": (values["recall"] + values["specificity"]) / 2,
            "f1": 2 * tp / (2 * tp + fp + fn),
        }
        if tp + fp:
            values["precision"] = tp / (tp + fp)
        if tn + fn:
            values["negative_predictive_value"] = tn / (tn + fn)
    return {key: float(value) for key, value in values.items()}


def _of_many(table: NDArray[np.float64]) -> dict[str, float]:
    """Means over the classes."""
    hits, occurs, called, total = np.diag(table), table.sum(axis=1), table.sum(axis=0), table.sum()
    there, known = occurs > 0, (occurs > 0) | (called > 0)
    if there.sum() < 2:
        return {}
    recall = hits[there] / occurs[there]
    values = {
        "balanced_accuracy": recall.mean(),
        "recall": recall.sum() / known.sum(),
        "precision": (hits[known] / np.maximum(called[known], 1e-300)).mean(),
        "f1": (2 * hits[known] / (occurs + called)[known]).mean(),
        "specificity": (1 - ((called - hits) / (total - occurs))[there]).mean(),
    }
    return {key: float(value) for key, value in values.items()}


def as_columns(probabilities: Floats) -> Floats:
    """[n, k]: of [n] of class 1, both classes."""
    return probabilities if probabilities.ndim == 2 else np.stack([1 - probabilities, probabilities], axis=1)


def check_labels(labels: NDArray[np.integer], classes: int) -> None:
    """Refuse labels that are none of the classes.

    Raises:
        DatasetError: naming the label.
    """
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise DatasetError(
            "labels", f"label {labels[wrong][0]} is none of the classes 0 to {classes - 1}", "Check the class names."
        )


def call(probabilities: Floats, threshold: float = 0.5) -> Labels:
    """[n]: class 1 of two from the threshold on; of more classes the most probable."""
    if probabilities.ndim == 1 or probabilities.shape[1] == 2:
        positive = probabilities if probabilities.ndim == 1 else probabilities[:, 1]
        return (positive >= positive.dtype.type(threshold)).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def confusion(labels: NDArray[np.integer], called: Labels, classes: int) -> Labels:
    """[classes, classes] counts: rows are the labels, columns what was called."""
    cells = np.bincount(labels.astype(np.int64) * classes + called, minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.int64)


def class_scores(table: Labels) -> list[dict[str, float | None]]:
    """Precision, recall and F1 of each class of a confusion matrix, and how often it occurs; None where undefined.

    With patches of one class only, none that is called can be wrong, so precision and F1 would say nothing.
    """
    hits, occurs, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    several = np.count_nonzero(occurs) > 1
    return [
        {
            "precision": float(hit / says) if says and several else None,
            "recall": float(hit / there) if there else None,
            "f1": float(2 * hit / (there + says)) if there and several else None,
            "patches": int(there),
        }
        for hit, there, says in zip(hits, occurs, called, strict=True)
    ]


def confidence(labels: Labels, probabilities: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What calibration is about, [n] each: a probability, and whether what it is of came true (0 or 1).

    Of two classes that is class 1; of more, the most probable (Guo et al., ICML 2017).
    """
    columns = as_columns(probabilities)
    if columns.shape[1] == 2:
        return columns[:, 1].astype(np.float64), (labels == 1).astype(np.float64)
    top = columns.argmax(axis=1)
    return columns[np.arange(len(top)), top].astype(np.float64), (labels == top).astype(np.float64)


def squared_errors(labels: Labels, probabilities: Floats) -> NDArray[np.float64]:
    """[n]: what the Brier score is the mean of: of two classes that of class 1, of more the sum over the classes."""
    columns = as_columns(probabilities).astype(np.float64)
    if columns.shape[1] == 2:
        return np.asarray(np.square(columns[:, 1] - labels))
    return np.asarray(np.square(columns - np.eye(columns.shape[1])[labels]).sum(axis=1))


def log_loss(labels: NDArray[np.integer], probabilities: Floats) -> float:
    """Mean negative log-likelihood; probabilities are taken as at least 1e-7 (float32 rounds to 0)."""
    columns = as_columns(probabilities).astype(np.float64)
    return float(-np.log(np.clip(columns[np.arange(len(labels)), labels], 1e-7, 1)).mean())


def expected_calibration_error(labels: NDArray[np.integer], probabilities: Floats, bins: int = 15) -> float:
    """ECE over bins of equal width (Naeini et al., AAAI 2015): of class 1 of two, of more the most probable class."""
    sure, right = confidence(labels.astype(np.int64), probabilities)
    return float(np.abs(np.bincount(bin_of(sure, bins), sure - right)).sum() / len(sure))
