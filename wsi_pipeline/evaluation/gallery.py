"""The patches to look at: those the model is surest about, rightly and wrongly."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.evaluation.result import Evaluation

MOST = 12
"""Patches in a group."""

MOST_OF_A_CASE = 2
"""Else one odd case would fill the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Patches of one kind, the surest first."""

    title: str
    rows: tuple[int, ...]
    """Places in the arrays of `Patches`."""
    total: int
    """How many there are of this kind."""


def groups(evaluation: Evaluation) -> list[Group]:
    """Wrong ones first. Of two classes, four kinds; of more, wrong and right."""
    labels, called = evaluation.patches.labels, evaluation.called
    if not evaluation.binary:
        sure = evaluation.patches.shipped[np.arange(len(called)), called]
        return [
            _group(evaluation, "Surest of those called wrongly", labels != called, -sure),
            _group(evaluation, "Surest of those called rightly", labels == called, -sure),
        ]
    probability, (other, name) = evaluation.patches.shipped[:, 1], evaluation.classes
    return [
        _group(
            evaluation, f"False alarms: labelled {other}, called {name}", (labels == 0) & (called == 1), -probability
        ),
        _group(evaluation, f"Missed: labelled {name}, called {other}", (labels == 1) & (called == 0), probability),
        _group(evaluation, f"Rightly called {name}", (labels == 1) & (called == 1), -probability),
        _group(evaluation, f"Rightly called {other}", (labels == 0) & (called == 0), probability),
    ]


def _group(evaluation: Evaluation, title: str, members: NDArray[np.bool_], rank: NDArray[np.float32]) -> Group:
    """The first by `rank`, few of each case."""
    rows = np.flatnonzero(members)
    taken, chosen = Counter[str](), list[int]()
    for row in rows[np.argsort(rank[rows], kind="stable")].tolist():
        case = str(evaluation.patches.cases[row])
        if taken[case] < MOST_OF_A_CASE:
            taken[case] += 1
            chosen.append(row)
        if len(chosen) == MOST:
            break
    return Group(title=title, rows=tuple(chosen), total=len(rows))
