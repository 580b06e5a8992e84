"""What the second stage does to lesions of different sizes: recall of their patches, in whole cases.

    python -m benchmarks.lesion_size --data DATA --logits BUNDLE.training/out_of_fold.npz

A lesion is a set of positive patches that touch, corners included. Calibration and second stage of each fold were
fitted on the other folds; each map has its own threshold, the best for balanced accuracy over all patches.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import label

from benchmarks.context_stage import Folds
from wsi_pipeline.datasets import open_dataset
from wsi_pipeline.scoring.calibration import best_threshold

WHOLE_CASE = 100
"""Cases with more patches than this are there whole."""

SIZES = (1, 10, 30, 100)
"""Lower ends of the classes of size, in patches of 0.04 mm²."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the labelled patches that were cross-validated")
    parser.add_argument("--logits", type=Path, required=True, help="out_of_fold.npz of the cross-validation")
    args = parser.parse_args()
    dataset = open_dataset(args.data)
    folds = Folds(dataset, args.logits)
    every, labels, groups = np.arange(len(dataset)), folds.labels, folds.groups
    size = np.zeros(len(dataset), np.int64)
    names, counts = np.unique(groups, return_counts=True)
    whole = np.isin(groups, names[counts > WHOLE_CASE])
    for case in names[counts > WHOLE_CASE]:
        rows = np.flatnonzero(groups == case)
        col, row = (folds.positions[rows] // folds.side).T
        positive = np.zeros((row.max() + 1, col.max() + 1), bool)
        positive[row, col] = labels[rows] == 1
        lesion = label(positive, np.ones((3, 3)))[0][row, col]
        size[rows] = np.where(lesion > 0, np.bincount(lesion)[lesion], 0)
    for title, variant in {"each patch by itself": None, "with the second stage": {}}.items():
        final = folds.probability(every, variant)
        called = final >= best_threshold(labels, final)
        print(f"{title}: specificity {1 - called[whole & (labels == 0)].mean():.3f}")
        for low, high in zip(SIZES, (*SIZES[1:], np.inf), strict=True):
            of_size = whole & (size >= low) & (size < high)
            recall = f"recall {called[of_size].mean():.3f}" if of_size.any() else "none"
            print(f"  lesions of {low * 0.04:.2g} mm² or more, {of_size.sum():,} patches: {recall}")


if __name__ == "__main__":
    main()
