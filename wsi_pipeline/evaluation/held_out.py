"""The patches of a cross-validation as an evaluation wants them: no network runs, the logits were kept."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.ahead import read_ahead
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.out_of_fold import OutOfFold
from wsi_pipeline.errors import BundleError, DatasetError
from wsi_pipeline.evaluation.predict import THUMB_PX, shrink
from wsi_pipeline.evaluation.result import Options, Patches, Probabilities
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.scoring.calibration import Rows, calibrate
from wsi_pipeline.scoring.metrics import score

PART = "cross_validation"
"""In a card's metrics."""

TOLERANCE = 0.001
"""Of the AUROC, which the fits' last digits may move, to be that of the card."""


def held_out_patches(bundle: ModelBundle, dataset: PatchDataset, kept: Path, rows: Rows, options: Options) -> Patches:
    """What the networks of a cross-validation said of the patches that each had not seen.

    Calibration and second stage of each patch are those that were fitted on the other folds.

    Args:
        bundle: That was made by this cross-validation.
        dataset: All its patches.
        kept: The file with its logits.
        rows: The patches to give.
        options: `context` and `thumbs` count.

    Raises:
        DatasetError: where the file cannot be read, or is of other patches or of another bundle.
        BundleError: where the bundle was not cross-validated.
    """
    found = OutOfFold.load(kept, dataset)
    first, final = found.cross_fitted()
    _check_same(bundle, final, found, kept)
    order = [1 - found.positive, found.positive]
    calibrated = first[rows][:, order]
    refined = options.context is not False and bundle.card.context is not None
    part, nobody = dataset.subset(rows.tolist()), np.zeros(len(rows), np.bool_)
    return Patches(
        dataset=part,
        labels=found.truth[rows],
        cases=part.cases,
        groups=part.groups,
        uncalibrated=calibrate(found.logits[rows][:, order]),
        calibrated=calibrated,
        shipped=np.stack([1 - final[rows], final[rows]], 1) if refined else calibrated,
        refined=refined,
        trained=nobody,
        validated=nobody,
        thumbs=_read_thumbs(part, bundle.card.patch_size_px) if options.thumbs else None,
        unreadable=(),
        computed={},
    )


def _check_same(bundle: ModelBundle, final: Probabilities, found: OutOfFold, kept: Path) -> None:
    told = bundle.card.metrics.get(PART)
    if told is None:
        why = "was not cross-validated"
        raise BundleError(bundle.path, why, "Leave out --out-of-fold, or give a bundle of a training with --folds.")
    auroc = score(found.truth, final, 0.5)["auroc"]
    if abs(auroc - told["auroc"]) > TOLERANCE:
        why = f"gives an AUROC of {auroc:.4f}, the card of {bundle.card.name} says {told['auroc']:.4f}"
        raise DatasetError(kept, why, "Give the file of the cross-validation that made this bundle.")


def _read_thumbs(dataset: PatchDataset, side: int) -> NDArray[np.uint8]:
    """Small pictures; white where a patch cannot be read any more."""
    thumbs = np.full((len(dataset), THUMB_PX, THUMB_PX, 3), 255, np.uint8)
    for chunk in read_ahead(dataset, side):
        thumbs[chunk.rows] = shrink(chunk.fields)
    return thumbs
