"""Whether a data set fits a bundle: the field of view and the classes."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import DatasetError, ResolutionError
from wsi_pipeline.models.card import Card

MPP_TOLERANCE = 0.02
"""Resolutions that differ by less are the same: scanners round theirs."""


def check_geometry(card: Card, dataset: PatchDataset) -> None:
    """Refuse patches that the network would see at another size or resolution than its own.

    A patch that is not square is cut to the square in its middle, so its shorter side is what must fit.

    Raises:
        ResolutionError: naming both sizes or both resolutions.
    """
    size, side = dataset.patch_size, card.patch_size_px
    if min(size.width, size.height) != side:
        raise ResolutionError(
            dataset.root,
            f"its patches are {size} px, the model {card.name} sees {side} x {side} px",
            "Take a model for patches of this size, or data of the model's.",
        )
    if card.mpp is None:
        return
    if dataset.mpp is None:
        raise ResolutionError(
            dataset.root,
            f"its patches differ in resolution or do not say theirs, the model {card.name} sees {card.mpp:g} µm/px",
            "Choose one magnification with --magnification, or give the resolution with --mpp.",
        )
    if abs(dataset.mpp / card.mpp - 1) > MPP_TOLERANCE:
        raise ResolutionError(
            dataset.root,
            f"its patches are at {dataset.mpp:g} µm/px, the model {card.name} sees {card.mpp:g} µm/px",
            "A model is never used at another resolution than its own: take other data or another model.",
        )


def class_order(card: Card) -> tuple[str, ...]:
    """The bundle's classes as they are reported: of two, the positive one comes last."""
    if len(card.class_names) != 2:
        return card.class_names
    negative = next(name for name in card.class_names if name != card.positive_class)
    return negative, card.positive_class


def map_labels(card: Card, dataset: PatchDataset) -> NDArray[np.int64]:
    """The data set's labels as indices into `class_order`, matched by the classes' names.

    Case, spaces and punctuation do not count, unless classes differ in nothing else (ER+ and ER-). Of two classes it
    is enough that the positive ones match: "other" and "non-IDC" are both what is left.

    Raises:
        DatasetError: where a class has no counterpart.
    """
    classes = class_order(card)
    plain = _plain if _tells_apart(_plain, classes, dataset.class_names) else str
    known = {plain(name): n for n, name in enumerate(classes)}
    index_of = [known.get(plain(name)) for name in dataset.class_names]
    both_two = len(classes) == len(dataset.class_names) == 2
    if None in index_of and both_two and plain(dataset.positive_class) == plain(card.positive_class):
        index_of = [int(name == dataset.positive_class) for name in dataset.class_names]
    labels = dataset.labels
    missing = [dataset.class_names[n] for n in np.unique(labels) if index_of[n] is None]
    if missing:
        raise DatasetError(
            dataset.root,
            f"has the class {missing[0]!r}, the model {card.name} knows {', '.join(map(repr, card.class_names))}",
            "Take data with the model's classes (positive class "
            f"{card.positive_class!r}), or a model trained on classes like these.",
        )
    return np.array([-1 if n is None else n for n in index_of], np.int64)[labels]


def _tells_apart(plain: Callable[[str], str], *lists: Sequence[str]) -> bool:
    return all(len({plain(name) for name in names}) == len(set(names)) for names in lists)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
