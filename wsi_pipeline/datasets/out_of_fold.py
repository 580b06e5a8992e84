"""What a cross-validation says of a data set: every patch by a network that did not see its case; kept in a file.

Calibration and second stage (`wsi_pipeline.context`) are fitted on these logits. Fitted on all of them they ship;
fitted on the other folds of each patch they give the figures that a model may be judged by.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.context import Context, fit_context, refine_points
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.files import atomic_path
from wsi_pipeline.scoring.calibration import Probabilities, Rows, calibrate, cross_fit, fit_calibration

LOGITS_FILE = "out_of_fold.npz"
"""In the folder of a training with ``--folds``."""


def may_have_context(dataset: PatchDataset) -> bool:
    """Whether a second stage can be fitted: there are two classes, and the places of the patches are known."""
    return len(dataset.class_names) == 2 and dataset.positions is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """The logits of all patches of a data set of two classes.

    Raises:
        DatasetError: where there are not as many as patches, of other than two classes, of fewer than two folds, or
            where a case was divided.
    """

    dataset: PatchDataset
    logits: NDArray[np.float32]
    """[n, 2], each row by a network that did not see the patch's case; classes as in the data set."""
    fold: NDArray[np.int64]
    """[n]: in which fold each patch was held out."""

    def __post_init__(self) -> None:
        dataset, hint = self.dataset, "Give the file and the data of one cross-validation by case."
        if self.logits.shape != (len(dataset), 2) or self.fold.shape != (len(dataset),):
            why = f"has {len(dataset):,} patches; the logits are {self.logits.shape}, the folds {self.fold.shape}"
            raise DatasetError(dataset.root, why, hint)
        if self.folds < 2:
            raise DatasetError(dataset.root, f"was cross-validated in {self.folds} folds", hint)
        pairs = np.unique(np.stack([np.unique(dataset.groups, return_inverse=True)[1], self.fold]), axis=1)[0]
        if len(pairs) > len(np.unique(pairs)):
            case = np.unique(dataset.groups)[pairs[:-1][np.diff(pairs) == 0][0]]
            why = f"has patches of the {dataset.group_kind} {case} in several folds"
            raise DatasetError(dataset.root, why, hint)

    @classmethod
    def load(cls, path: str | Path, dataset: PatchDataset) -> Self:
        """What `save` wrote.

        Raises:
            DatasetError: where it cannot be read, or is of other patches than these.
        """
        hint = f"Give the {LOGITS_FILE} of a training with --folds."
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as found:
                kept = {key: found[key] for key in found.files}
            logits, fold = kept["logits"], kept["fold"]
            told = {key: kept[key].tolist() for key in ("labels", "groups")}
        except OSError as error:
            raise DatasetError(path, f"cannot be read ({error.strerror or error})", hint) from error
        except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:  # TypeError: a bare array
            raise DatasetError(path, f"is no {LOGITS_FILE}, or a damaged one", hint) from error
        here = {"labels": dataset.labels.tolist(), "groups": dataset.groups.tolist()}
        if "names" in kept:  # the first files had none
            told["names"], here["names"] = kept["names"].tolist(), _names(dataset)
        for key, values in here.items():
            _check_same(path, dataset, told[key], values, key)
        return cls(dataset=dataset, logits=logits, fold=fold)

    def save(self, path: Path) -> None:
        """Write logits, folds, labels, cases and file names as ``.npz``.

        Raises:
            OutputError: where it cannot be written.
        """
        dataset = self.dataset
        of_patches = {"labels": dataset.labels, "groups": dataset.groups, "names": np.array(_names(dataset), np.str_)}
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, logits=self.logits, fold=self.fold, **of_patches)  # type: ignore[arg-type] # its stub's fault

    @property
    def folds(self) -> int:
        """How many."""
        return len(np.unique(self.fold))

    @property
    def positive(self) -> int:
        """Index of the positive class."""
        return self.dataset.class_names.index(self.dataset.positive_class)

    @property
    def truth(self) -> NDArray[np.int64]:
        """[n]: 1 where the positive class is the label."""
        return np.asarray(self.dataset.labels == self.positive, np.int64)

    def fit(self) -> tuple[float, tuple[float, ...], Context | None]:
        """Temperature, biases and second stage as they ship: fitted on all patches.

        The second stage is None where there can be none.
        """
        temperature, bias = fit_calibration(self.logits, self.dataset.labels)
        stage = _Stage(self)
        return temperature, bias, stage.fit(calibrate(self.logits, temperature, bias), np.arange(len(self.fold)))

    def cross_fitted(self) -> tuple[Probabilities, Probabilities]:
        """Probabilities of each patch, by what was fitted on the other folds.

        Returns:
            Calibrated ones of both classes [n, 2], and those of the positive class after the second stage [n]; without
            such a stage the same.
        """
        return cross_fit(self.logits, self.dataset.labels, self.fold, _Stage(self).refit)


class _Stage:
    """The second stage for patches of one data set, where it can have one."""

    def __init__(self, kept: OutOfFold) -> None:
        dataset = kept.dataset
        self._positions = dataset.positions if may_have_context(dataset) else None
        self._cases, self._side = dataset.cases, dataset.patch_size.width
        self._positive, self._truth = kept.positive, kept.truth

    def fit(self, probabilities: Probabilities, rows: Rows) -> Context | None:
        """Fitted on some rows."""
        if self._positions is None:
            return None
        place = self._positions[rows], self._cases[rows]
        return fit_context(probabilities[:, self._positive], self._truth[rows], *place, self._side)

    def refit(self, known: Probabilities, others: Rows, new: Probabilities, held_out: Rows) -> Probabilities:
        """Fitted on the other folds, applied to one; see `cross_fit`."""
        context, first = self.fit(known, others), new[:, self._positive]
        if context is None or self._positions is None:
            return first
        return refine_points(first, self._positions[held_out], self._cases[held_out], self._side, context)


def _check_same(path: str | Path, dataset: PatchDataset, told: list[Any], here: list[Any], what: str) -> None:
    hint = "Give the data that were cross-validated, all of them and no others."
    if len(told) != len(here):
        raise DatasetError(path, f"is of {len(told):,} patches, {dataset.root} holds {len(here):,}", hint)
    for n, (one, other) in enumerate(zip(told, here, strict=True)):
        if one != other:
            why = f"is of other patches than {dataset.root}: the {what} of {dataset.samples[n].name} are {one} there"
            raise DatasetError(path, f"{why} and {other} here", hint)


def _names(dataset: PatchDataset) -> list[str]:
    """The files' own names: folders differ from copy to copy of a data set."""
    return [PurePosixPath(sample.name).name for sample in dataset.samples]
