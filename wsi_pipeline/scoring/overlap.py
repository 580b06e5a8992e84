"""How well a map of called cells covers the labels."""

import numpy as np
from numpy.typing import NDArray

OVERLAPS = ("dice", "sensitivity", "specificity", "ppv", "npv")
"""Every key that `overlap` may give."""


def overlap(
    truth: NDArray[np.bool_], called: NDArray[np.bool_], weights: NDArray[np.floating] | None = None
) -> dict[str, float]:
    """Dice, sensitivity, specificity, positive and negative predictive value; those without a denominator are left out.

    Args:
        truth: Cells labelled positive, of any shape.
        called: Cells called positive, of the same shape.
        weights: How often each cell counts; None for once.
    """
    weights = np.ones(truth.shape) if weights is None else weights
    tp, fp = float(weights[truth & called].sum()), float(weights[~truth & called].sum())
    fn, tn = float(weights[truth & ~called].sum()), float(weights[~truth & ~called].sum())
    parts = {
        "dice": (2 * tp, 2 * tp + fp + fn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
    }
    return {key: part / whole for key, (part, whole) in parts.items() if whole}
