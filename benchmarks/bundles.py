"""Models of random weights, whose results mean nothing and whose work is that of a real one.

`resnet18_bundle` is a torchvision ResNet-18 that sees 50 x 50 px at 0.25 µm/px, the literal 40x patch; `stub_bundle`
is a network that does no more than touch every pixel of its input: what is left is the feeding.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.slides import CELL_PX, MPP
from wsi_pipeline.files import atomic_path, make_folder, write_json
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import load_bundle, save_bundle, write_card
from wsi_pipeline.models.card import Card, Threshold, Weights
from wsi_pipeline.quantization.int8 import save_int8, to_int8

CLASSES = ("no IDC", "IDC")
MEAN, STD = (0.7, 0.55, 0.7), (0.2, 0.25, 0.2)
"""About those of H&E; the same for all programs."""

SHARPER = 10.0
"""The last layer's random weights are multiplied by it, so that probabilities spread over 0 to 1."""

_NO_DIGEST = "0" * 64


class Stub(nn.Module):
    """Two logits from the mean of the input."""

    def forward(self, batch: Tensor) -> Tensor:
        """[n, 3, side, side] to [n, 2]."""
        mean = batch.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def resnet18_bundle(work: Path, seed: int = 0) -> Path:
    """Folder of the bundle in this project's form, with its int8 network where the packages for that are there."""
    folder = work / "bundles" / f"resnet18-{seed}"
    if not (folder / "model.json").exists():
        save_bundle(folder, _resnet18(seed), _card("random-resnet18", "torchvision/resnet18"))
    bundle = load_bundle(folder)
    if bundle.int8 is None and find_spec("openvino") and find_spec("nncf"):
        noise = np.random.default_rng(seed).integers(0, 256, (64, CELL_PX, CELL_PX, 3), np.uint8)
        found = save_int8(to_int8(bundle, noise), folder)
        write_card(folder, bundle.card.model_copy(update={"quantization": found}))
    return folder


def resnet18_script(work: Path, seed: int = 0) -> Path:
    """Folder of the same network in WSInfer's form (TorchScript and JSON)."""
    network = load_bundle(resnet18_bundle(work, seed)).build()
    return _wsinfer(work / "bundles" / f"resnet18-{seed}-script", network, "resnet18")


def stub_bundle(work: Path) -> Path:
    """Folder of the stub in WSInfer's form, which this project reads as well."""
    return _wsinfer(work / "bundles" / "stub-script", Stub(), "stub")


def _resnet18(seed: int) -> nn.Module:
    """Random weights, but batch norms that have seen some input, so that answers differ from field to field."""
    torch.manual_seed(seed)
    network = build_network("torchvision/resnet18", len(CLASSES))
    network.train()
    with torch.inference_mode():
        for _ in range(3):
            network(torch.randn(64, 3, CELL_PX, CELL_PX))
        network.get_parameter("fc.weight").mul_(SHARPER)
    return network.eval()


def _card(name: str, architecture: str) -> Card:
    return Card(
        name=name,
        description="random weights, for benchmarks",
        architecture=architecture,
        class_names=CLASSES,
        positive_class="IDC",
        patch_size_px=CELL_PX,
        mpp=MPP,
        input_px=CELL_PX,
        mean=MEAN,
        std=STD,
        threshold=Threshold(value=0.5, chosen="none: random weights"),
        weights=Weights(sha256=_NO_DIGEST, dtype="float32"),
    )


def _wsinfer(folder: Path, network: nn.Module, name: str) -> Path:
    if (folder / "config.json").exists():
        return folder
    make_folder(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is what the form asks for
        traced = torch.jit.trace(network.eval(), torch.zeros(2, 3, CELL_PX, CELL_PX))
        with atomic_path(folder / "torchscript_model.pt") as part:
            torch.jit.save(traced, str(part))
    write_json(folder / "config.json", wsinfer_config(name))
    return folder


def wsinfer_config(name: str) -> dict[str, object]:
    """The form's JSON for a network on 50 px at 0.25 µm/px."""
    transform = [
        {"name": "Resize", "arguments": {"size": CELL_PX}},
        {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": list(MEAN), "std": list(STD)}},
    ]
    config: dict[str, object] = {
        "spec_version": "1.0",
        "architecture": name,
        "num_classes": len(CLASSES),
        "class_names": list(CLASSES),
        "name": name,
        "patch_size_pixels": CELL_PX,
        "spacing_um_px": MPP,
        "transform": transform,
    }
    return config
