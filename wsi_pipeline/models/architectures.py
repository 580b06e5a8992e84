"""The networks that a card can name."""

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.networks import PlainCnn, Residual7, Resnet50Dense, resnet18_50px
from wsi_pipeline.models.resnet import ResNet, resnet18, resnet34, resnet50

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    make: Callable[[int], nn.Module]
    pretrained: str | None = None
    """torchvision's name of the ImageNet weights of the network, or of its trunk."""


_R18, _R34, _R50 = "ResNet18_Weights.IMAGENET1K_V1", "ResNet34_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"

_NETWORKS: dict[str, _Architecture] = {
    "torchvision/resnet18": _Architecture(make=resnet18, pretrained=_R18),
    "torchvision/resnet34": _Architecture(make=resnet34, pretrained=_R34),
    "torchvision/resnet50": _Architecture(make=resnet50, pretrained=_R50),
    "resnet18-50px": _Architecture(make=resnet18_50px, pretrained=_R18),
    "idc-residual-7ch": _Architecture(make=Residual7),
    "idc-cnn": _Architecture(make=PlainCnn),
    "resnet50-dense": _Architecture(make=Resnet50Dense, pretrained=_R50),
}

_UNREADABLE = (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, ValueError, TypeError, struct.error)
"""What a failed download raises, and torch's unpickler on a file that is no pickle of its kind."""


def build_network(architecture: str, classes: int) -> nn.Module:
    """A network that maps float [n, 3, h, w] to logits [n, classes], with random weights.

    What it takes is RGB in 0..1, normalised as the card says; `idc-residual-7ch` normalises its seven channels itself
    and wants a card with mean 0 and std 1.

    Raises:
        BundleError: where the architecture is unknown, or has another number of classes.
    """
    return _find(architecture).make(classes)


def build_pretrained(architecture: str, classes: int) -> nn.Module:
    """The same network with torchvision's ImageNet weights in all but its last layers.

    The file is downloaded once into torch's hub folder, and its digest checked against the one in its name. As with
    torchvision itself, a file that lies there already is taken as it is; but only tensors are read from it.

    Raises:
        BundleError: where the architecture is unknown or has no such weights, or they cannot be had (no network).
    """
    name = _find(architecture).pretrained
    if name is None:
        known = ", ".join(name for name, entry in _NETWORKS.items() if entry.pretrained)
        raise BundleError(
            f"architecture {architecture!r}",
            "has no ImageNet weights",
            f"Start from random weights; ImageNet weights are there for {known}.",
        )
    network = build_network(architecture, classes)
    _fill(network.trunk if isinstance(network, Resnet50Dense) else network, _imagenet(name))
    return network


def _imagenet(name: str) -> "WeightsEnum":
    from torchvision.models import get_weight  # takes torch's compiler along

    return get_weight(name)


def _fill(network: nn.Module, weights: "WeightsEnum") -> None:
    """Load all but the last layer (`fc`), which is of other classes."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    state = _read(weights, file)
    own = network.state_dict()
    shared = {name: value for name, value in state.items() if not name.startswith("fc.")}
    wanted = {name for name in own if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    if not wanted <= set(shared) <= set(own) or any(value.shape != own[name].shape for name, value in shared.items()):
        raise BundleError(file, f"does not hold {weights}", "Remove the file: the right one is then downloaded.")
    network.load_state_dict(shared, strict=False)


def _read(weights: "WeightsEnum", file: Path) -> dict[str, Tensor]:
    there = file.exists()
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, weights_only=True
        )
    except _UNREADABLE as error:
        hint = (
            "The file is damaged: remove it, then it is downloaded anew."
            if there
            else f"Connect to the internet once, or put {weights.url} into {file.parent}, or start from random weights."
        )
        reason = " ".join(str(error).split())[:160]
        raise BundleError(
            file if there else f"ImageNet weights {weights}", f"cannot be had ({reason})", hint
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BundleError(file, f"does not hold {weights}", "Remove the file: the right one is then downloaded.")
    return state


def gradcam_layer(network: nn.Module) -> nn.Module:
    """The last convolutional stage, whose output Grad-CAM (Selvaraju et al. 2017) weighs: [n, channels, h, w].

    Raises:
        BundleError: where the network is none of `build_network`'s (TorchScript, an ensemble).
    """
    match network:
        case ResNet():
            layer: nn.Module = network.layer4
        case Resnet50Dense():
            layer = network.trunk.layer4
        case Residual7():
            layer = network.blocks[-1]
        case PlainCnn():
            layer = network.stages[-1]
        case _:
            raise _unknown(
                network, "Grad-CAM needs a bundle of one network; explain a member of an ensemble by itself."
            )
    return layer


def trunk_and_head(network: nn.Module) -> tuple[nn.ModuleList, nn.Module]:
    """The stages that hold weights, from the input on, and the last layers: for schedules that freeze some of them.

    The head is what `build_pretrained` leaves at random. Stage by stage, a ResNet's trunk is its stem (convolution and
    batch norm) and its four layers.

    Raises:
        BundleError: where the network is none of `build_network`'s.
    """
    match network:
        case ResNet():
            return _resnet_stages(network), network.fc
        case Resnet50Dense():
            return _resnet_stages(network.trunk), network.head
        case Residual7():
            return nn.ModuleList([network.stem, *network.blocks]), network.head
        case PlainCnn():
            return nn.ModuleList(network.stages), network.head
    raise _unknown(network, "Only networks that a card can name are trained.")


def _resnet_stages(network: ResNet) -> nn.ModuleList:
    stem = nn.Sequential(network.conv1, network.bn1)
    return nn.ModuleList([stem, network.layer1, network.layer2, network.layer3, network.layer4])


def _unknown(network: nn.Module, hint: str) -> BundleError:
    return BundleError(f"network {type(network).__name__}", "has no stages that are known by name", hint)


def _find(architecture: str) -> _Architecture:
    if architecture not in _NETWORKS:
        raise BundleError(f"architecture {architecture!r}", "is unknown", f"Known: {', '.join(_NETWORKS)}.")
    return _NETWORKS[architecture]
