"""Cases put together again: the probability map beside the labels, and how well the one covers the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.evaluation.figures import rounded
from wsi_pipeline.scoring.bootstrap import Interval, intervals
from wsi_pipeline.scoring.overlap import OVERLAPS, overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMap:
    """One case on the grid of its patches: the map that a run with native cells gives."""

    case: str
    rows: NDArray[np.int64]
    """[n]: its patches, as places in the arrays it was made from."""
    cells: tuple[NDArray[np.int64], NDArray[np.int64]]
    """(row, col) of each of them."""
    labels: NDArray[np.int8]
    """[rows, cols]: 1 positive, 0 not, -1 no patch."""
    probability: NDArray[np.float32]
    """[rows, cols] of the positive class, NaN where there is no patch."""


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


def case_maps(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float32],
    positions: NDArray[np.int64],
    cases: NDArray[np.str_],
    patch_px: int,
) -> Iterator[CaseMap]:
    """Put cases together.

    Args:
        truth: [n], whether a patch is labelled positive.
        probability: [n], of the positive class.
        positions: [n, 2], (x, y) of its top-left pixel in its case's image.
        cases: [n].
        patch_px: Side of a patch.
    """
    order = np.argsort(cases, kind="stable")
    names, starts = np.unique(cases[order], return_index=True)
    for name, rows in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
        at = positions[rows] // patch_px
        at = at - at.min(axis=0)
        shape = at[:, 1].max() + 1, at[:, 0].max() + 1
        labels, values = np.full(shape, -1, np.int8), np.full(shape, np.nan, np.float32)
        labels[at[:, 1], at[:, 0]] = truth[rows]
        values[at[:, 1], at[:, 0]] = probability[rows]
        yield CaseMap(case=name, rows=rows, cells=(at[:, 1], at[:, 0]), labels=labels, probability=values)


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
