"""A model bundle: a folder with ``model.safetensors`` and its card ``model.json``."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wsi_pipeline.errors import BundleError
from wsi_pipeline.files import atomic_path
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.base import ModelBundle, file_sha256
from wsi_pipeline.models.card import Card, Weights, read_card
from wsi_pipeline.models.wsinfer import load_wsinfer

__all__ = ["SHIPPED", "ModelBundle", "load_bundle", "save_bundle"]

CARD_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"
SHIPPED = Path(__file__).parent / "bundles"


def load_bundle(name: str | Path) -> ModelBundle:
    """Open a bundle: a shipped one by name, or a folder (ours, or TorchScript + JSON as WSInfer writes it).

    The weights' digest is verified here; weights are only ever read from safetensors or TorchScript, never unpickled.

    Raises:
        BundleError: where the bundle is missing, incomplete, altered, or does not fit its card.
    """
    folder = Path(name)
    if not folder.exists() and (SHIPPED / name).is_dir():
        folder = SHIPPED / name
    if not folder.is_dir():
        shipped = ", ".join(sorted(path.name for path in SHIPPED.glob("*") if path.is_dir())) or "none"
        raise BundleError(name, "is no model bundle", f"Give a folder with {CARD_FILE}, or a shipped one: {shipped}.")
    if (folder / CARD_FILE).exists():
        return _load_own(folder)
    return load_wsinfer(folder)


def _load_own(folder: Path) -> ModelBundle:
    card = read_card(folder / CARD_FILE)
    weights = folder / card.weights.file
    if Path(card.weights.file).name != card.weights.file or weights.suffix != ".safetensors":
        raise BundleError(
            folder / CARD_FILE,
            f"weights in {card.weights.file!r} are not accepted",
            "Only a .safetensors file beside the card is read; pickled weights can run code.",
        )
    found = file_sha256(weights)
    if found != card.weights.sha256:
        raise BundleError(
            weights,
            f"its SHA-256 is {found[:12]}…, the card says {card.weights.sha256[:12]}…",
            "The weights were altered or damaged: copy the bundle again.",
        )
    digest = sha256((folder / CARD_FILE).read_bytes() + found.encode()).hexdigest()

    def build() -> nn.Module:
        network = build_network(card.architecture, len(card.class_names))
        try:
            state = {name: tensor.float() for name, tensor in load_file(weights).items()}
            network.load_state_dict({**_counters(network), **state})
        except (SafetensorError, RuntimeError) as error:
            raise BundleError(
                weights,
                f"does not fit {card.architecture} with {len(card.class_names)} classes ({_first_line(error)})",
                "The card and the weights are not of one bundle.",
            ) from error
        return network.eval()

    return ModelBundle(card=card, path=folder, digest=digest, build=build)


def _counters(network: nn.Module) -> dict[str, torch.Tensor]:
    """Batch norm's step counters: they matter to no prediction, so bundles leave them out."""
    return {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def save_bundle(folder: Path, network: nn.Module, card: Card) -> ModelBundle:
    """Write a bundle in float16 (or as ``card.weights.dtype`` says) and open it again.

    The card's digest of the weights is filled in here. The card comes last: a folder with a card is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, card.weights.dtype)
    state = {
        name: value.detach().cpu().to(dtype).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with atomic_path(folder / WEIGHTS_FILE) as part:
        save_file(state, part)
        part.chmod(0o644)  # safetensors makes files for the owner alone
    weights = Weights(sha256=file_sha256(folder / WEIGHTS_FILE), dtype=card.weights.dtype)
    text = json.dumps(
        card.model_copy(update={"weights": weights}).model_dump(mode="json"), indent=2, ensure_ascii=False
    )
    with atomic_path(folder / CARD_FILE) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return load_bundle(folder)
