"""Which of the cases a model has seen before: what it knows already is no test of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.bundle import CARD_FILE, SPLIT_FILE
from wsi_pipeline.models.card import Card, read_card

LEAKY = "leaky"
SEEN_BEFORE = "seen_before"
"""In a card's training: what the bundle had seen that the training began at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a bundle says of the data it was made with."""

    known: bool
    """Whether it names the cases that trained it; False where it began at a bundle that does not."""
    leaky: bool
    """Whether patches of one case were in several parts, so that its own figures flatter it."""
    train: frozenset[str]
    """Cases that trained; of a leaky split, names of patches."""
    validation: frozenset[str]
    """Those that chose threshold, calibration and the epoch."""
    limit: float = 1.0
    """Fraction of these cases' patches that was used; below 1 of a trial."""


def what_was_seen(bundle: ModelBundle) -> Seen:
    """From ``split.json`` beside the card, and from the card; of an ensemble, from those of all its members too.

    Raises:
        BundleError: where a ``split.json`` or a member's card cannot be read.
    """
    own = _of_one(bundle.path, bundle.card)
    folders = [bundle.path / name for name in bundle.card.members]
    members = [_of_one(folder, read_card(folder / CARD_FILE)) for folder in folders]
    train = own.train.union(*(one.train for one in members))
    return Seen(
        known=all(one.known for one in members or [own]),
        leaky=any(one.leaky for one in (own, *members)),
        train=train,
        validation=own.validation.union(*(one.validation for one in members)) - train,
        limit=min(one.limit for one in (own, *members)),
    )


def _of_one(folder: Path, card: Card) -> Seen:
    splits = [_read_split(folder), *(card.training.get(key) for key in ("split", "split_by_case", SEEN_BEFORE))]
    told = [split for split in splits if isinstance(split, Mapping)]
    train, validation = (
        frozenset(name for split in told for name in (*_names(split.get(part)), *_names(_cases(split).get(part))))
        for part in ("train", "validation")
    )
    return Seen(
        known=bool(train) and all(split.get("known", True) for split in told),
        leaky=any(split.get("kind") == LEAKY or split.get(LEAKY) is True for split in told),
        train=train,
        validation=validation,
        limit=min((_fraction(split.get("limit")) for split in told), default=1.0),
    )


def _fraction(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else 1.0


def mark(dataset: PatchDataset, names: frozenset[str]) -> NDArray[np.bool_]:
    """[n]: samples whose case, or whose own name, is among `names`.

    Names of patches are compared without their folders, which differ from copy to copy of a data set.
    """
    files = {PurePosixPath(name).name for name in names}
    return np.array(
        [
            sample.group in names or sample.case in names or PurePosixPath(sample.name).name in files
            for sample in dataset.samples
        ],
        np.bool_,
    )


def _read_split(folder: Path) -> Mapping[str, Any]:
    file = folder / SPLIT_FILE
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(file, f"cannot be read ({error})", "Copy the bundle again.") from error
    return found if isinstance(found, Mapping) else {}


def _cases(split: Mapping[str, Any]) -> Mapping[str, Any]:
    """Cases of each part, where the parts name patients."""
    found = split.get("cases")
    return found if isinstance(found, Mapping) else {}


def _names(part: object) -> Iterable[str]:
    """A part of a split is a list of names, or says more and has them under ``cases`` or ``samples``."""
    if isinstance(part, Mapping):
        for key in ("cases", "groups", "samples"):
            yield from _names(part.get(key))
    elif isinstance(part, list | tuple):
        yield from (name for name in part if isinstance(name, str))
