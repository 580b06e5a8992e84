"""Weights in safetensors: a card's network filled with them, and written to a file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wsi_pipeline.errors import BundleError
from wsi_pipeline.files import atomic_path
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.card import Card


def read_network(file: Path, card: Card) -> nn.Module:
    """The card's network, float32 on the CPU in eval mode.

    Raises:
        BundleError: where card and weights do not fit each other.
    """
    try:
        network = _fill(card, {name: tensor.float() for name, tensor in load_file(file).items()})
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            file,
            f"does not fit {card.architecture} with {len(card.class_names)} classes ({_first_line(error)})",
            "The card and the weights are not of one bundle.",
        ) from error
    return network.eval()


def write_weights(file: Path, network: nn.Module, dtype: str) -> None:
    """Write the network's weights as `dtype`.

    Raises:
        BundleError: where a weight is not finite as that.
    """
    state = _state(file.parent, network, dtype)
    with atomic_path(file) as part:
        save_file(state, part)
        part.chmod(0o644)  # safetensors makes files for the owner alone


def _fill(card: Card, state: dict[str, torch.Tensor]) -> nn.Module:
    """The card's network with these weights. Random ones are not drawn first: that takes longer than all the rest."""
    with torch.device("meta"):
        network = build_network(card.architecture, len(card.class_names))
    constants = {name for name, _ in network.named_buffers()} - network.state_dict().keys()
    if constants:  # tables of the network's own, which stand in no bundle
        network = build_network(card.architecture, len(card.class_names))
    counters = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in _counters(network).items()}
    network.load_state_dict({**counters, **state}, assign=True)
    return network


def _counters(network: nn.Module) -> dict[str, torch.Tensor]:
    """Batch norm's step counters: they matter to no prediction, so bundles leave them out."""
    return {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _state(folder: Path, network: nn.Module, dtype: str) -> dict[str, torch.Tensor]:
    counters = _counters(network)
    state = {
        name: value.detach().cpu().to(getattr(torch, dtype)).contiguous()
        for name, value in network.state_dict().items()
        if name not in counters
    }
    for name, value in state.items():
        if not value.isfinite().all():
            raise BundleError(
                folder, f"the weights {name} are not finite as {dtype}", "Train again, or save them as float32."
            )
    return state
