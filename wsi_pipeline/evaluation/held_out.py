"""The patches of a cross-validation as an evaluation wants them: no network runs, the logits were kept."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.ahead import read_ahead
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.out_of_fold import OutOfFold
from wsi_pipeline.errors import BundleError, DatasetError
from wsi_pipeline.evaluation.match import map_labels
from wsi_pipeline.evaluation.predict import THUMB_PX, shrink
from wsi_pipeline.evaluation.result import Options, Patches
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import CROSS_VALIDATION
from wsi_pipeline.scoring.calibration import Rows, calibrate, fit_calibration

TOLERANCE = 1e-3
"""Of temperature and biases to be those of the card: other machines may differ in the fit's last digits."""


def held_out_patches(bundle: ModelBundle, dataset: PatchDataset, kept: Path, rows: Rows, options: Options) -> Patches:
    """What the networks of a cross-validation said of the patches that each had not seen.

    Calibration and second stage of each patch are those that were fitted on the other folds.

    Args:
        bundle: That was made by this cross-validation.
        dataset: All its patches.
        kept: The file with its logits.
        rows: The patches to give.
        options: `context`, `threshold` and `thumbs` count.

    Raises:
        DatasetError: where the file cannot be read, or is of other patches or of another bundle.
        BundleError: where the bundle was not cross-validated.
    """
    card = bundle.card
    if CROSS_VALIDATION not in card.metrics:
        why = "was not cross-validated"
        raise BundleError(bundle.path, why, "Leave out --out-of-fold, or give a bundle of a training with --folds.")
    found = OutOfFold.load(kept, dataset)
    labels = map_labels(card, dataset)
    if not np.array_equal(labels, found.truth):
        why = f"calls {dataset.positive_class!r} positive, the model {card.name} {card.positive_class!r}"
        raise DatasetError(dataset.root, why, "Give the data that were cross-validated.")
    _check_same(bundle, found, kept)
    first, final = found.cross_fitted()
    order = [1 - found.positive, found.positive]
    calibrated = first[rows][:, order]
    refined = options.context is not False and card.context is not None
    part = dataset.subset(rows.tolist())
    return Patches(
        dataset=part,
        labels=labels[rows],
        cases=part.cases,
        groups=part.groups,
        uncalibrated=calibrate(found.logits[rows][:, order]),
        calibrated=calibrated,
        shipped=np.stack([1 - final[rows], final[rows]], 1) if refined else calibrated,
        refined=refined,
        trained=np.zeros(len(rows), np.bool_),
        validated=np.full(len(rows), options.threshold is None),  # the bundle's was chosen on all of them
        thumbs=_read_thumbs(part, card.patch_size_px) if options.thumbs else None,
        unreadable=(),
        computed={},
    )


def _check_same(bundle: ModelBundle, found: OutOfFold, kept: Path) -> None:
    """The card's calibration was fitted on these very logits."""
    card = bundle.card
    temperature, bias = fit_calibration(found.logits, found.dataset.labels)
    told = np.array([card.temperature, *(card.bias or (0.0, 0.0))])
    if not np.allclose(told, [temperature, *bias], rtol=0, atol=TOLERANCE):
        why = (
            f"gives the calibration {temperature:.4f}, {bias[-1]:.4f}, the card of {card.name} says "
            f"{told[0]:.4f}, {told[-1]:.4f}: it is of another training"
        )
        raise DatasetError(kept, why, "Give the file of the cross-validation that made this bundle.")


def _read_thumbs(dataset: PatchDataset, side: int) -> NDArray[np.uint8]:
    """Small pictures; white where a patch cannot be read any more."""
    thumbs = np.full((len(dataset), THUMB_PX, THUMB_PX, 3), 255, np.uint8)
    for chunk in read_ahead(dataset, side):
        thumbs[chunk.rows] = shrink(chunk.fields)
    return thumbs
