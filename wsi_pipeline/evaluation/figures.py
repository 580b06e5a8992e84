"""The figures of one set of probabilities: overall with intervals, case by case, and how well calibrated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.scoring.bootstrap import LEANING, Interval, intervals
from wsi_pipeline.scoring.curves import Reliability, reliability
from wsi_pipeline.scoring.metrics import SCORES, Scorer, as_columns, call, confidence, confusion, log_loss, score

DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one set of probabilities."""

    scores: Mapping[str, float]
    """Metrics by name; those that are not defined on the data are missing."""
    interval_95: Mapping[str, Interval]
    """(low, high) by bootstrap over cases; missing where it cannot be given."""
    confusion: NDArray[np.int64]
    """[classes, classes]: rows are the labels, columns what was called."""

    def as_json(self) -> dict[str, Any]:
        """All metrics by name, null where not defined."""
        return {
            **filled(self.scores),
            "confusion": self.confusion.tolist(),
            "interval_95": {key: rounded(self.interval_95.get(key)) for key in SCORES},
        }


def figures(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    groups: NDArray[np.str_],
    threshold: float,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Figures:
    """Measure probabilities [n, classes], with 95 % intervals by bootstrap over groups: cases, or patients."""
    scorer = Scorer(labels, probabilities, threshold)
    return Figures(
        scores=scorer(),
        interval_95=intervals(scorer, groups, draws=draws, seed=seed, leaning=LEANING, progress="bootstrap"),
        confusion=confusion(labels, call(probabilities, threshold), probabilities.shape[1]),
    )


def figures_by_case(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    cases: NDArray[np.str_],
    threshold: float,
    positive: int,
) -> dict[str, dict[str, float | None]]:
    """The same metrics for each case by itself, in the order of their names."""
    order = np.argsort(cases, kind="stable")
    names, starts = np.unique(cases[order], return_index=True)
    found = {}
    for name, rows in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
        values = filled(score(labels[rows], probabilities[rows], threshold))
        found[name] = {
            "patches": len(rows),
            "positive_fraction": rounded(float((labels[rows] == positive).mean())),
            **values,
        }
    return found


def calibration_figures(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """ECE, Brier score, log loss and the bins of the reliability diagram."""
    values = score(labels, probabilities)
    bins = reliability_of(labels, probabilities)
    return {
        "ece": rounded(values["ece"]),
        "brier": rounded(values["brier"]),
        "log_loss": rounded(log_loss(labels, probabilities)),
        "reliability": {
            "predicted": [rounded(value) for value in bins.predicted.tolist()],
            "observed": [rounded(value) for value in bins.observed.tolist()],
            "patches": bins.count.tolist(),
        },
    }


def reliability_of(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Reliability:
    """Predicted against observed frequency: of class 1 of two, of more classes of the most probable one."""
    probability, came_true = confidence(labels, as_columns(probabilities))
    return reliability(came_true, probability)


def filled(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Every metric by name, None where it is not defined."""
    return {key: rounded(scores.get(key)) for key in SCORES}


def rounded(value: Any) -> Any:
    """A number, or the numbers of an interval, as they are written."""
    if value is None:
        return None
    return [rounded(one) for one in value] if isinstance(value, tuple | list) else round(float(value), DIGITS)
