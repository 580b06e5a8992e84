"""Which cases calibrate an int8 network, and on which it is measured."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.splits import split_dataset
from wsi_pipeline.models.seen import Seen, mark

HELD_OUT = 0.5
"""Share of the cases that is measured on, where the model's own split does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Indices of a data set's samples. No case is in both."""

    calibrate: NDArray[np.int64]
    measure: NDArray[np.int64]
    note: str
    """What the measured cases are to the model."""


def choose_cases(dataset: PatchDataset, seen: Seen, *, seed: int = 0) -> Cases:
    """Calibrate on cases that trained or validated the model and measure on the others, where there are both.

    Else half of the cases, drawn at random, calibrate and the other half is measured on.

    Raises:
        DatasetError: where there are too few cases for that.
    """
    known = mark(dataset, seen.train | seen.validation)
    known = np.isin(dataset.groups, dataset.groups[known])
    unknown = "Which cases trained the model is not known; none of those measured on calibrated the int8 network."
    new = "The cases measured on are new to the model." if seen.known else unknown
    if known.any() and len(np.unique(dataset.labels[~known])) > 1:
        note = new
        return Cases(calibrate=np.flatnonzero(known), measure=np.flatnonzero(~known), note=note)
    split = split_dataset(dataset, seed=seed, validation_fraction=0, test_fraction=HELD_OUT)
    if known.any():
        note = (
            "The cases measured on trained the model, so both columns flatter it; what counts is the difference. "
            "None of them calibrated the int8 network."
        )
    else:
        note = new
    return Cases(calibrate=split.train, measure=split.test, note=note)
