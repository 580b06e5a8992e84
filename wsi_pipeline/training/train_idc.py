"""Train the shipped IDC bundle: ``python -m wsi_pipeline.training.train_idc DATA --out FOLDER``.

Cases are split before anything else: the published validation cases (Janowczyk 2016) choose threshold and
temperature, a fifth of the others is kept for the test that the card reports.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsi_pipeline import __version__
from wsi_pipeline.models.architectures import build_network, build_pretrained
from wsi_pipeline.models.bundle import ModelBundle, save_bundle
from wsi_pipeline.models.card import Card, Threshold, Triple, Weights
from wsi_pipeline.slides.kaggle import PATCH_MPP, PATCH_PX
from wsi_pipeline.training.fit import Recipe, fit, predict_logits
from wsi_pipeline.training.metrics import best_threshold, bootstrap_over_cases, fit_calibration, score
from wsi_pipeline.training.patches import PatchSet, load_patches
from wsi_pipeline.training.splits import Split, read_published, split_cases

log = logging.getLogger(__name__)
ARCHITECTURE = "torchvision/resnet18"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The patches of each part of the split."""

    train: PatchSet
    validation: PatchSet
    test: PatchSet
    split: Split

    @classmethod
    def load(cls, data: Path, seed: int) -> "Parts":
        """Read a folder of IDC patch folders or zips and split it by case.

        The published validation cases validate, where ``split_published.csv`` is there. Cases that are there whole
        and cases of which there is a sample are drawn apart, so that each part has both.
        """
        patches = load_patches([data])
        cases, counts = np.unique(patches.cases, return_counts=True)
        strata = {str(case): "whole" if count > 100 else "sample" for case, count in zip(cases, counts, strict=True)}
        published = data / "split_published.csv"
        validation = read_published(published, "validation") if published.exists() else ()
        split = split_cases(strata, validation=validation, strata=strata, seed=seed)
        parts = {name: patches.of(getattr(split, name)) for name in ("train", "validation", "test")}
        for name, part in parts.items():
            log.info("%s: %d cases, %d patches, %.1f %% IDC", name, *_counts(part), 100 * part.labels.mean())
        return cls(split=split, **parts)


def train_idc(parts: Parts, recipe: Recipe, *, pretrained: bool = False) -> nn.Module:
    """A torchvision ResNet-18 for 50x50 px at 4 µm/px, trained on the cases for training."""
    torch.manual_seed(recipe.seed)
    network = (build_pretrained if pretrained else build_network)(ARCHITECTURE, 2)
    mean, std = mean_std(parts.train)
    return fit(network, parts.train, parts.validation, recipe, mean=mean, std=std)


def publish(network: nn.Module, parts: Parts, out: Path, *, training: Mapping[str, object]) -> ModelBundle:
    """Calibrate and choose the threshold on the validation cases, measure on the test cases, save the bundle.

    The calibration's shift goes into the last layer's bias, its temperature into the card. Everything is measured on
    the weights as they ship, in half precision.

    Args:
        network: A trained one, ending in a linear layer ``fc``.
        parts: The patches.
        out: Folder of the new bundle.
        training: For the card: how the network was made.
    """
    mean, std = mean_std(parts.train)
    network = network.half().float()
    logits = predict_logits(network, parts.validation.images, mean, std)
    temperature, shift = fit_calibration(logits, parts.validation.labels)
    assert isinstance(network.fc, nn.Linear)
    with torch.no_grad():
        network.fc.bias[1] += shift * temperature
    network = network.half().float()
    probability = {
        name: _probability(predict_logits(network, part.images, mean, std), temperature)
        for name, part in (("validation", parts.validation), ("test", parts.test))
    }
    threshold = best_threshold(parts.validation.labels, probability["validation"])
    card = Card(
        name=out.name,
        description="Invasive ductal carcinoma in H&E of the breast; 50 x 50 px at 4 µm/px. For research use only.",
        architecture=ARCHITECTURE,
        class_names=("non-IDC", "IDC"),
        positive_class="IDC",
        patch_size_px=PATCH_PX,
        mpp=PATCH_MPP,
        input_px=PATCH_PX,
        mean=_triple(mean),
        std=_triple(std),
        temperature=temperature,
        threshold=Threshold(value=threshold, chosen="highest balanced accuracy on the validation cases"),
        weights=Weights(sha256="0" * 64),
        licence="MIT",
        training={
            "data": "Kaggle Breast Histopathology Images (IDC_regular_ps50_idx5), CC0; Janowczyk & Madabhushi 2016",
            **training,
            "calibration": "Platt scaling on the validation cases; its shift stands in the last layer's bias",
            "software": {"wsi_pipeline": __version__, "torch": torch.__version__},
            "split_by_case": asdict(parts.split),
        },
        metrics={
            name: _measure(part, probability[name], threshold)
            for name, part in (("validation", parts.validation), ("test", parts.test))
        },
    )
    return save_bundle(out, network, card)


def mean_std(train: PatchSet) -> tuple[Tensor, Tensor]:
    """Of a sample of the training pixels in 0..1, each [3, 1, 1]."""
    sample = train.images[:: max(1, len(train.images) // 4000)].reshape(-1, 3) / 255.0
    mean, std = (
        torch.tensor(values.round(4), dtype=torch.float32)[:, None, None] for values in (sample.mean(0), sample.std(0))
    )
    return mean, std


def _triple(values: Tensor) -> Triple:
    red, green, blue = (round(value, 4) for value in values.flatten().tolist())
    return red, green, blue


def _probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits / temperature), 1)[:, 1].numpy()


def _counts(part: PatchSet) -> tuple[int, int]:
    return len(np.unique(part.cases)), len(part.labels)


def _measure(part: PatchSet, probability: np.ndarray, threshold: float) -> dict[str, object]:
    def measure(labels: np.ndarray, values: np.ndarray) -> dict[str, float]:
        return score(labels, values, threshold)

    overall = measure(part.labels, probability)
    intervals = bootstrap_over_cases(part.labels, probability, part.cases, measure)
    cases, patches = _counts(part)
    return {
        "cases": cases,
        "patches": patches,
        **{key: round(value, 4) for key, value in overall.items()},
        "interval_95": {key: [round(v, 4) for v in pair] for key, pair in intervals.items()},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="folder with IDC patch folders or zips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new bundle")
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--pretrained", action="store_true", help="start from torchvision's ImageNet weights")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = f"python -m wsi_pipeline.training.train_idc DATA {shlex.join(sys.argv[2:])}"
    recipe = Recipe(epochs=args.epochs, seed=args.seed)
    parts = Parts.load(args.data, recipe.seed)
    network = train_idc(parts, recipe, pretrained=args.pretrained)
    start = "ImageNet" if args.pretrained else "random weights"
    training = {"command": command, "start": start, "recipe": asdict(recipe)}
    bundle = publish(network, parts, args.out, training=training)
    log.info("%s: %s", bundle.path, bundle.card.metrics["test"])


if __name__ == "__main__":
    main()
