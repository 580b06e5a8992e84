"""A model bundle: a folder with ``model.safetensors`` and its card ``model.json``, or with other such folders."""

import json
import logging
import shutil
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.errors import BundleError, OutputError
from wsi_pipeline.files import atomic_path, make_folder, write_json
from wsi_pipeline.models.base import ModelBundle, check_sha256, file_sha256
from wsi_pipeline.models.card import Card, Weights, read_card
from wsi_pipeline.models.ensemble_bundle import check_card, check_members, ensemble_card, open_ensemble
from wsi_pipeline.models.wsinfer import load_wsinfer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SHIPPED", "ModelBundle", "load_bundle", "save_bundle", "save_ensemble"]

log = logging.getLogger(__name__)

CARD_FILE, WEIGHTS_FILE, SPLIT_FILE = "model.json", "model.safetensors", "split.json"
TRAINING_SUFFIX = ".training"
"""Of the folder beside a bundle that holds its training's checkpoints and logs."""

SHIPPED = Path(__file__).parent / "bundles"


def load_bundle(name: str | Path) -> ModelBundle:
    """Open a bundle: a folder (ours, one network or several; or in WSInfer's form), or a shipped one by name.

    A folder in the working directory comes before a shipped bundle of the same name, and a warning says so.

    The weights' digest is verified here; weights are only ever read from safetensors or TorchScript, never unpickled.

    Raises:
        BundleError: where the bundle is missing, incomplete, altered, or does not fit its card.
    """
    folder = _folder(name)
    if not folder.is_dir():
        shipped = ", ".join(sorted(path.name for path in SHIPPED.glob("*") if path.is_dir())) or "none"
        raise BundleError(name, "is no model bundle", f"Give a folder with {CARD_FILE}, or a shipped one: {shipped}.")
    if not (folder / CARD_FILE).exists():
        beside = folder.parent / folder.name.removesuffix(TRAINING_SUFFIX)
        if folder.name.endswith(TRAINING_SUFFIX) and (beside / CARD_FILE).exists():
            raise BundleError(name, "holds the checkpoints and logs of a training", f"Its bundle is {beside}.")
        return load_wsinfer(folder)
    card = read_card(folder / CARD_FILE)
    _check_int8(folder, card)
    return _load_network(folder, card, card.weights) if card.weights else _load_ensemble(folder, card)


def _folder(name: str | Path) -> Path:
    folder, shipped = Path(name), SHIPPED / Path(name).name
    if folder.parent != Path() or not folder.name or not shipped.is_dir():
        return folder
    if not folder.exists():
        return shipped
    _tell_hidden(folder)
    return folder


@cache
def _tell_hidden(folder: Path) -> None:
    log.warning("%s: this folder is used, not the shipped bundle of the same name", folder.absolute())


def _load_network(folder: Path, card: Card, weights: Weights) -> ModelBundle:
    file = folder / weights.file
    if Path(weights.file).name != weights.file or file.suffix != ".safetensors":
        raise BundleError(
            folder / CARD_FILE,
            f"weights in {weights.file!r} are not accepted",
            "Only a .safetensors file beside the card is read; pickled weights can run code.",
        )
    found = check_sha256(file, weights.sha256)

    def build() -> "nn.Module":
        from wsi_pipeline.models.weights import read_network

        check_sha256(file, weights.sha256)  # it may have been replaced since
        return read_network(file, card)

    return ModelBundle(card=card, path=folder, digest=_digest(folder, found), build=build)


def _check_int8(folder: Path, card: Card) -> None:
    """Refuse an int8 network that is not the one that was measured, or lies elsewhere.

    Raises:
        BundleError: where a file is missing or altered.
    """
    if (found := card.quantization) is None:
        return
    file = folder / found.file
    if Path(found.file).name != found.file or file.suffix != ".xml":
        raise BundleError(folder / CARD_FILE, f"int8 network {found.file!r} is not accepted", "It is an .xml beside.")
    check_sha256(file, found.sha256)
    check_sha256(file.with_suffix(".bin"), found.weights_sha256)


def _load_ensemble(folder: Path, card: Card) -> ModelBundle:
    check_card(folder / CARD_FILE, card)
    members = []
    for name in card.members:
        inner = read_card(folder / name / CARD_FILE)
        if inner.weights is None:
            raise BundleError(folder / name, "is an ensemble itself", "Name its members in the outer card.")
        members.append(_load_network(folder / name, inner, inner.weights))
    return open_ensemble(folder, card, members, _digest(folder, *(member.digest for member in members)))


def _digest(folder: Path, *parts: str) -> str:
    return sha256((folder / CARD_FILE).read_bytes() + "".join(parts).encode()).hexdigest()


def save_bundle(folder: Path, network: "nn.Module", card: Card) -> ModelBundle:
    """Write a bundle in float16 (or as ``card.weights.dtype`` says) and open it again.

    The card's digest of the weights is filled in here; an int8 network, which would be of other weights, is left out.
    The card comes last: a folder with a card is whole.

    Raises:
        BundleError: where the card is an ensemble's, or a weight is not finite or too large for float16.
        OutputError: where the folder cannot be written.
    """
    from wsi_pipeline.models.weights import write_weights

    if card.weights is None:
        raise BundleError(folder, "the card is an ensemble's and has no weights", "Use save_ensemble.")
    make_folder(folder)
    write_weights(folder / WEIGHTS_FILE, network, card.weights.dtype)
    weights = Weights(sha256=file_sha256(folder / WEIGHTS_FILE), dtype=card.weights.dtype)
    write_card(folder, card.model_copy(update={"weights": weights, "quantization": None}))
    return load_bundle(folder)


def write_card(folder: Path, card: Card) -> None:
    """Write ``model.json``; it comes last, as a folder with a card is whole."""
    write_json(folder / CARD_FILE, json.loads(card.model_dump_json()))  # a metric that is NaN becomes null


def save_ensemble(folder: str | Path, members: Sequence[ModelBundle], card: Card) -> ModelBundle:
    """Write bundles as one deep ensemble and open it.

    Members are copied (card, weights, split, int8 network) to ``member-1``, ``member-2`` …; those inside `folder` stay.

    Args:
        folder: The ensemble's own.
        members: Ordinary bundles, as `load_bundle` gives them, that share classes and field of view.
        card: Name, threshold, metrics …, and a temperature, bias and context of the ensemble's own. What follows from
            its being an ensemble (`ensemble_card`) is filled in, so a member's card will do as a start.

    Raises:
        BundleError: where a member is not an ordinary bundle, or they do not fit each other.
        OutputError: where the folder cannot be written, or is a member's own.
    """
    folder = Path(folder)
    if any(member.path.resolve() == folder.resolve() for member in members):
        raise OutputError(folder, "is one of the members itself", "Give the ensemble a folder of its own.")
    weights = {member.path: member.card.weights.file for member in members if member.card.weights}
    for member in members:
        if member.path not in weights or not (member.path / CARD_FILE).is_file():
            raise BundleError(member.path, "cannot be a member", f"Members are {CARD_FILE} + {WEIGHTS_FILE}.")
    names = _names(folder, members)
    card = ensemble_card(card, names)
    if any(member.card.leaky for member in members):
        card = card.model_copy(update={"metrics": {**card.metrics, "leaky": True}})
    check_card(folder / CARD_FILE, card)
    check_members(card, members)
    make_folder(folder)
    (folder / CARD_FILE).unlink(missing_ok=True)  # a half-written ensemble must not pass for a whole one
    for name, member in zip(names, members, strict=True):
        if not _inside(folder, member.path):
            make_folder(folder / name)
            split = [SPLIT_FILE] if (member.path / SPLIT_FILE).exists() else []
            int8 = [member.int8.name, member.int8.with_suffix(".bin").name] if member.int8 else []
            for file in (weights[member.path], *split, *int8, CARD_FILE):
                with atomic_path(folder / name / file) as part:
                    shutil.copyfile(member.path / file, part)
    write_card(folder, card)
    return load_bundle(folder)


def _names(folder: Path, members: Sequence[ModelBundle]) -> list[str]:
    """Folders of the members: where they lie already, or else the first names that are not taken by such."""
    there = [_inside(folder, member.path) for member in members]
    free = (name for n in count(1) if (name := f"member-{n}") not in there)
    return [name or next(free) for name in there]


def _inside(folder: Path, member: Path) -> str:
    """The member's place in the ensemble's folder; empty where it lies elsewhere."""
    inner, outer = member.resolve(), folder.resolve()
    return inner.relative_to(outer).as_posix() if inner.is_relative_to(outer) and inner != outer else ""
