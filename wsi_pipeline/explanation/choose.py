"""Which patches to explain: a fair and repeatable choice. Pure."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pick = Literal["mixed", "right", "wrong", "uncertain"]


def choose(
    labels: NDArray[np.int64], groups: NDArray[np.str_], priority: NDArray[np.floating], count: int
) -> NDArray[np.int64]:
    """Indices of `count` patches, the same number of each class and as many cases as there are.

    Within a class each case gives its first patch before any gives its second. Where a class has too few, the others
    fill up. Where there are more cases than places, those with the first patches by `priority` are taken.

    Args:
        labels: [n].
        groups: [n], the case of each patch.
        priority: [n]: low ones first; NaN is not to be taken.
        count: How many; all where there are fewer.

    Returns:
        int64 [<= count], by class, then in the order of choice.
    """
    usable = np.flatnonzero(~np.isnan(priority))
    queues = {
        int(label): _in_turn(usable[labels[usable] == label], groups, priority) for label in np.unique(labels[usable])
    }
    room, sizes = min(count, len(usable)), dict.fromkeys(queues, 0)
    while sum(sizes.values()) < room:
        open_classes = [label for label in queues if sizes[label] < len(queues[label])]
        sizes[min(open_classes, key=lambda label: sizes[label])] += 1
    chosen = [queues[label][:size] for label, size in sizes.items()]
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)


def _in_turn(members: NDArray[np.int64], groups: NDArray[np.str_], priority: NDArray[np.floating]) -> NDArray[np.int64]:
    """`members`, the first of every case, then the second of every case, and so on."""
    order = members[np.lexsort((priority[members], groups[members]))]
    case = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], case[1:] != case[:-1]])) if len(order) else order
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    ranked: NDArray[np.int64] = order[np.lexsort((priority[order], turn))]
    return ranked


def rank(
    pick: Pick, right: NDArray[np.bool_], certain: NDArray[np.floating], rng: np.random.Generator
) -> NDArray[np.float64]:
    """`priority` for `choose`: a random order, or the least certain first; NaN for what was not asked for.

    Args:
        pick: ``mixed`` for any, ``right`` and ``wrong`` for what is called so, ``uncertain`` for the least certain.
        right: [n]: whether the call agrees with the label.
        certain: [n]: low where the call could as well have been another.
        rng: Of the random order.
    """
    if pick == "uncertain":
        return certain.astype(np.float64)
    order = rng.permutation(len(right)).astype(np.float64)
    if pick == "mixed":
        return order
    return np.where(right == (pick == "right"), order, np.nan)


def certainty(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    """[n]: how far a call is from tipping over, in log-odds.

    Of two classes it is the distance of the second one from its threshold; of more, the lead of the first over the
    next, in logarithms of their probabilities.

    Args:
        probabilities: [n, classes]; of two classes, the positive one is the second.
        threshold: Of the positive class; for two classes only.
    """
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    if p.shape[1] == 2:
        at = np.clip(threshold, 1e-7, 1 - 1e-7)
        odds = np.log(p[:, 1]) - np.log1p(-p[:, 1])
        return np.asarray(np.abs(odds - (np.log(at) - np.log1p(-at))))
    ranked = np.sort(np.log(p), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])
