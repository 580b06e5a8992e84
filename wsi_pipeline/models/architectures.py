"""The networks that a card can name."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.card import Colours
from wsi_pipeline.models.efficientnet import EfficientNetLite0
from wsi_pipeline.models.imagenet import LITE0, RESNET18, RESNET34, RESNET50, ImageNetWeights, fill
from wsi_pipeline.models.networks import PlainCnn, Residual7, Resnet50Dense, resnet18_50px
from wsi_pipeline.models.resnet import ResNet, resnet18, resnet34, resnet50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    make: Callable[[int], nn.Module]
    pretrained: ImageNetWeights | None = None
    """Of the network, or of its trunk."""
    normalises: bool = False
    """Whether it takes RGB in 0..1 as it is."""


_NETWORKS: dict[str, _Architecture] = {
    "torchvision/resnet18": _Architecture(make=resnet18, pretrained=RESNET18),
    "torchvision/resnet34": _Architecture(make=resnet34, pretrained=RESNET34),
    "torchvision/resnet50": _Architecture(make=resnet50, pretrained=RESNET50),
    "resnet18-50px": _Architecture(make=resnet18_50px, pretrained=RESNET18),
    "efficientnet-lite0": _Architecture(make=EfficientNetLite0, pretrained=LITE0),
    "idc-residual-7ch": _Architecture(make=Residual7, normalises=True),
    "idc-cnn": _Architecture(make=PlainCnn),
    "resnet50-dense": _Architecture(make=Resnet50Dense, pretrained=RESNET50),
}


def build_network(architecture: str, classes: int) -> nn.Module:
    """A network that maps float [n, 3, h, w] to logits [n, classes], with random weights.

    What it takes is RGB in 0..1, normalised as the card says; `idc-residual-7ch` normalises its seven channels itself
    and wants a card with mean 0 and std 1.

    Raises:
        BundleError: where the architecture is unknown, or has another number of classes.
    """
    return _find(architecture).make(classes)


def build_pretrained(architecture: str, classes: int) -> nn.Module:
    """The same network with ImageNet weights in all but its last layers; see `imagenet.fill` for where they come from.

    Raises:
        BundleError: where the architecture is unknown or has no such weights, or they cannot be had (no network).
    """
    weights = _find(architecture).pretrained
    if weights is None:
        known = ", ".join(name for name, entry in _NETWORKS.items() if entry.pretrained)
        raise BundleError(
            f"architecture {architecture!r}",
            "has no ImageNet weights",
            f"Start from random weights; ImageNet weights are there for {known}.",
        )
    network = build_network(architecture, classes)
    fill(network.trunk if isinstance(network, Resnet50Dense) else network, weights)
    return network


def imagenet_colours(architecture: str) -> Colours:
    """Mean and standard deviation of RGB in 0..1 that a network's ImageNet weights were trained with.

    Raises:
        BundleError: where the architecture is unknown.
    """
    weights = _find(architecture).pretrained or RESNET18
    return weights.mean, weights.std


def normalises_itself(architecture: str) -> bool:
    """Whether a network takes RGB in 0..1 as it is, so that its card has mean 0 and deviation 1.

    Raises:
        BundleError: where the architecture is unknown.
    """
    return _find(architecture).normalises


def is_too_small(side: int, network: nn.Module) -> bool:
    """Whether a stage of a network that halves its picture is given a single pixel.

    All that its convolution could learn there is its middle, and oneDNN (torch 2.15) leaves the other weights'
    gradients in bfloat16 as they lay in memory.

    Args:
        side: Of its input, px.
        network: Maps float [n, 3, side, side] to logits.
    """
    found = False

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal found
        found |= min(inputs[0].shape[2:]) < 2

    shapes: nn.Module = deepcopy(network).to("meta").eval()  # computes shapes alone
    for layer in shapes.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1:
            layer.register_forward_pre_hook(look)
    try:
        with torch.no_grad():
            shapes(torch.empty(1, 3, side, side, device="meta"))
    except RuntimeError:  # a pooling of less than its window
        return True
    return found


def gradcam_layer(network: nn.Module) -> nn.Module:
    """The last convolutional stage, whose output Grad-CAM (Selvaraju et al. 2017) weighs: [n, channels, h, w].

    Raises:
        BundleError: where the network is none of `build_network`'s.
    """
    match network:
        case ResNet():
            layer: nn.Module = network.layer4
        case Resnet50Dense():
            layer = network.trunk.layer4
        case EfficientNetLite0():
            layer = network.head
        case Residual7():
            layer = network.blocks[-1]
        case PlainCnn():
            layer = network.stages[-1]
        case _:
            raise _unknown(network, "Grad-CAM is for the architectures of docs/bundles.md.")
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
        case EfficientNetLite0():
            return nn.ModuleList([network.stem, *network.stages, network.head]), network.fc
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
