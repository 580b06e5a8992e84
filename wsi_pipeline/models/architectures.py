"""The networks that a card can name."""

from collections.abc import Callable
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models as tv

from wsi_pipeline.errors import BundleError

_NETWORKS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "torchvision/resnet18": (tv.resnet18, "ResNet18_Weights.IMAGENET1K_V1"),
    "torchvision/resnet34": (tv.resnet34, "ResNet34_Weights.IMAGENET1K_V1"),
    "torchvision/resnet50": (tv.resnet50, "ResNet50_Weights.IMAGENET1K_V2"),
}


def build_network(architecture: str, classes: int) -> nn.Module:
    """A network that maps float [n, 3, side, side] to logits [n, classes], with random weights.

    Raises:
        BundleError: where the architecture is unknown.
    """
    return _maker(architecture)[0](num_classes=classes)


def build_pretrained(architecture: str, classes: int) -> nn.Module:
    """The same network with torchvision's ImageNet weights and a new last layer.

    Raises:
        BundleError: where the architecture is unknown, or the weights cannot be had (no network).
    """
    maker, weights = _maker(architecture)
    try:
        network = maker(weights=weights)
    except (URLError, OSError, RuntimeError) as error:
        raise BundleError(
            f"ImageNet weights {weights}",
            f"cannot be had ({error})",
            f"Connect to the internet once, put the file into {torch.hub.get_dir()}/checkpoints, or start at random.",
        ) from error
    if not isinstance(network.fc, nn.Linear):
        raise BundleError(architecture, "its last layer is no linear one")
    network.fc = nn.Linear(network.fc.in_features, classes)
    return network


def _maker(architecture: str) -> tuple[Callable[..., nn.Module], str]:
    if architecture not in _NETWORKS:
        raise BundleError(f"architecture {architecture!r}", "is unknown", f"Known: {', '.join(_NETWORKS)}.")
    return _NETWORKS[architecture]
