"""Deep ensembles (Lakshminarayanan et al. 2017) as bundles: what their cards say, and how their members fit them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import Card

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURE = "ensemble"
_SHARED = ("class_names", "positive_class", "patch_size_px", "mpp")


def ensemble_card(card: Card, members: Sequence[str]) -> Card:
    """`card` for an ensemble in these folders: what a network needs is replaced, the rest is kept.

    Its temperature, bias, context and threshold are then the ensemble's own.
    """
    own = {
        "architecture": ARCHITECTURE,
        "weights": None,
        "quantization": None,
        "members": tuple(members),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "input_px": card.patch_size_px,
    }
    return card.model_copy(update=own)


def check_card(file: Path, card: Card) -> None:
    """Refuse a card that cannot be an ensemble's, or names folders outside its own.

    Raises:
        BundleError: where it normalises or resizes, has fewer than two members, or one that is not in its folder.
    """
    given = (card.architecture, card.mean, card.std, card.input_px)
    if given != (ARCHITECTURE, (0, 0, 0), (1, 1, 1), card.patch_size_px):
        raise BundleError(
            file,
            f"names members, but has architecture {card.architecture!r}, mean {card.mean}, std {card.std}, "
            f"input_px {card.input_px}",
            f"An ensemble has {ARCHITECTURE!r}, 0, 1 and its patch_size_px: each member normalises for itself.",
        )
    inside = file.parent.resolve()
    folders = [(inside / name).resolve() for name in card.members]
    for name, folder in zip(card.members, folders, strict=True):
        if folder == inside or not folder.is_relative_to(inside):
            raise BundleError(file, f"its member {name!r} lies outside the folder", "Copy the member into it.")
    if len(folders) < 2 or len(set(folders)) != len(folders):
        raise BundleError(
            file, f"its members are {list(card.members)}", "Name two folders at least, each of them once."
        )


def check_members(card: Card, members: Sequence[ModelBundle]) -> None:
    """Refuse members that the ensemble's card does not fit.

    Raises:
        BundleError: where a member differs from the card in its classes or its field of view.
    """
    for member in members:
        for key in _SHARED:
            if (theirs := getattr(member.card, key)) != (ours := getattr(card, key)):
                raise BundleError(
                    member.path,
                    f"its {key} is {theirs}, the ensemble's is {ours}",
                    "Members of an ensemble share class names, positive class and field of view.",
                )


def open_ensemble(folder: Path, card: Card, members: Sequence[ModelBundle], digest: str) -> ModelBundle:
    """One bundle of several that are open already.

    Raises:
        BundleError: where a member does not fit the card.
    """
    check_members(card, members)

    def build() -> "nn.Module":
        from wsi_pipeline.models.ensemble import Ensemble, Member

        return Ensemble([Member(member.build(), member.card) for member in members]).eval()

    return ModelBundle(card=card, path=folder, digest=digest, build=build)
