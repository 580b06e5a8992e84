"""What the second stage is worth, in variants, cross-validated by case on out-of-fold logits.

After ``wsi-pipeline train RECIPE --data DATA --out BUNDLE --folds K``:

    python -m benchmarks.context_stage --data DATA --logits BUNDLE.training/out_of_fold.npz --json F

Whole cases are also thinned to as many patches as a sample of a case has, because the stage hears less where patches
are sparse, and cut into squares, each a small specimen of its own that hears nothing of the others. Each fold is
refined by a stage that was fitted on the other folds.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from wsi_pipeline.context import SIGMAS, fit_context, refine_points
from wsi_pipeline.datasets import open_dataset
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.out_of_fold import OutOfFold
from wsi_pipeline.files import write_json
from wsi_pipeline.scoring.calibration import Probabilities, Rows, best_threshold, cross_fit
from wsi_pipeline.scoring.metrics import score

VARIANTS: dict[str, dict[str, object]] = {
    "as shipped": {},
    "next patches only": {"sigmas": (1.0,)},
    "far only": {"sigmas": (9.0, 27.0)},
    "sigmas 1 2 4": {"sigmas": (1.0, 2.0, 4.0)},
    "sigmas 1 2 4 8 16 32": {"sigmas": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
    "sigmas 0.7 1.5 3 6 12": {"sigmas": (0.7, 1.5, 3.0, 6.0, 12.0)},
    "shrink 0.3": {"shrink": 0.3},
    "shrink 3": {"shrink": 3.0},
}


def thinned(dataset: PatchDataset, most: int, seed: int = 0) -> NDArray[np.intp]:
    """Indices with at most so many patches of each case, drawn at random."""
    rng, groups = np.random.default_rng(seed), dataset.groups
    drawn = [rng.permutation(np.flatnonzero(groups == case))[:most] for case in np.unique(groups)]
    return np.sort(np.concatenate(drawn))


def whole_cases(dataset: PatchDataset, least: int = 100) -> NDArray[np.str_]:
    """Names of the cases with more patches than a sample of a case has."""
    names, count = np.unique(dataset.groups, return_counts=True)
    return names[count > least]


def squares(positions: NDArray[np.integer], groups: NDArray[np.str_], side_px: int) -> NDArray[np.str_]:
    """The name of the square, `side_px` a side, that each patch of a case lies in."""
    return np.array([f"{case} {x} {y}" for case, (x, y) in zip(groups, positions // side_px, strict=True)])


class Folds:
    """Out-of-fold logits of a data set's patches."""

    def __init__(self, dataset: PatchDataset, kept: Path) -> None:
        found = OutOfFold.load(kept, dataset)
        self.logits, self.fold = found.logits, found.fold
        self.labels, self.groups = dataset.labels, dataset.groups
        self.side = dataset.patch_size.width
        self.positions = dataset.positions

    def probability(
        self, rows: NDArray[np.intp], variant: dict[str, object] | None, side: int | None = None
    ) -> NDArray[np.float32]:
        """Cross-fitted probability of some of the patches.

        Args:
            rows: Which.
            variant: Of the second stage; None for none.
            side: Cut the cases that are refined into squares of so many patches a side; None leaves them whole.
        """
        labels, places = self.labels[rows], (self.positions[rows], self.groups[rows])
        specimens = places[1] if side is None else squares(*places, side * self.side)

        def refit(known: Probabilities, others: Rows, new: Probabilities, held_out: Rows) -> Probabilities:
            if variant is None:
                return new[:, 1]
            stage = fit_context(known[:, 1], labels[others], *(place[others] for place in places), self.side, **variant)
            return refine_points(new[:, 1], places[0][held_out], specimens[held_out], self.side, stage)

        return cross_fit(self.logits[rows], labels, self.fold[rows], refit)[1]

    def scores(
        self, rows: NDArray[np.intp], variant: dict[str, object] | None, side: int | None = None
    ) -> dict[str, float]:
        """Metrics of `probability`."""
        labels, final = self.labels[rows], self.probability(rows, variant, side)
        found = score(labels, final, best_threshold(labels, final))
        return {key: round(found[key], 4) for key in ("auroc", "balanced_accuracy", "f1", "ece")}


def _show(name: str, title: str, found: dict[str, float]) -> None:
    print(f"{name:<16} {title:<20} " + "  ".join(f"{key} {value:.4f}" for key, value in found.items()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the labelled patches that were cross-validated")
    parser.add_argument("--logits", type=Path, required=True, help="out_of_fold.npz of the cross-validation")
    parser.add_argument("--json", type=Path, help="write the table here")
    args = parser.parse_args()
    dataset = open_dataset(args.data)
    folds, table = Folds(dataset, args.logits), {}
    print(f"second stage: sigmas {SIGMAS} fields of view, shrink 1")
    for name, rows in {
        "every patch": np.arange(len(dataset)),
        "160 a case": thinned(dataset, 160),
        "56 a case": thinned(dataset, 56),
    }.items():
        for title, variant in {"none": None, **VARIANTS}.items():
            found = folds.scores(rows, variant)
            table[f"{name}, {title}"] = found
            _show(name, title, found)
    whole = np.flatnonzero(np.isin(dataset.groups, whole_cases(dataset)))
    for side in (None, 16, 8, 5):
        name = "whole cases" if side is None else f"in squares of {side}"
        for title, variant in {"none": None, "as shipped": VARIANTS["as shipped"]}.items():
            found = folds.scores(whole, variant, side)
            table[f"{name}, {title}"] = found
            _show(name, title, found)
    before, after = (folds.probability(whole, variant) for variant in (None, VARIANTS["as shipped"]))
    labels, groups = dataset.labels[whole], dataset.groups[whole]
    for case in np.unique(groups):
        own = groups == case
        found = {title: roc_auc_score(labels[own], p[own]) for title, p in (("none", before), ("as_shipped", after))}
        table[f"case {case}"] = found
        _show(case, f"{own.sum()} patches, AUROC", found)
    if args.json:
        write_json(args.json, table)


if __name__ == "__main__":
    main()
