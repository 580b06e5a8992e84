"""How well the called cells of whole cases cover the labelled ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.evaluation.figures import rounded
from wsi_pipeline.scoring.bootstrap import Interval, intervals
from wsi_pipeline.scoring.overlap import OVERLAPS, overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Dice, sensitivity, specificity, PPV and NPV of called cells against labels."""

    per_case: Mapping[str, Mapping[str, float | None]]
    pooled: Mapping[str, float]
    """Of all cells of all cases together."""
    mean: Mapping[str, float]
    """Over the cases in which it is defined."""
    defined: Mapping[str, int]
    """In how many cases each is defined."""
    interval_95: Mapping[str, Mapping[str, Interval]]
    """Of `pooled` and `mean`, by bootstrap over cases."""

    def as_json(self) -> dict[str, Any]:
        """Null where not defined."""
        found: dict[str, Any] = {"per_case": self.per_case}
        for name, values in (("pooled", self.pooled), ("mean", self.mean)):
            found[name] = {
                **{key: rounded(values.get(key)) for key in OVERLAPS},
                "interval_95": {key: rounded(self.interval_95[name].get(key)) for key in OVERLAPS},
            }
        found["mean"]["cases"] = dict(self.defined)
        return found


def measure_overlaps(
    truth: NDArray[np.bool_],
    called: NDArray[np.bool_],
    cases: NDArray[np.str_],
    *,
    groups: NDArray[np.str_] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Overlaps:
    """How well called cells cover the labelled ones.

    Args:
        truth: [n], each patch is a cell.
        called: [n].
        cases: [n].
        groups: [n], what the bootstrap draws, where that is not cases but patients.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
    """
    names, first, case_of = np.unique(cases, return_index=True, return_inverse=True)
    groups = cases if groups is None else groups
    by_case = [overlap(truth[case_of == n], called[case_of == n]) for n in range(len(names))]
    table = np.array([[values.get(key, np.nan) for key in OVERLAPS] for values in by_case])

    def pooled(weights: NDArray[np.float64]) -> dict[str, float]:
        return overlap(truth, called, weights)

    def mean(weights: NDArray[np.float64]) -> dict[str, float]:
        defined = np.isfinite(table) * weights[:, None]
        total = defined.sum(axis=0)
        sums = (np.nan_to_num(table) * defined).sum(axis=0)
        return {key: float(sums[n] / total[n]) for n, key in enumerate(OVERLAPS) if total[n]}

    return Overlaps(
        per_case={
            str(name): {
                "cells": int((case_of == n).sum()),
                "positive_cells": int(truth[case_of == n].sum()),
                **{key: rounded(values.get(key)) for key in OVERLAPS},
            }
            for n, (name, values) in enumerate(zip(names, by_case, strict=True))
        },
        pooled=pooled(np.ones(len(truth))),
        mean=mean(np.ones(len(names))),
        defined=dict(zip(OVERLAPS, np.isfinite(table).sum(axis=0).tolist(), strict=True)),
        interval_95={
            "pooled": intervals(pooled, groups, draws=draws, seed=seed),
            "mean": intervals(mean, groups[first], draws=draws, seed=seed),
        },
    )
