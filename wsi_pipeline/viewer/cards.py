"""The card of the model that made a result.

It is read from the folder of the bundle that the run's record names, wherever on this machine that is, or from the
shipped bundle of the name. Only a file ``model.json`` that is a valid card, and of the model that the summary names, is
shown, so that no record can have another file shown. Other machines are never asked.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import wsi_pipeline.models
from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.card import Card, read_card
from wsi_pipeline.viewer.locate import is_elsewhere
from wsi_pipeline.viewer.results import SlideEntry

_CARD_FILE = "model.json"
_SHIPPED = Path(wsi_pipeline.models.__file__).parent / "bundles"
_MAX_BYTES = 4 << 20
_FACTS = ("name", "description", "architecture", "class_names", "positive_class", "patch_size_px", "mpp", "threshold",
          "licence")  # fmt: skip


def full_card(entry: SlideEntry) -> dict[str, Any]:
    """Everything that is known of the model: its card, or, where that is gone, what the run noted.

    ``same_as_run`` says whether the card is, to the letter, the one that the run used.
    """
    bundle = _bundle(entry)
    for folder in _folders(bundle):
        card, same = _read(folder, entry)
        if card is not None:
            return {**card.model_dump(mode="json"), "same_as_run": same, "run": _used(bundle)}
    return {"name": str(entry.summary.get("model", "")), "same_as_run": None, "run": _used(bundle)}


def card_facts(entry: SlideEntry) -> dict[str, Any]:
    """The same in short, without how the model was trained and measured."""
    card = full_card(entry)
    return {key: card[key] for key in (*_FACTS, "same_as_run", "run") if key in card}


def _bundle(entry: SlideEntry) -> Mapping[str, Any]:
    bundle = entry.run.record.get("bundle")
    # A later run into the same folder replaces the record, and may be of another model.
    same = isinstance(bundle, dict) and bundle.get("name") == entry.summary.get("model")
    return bundle if same and isinstance(bundle, dict) else {"name": str(entry.summary.get("model", ""))}


def _used(bundle: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in bundle.items() if key != "path"}


def _folders(bundle: Mapping[str, Any]) -> list[Path]:
    shipped = [folder for folder in _SHIPPED.glob("*") if folder.name == bundle.get("name")]
    path = bundle.get("path")
    named = [Path(path)] if isinstance(path, str) and path and not is_elsewhere(path) else []
    return named + shipped


def _read(folder: Path, entry: SlideEntry) -> tuple[Card | None, bool]:
    """The card in a folder, None where there is none of the model's name; and whether it is the run's."""
    file = folder / _CARD_FILE
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return None, False
        data, card = file.read_bytes(), read_card(file)
    except (BundleError, OSError):
        return None, False
    if card.name != entry.summary.get("model"):
        return None, False
    # As `models.bundle` makes the digest of a bundle of one network.
    digest = sha256(data + (card.weights.sha256 if card.weights else "").encode()).hexdigest()
    return card, digest == entry.summary["identity"].get("bundle")
