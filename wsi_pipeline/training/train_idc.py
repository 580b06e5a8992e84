"""Train the shipped IDC bundle: ``python -m wsi_pipeline.training.train_idc DATA --out FOLDER``.

Cases are split before anything else: the published validation cases (Janowczyk 2016) choose threshold and
temperature, a fifth of the others is kept for the test that the card reports.
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from wsi_pipeline import __version__
from wsi_pipeline.models.architectures import build_network, build_pretrained
from wsi_pipeline.models.bundle import ModelBundle, save_bundle
from wsi_pipeline.models.card import Card, Threshold, Weights
from wsi_pipeline.slides.kaggle import PATCH_MPP, PATCH_PX
from wsi_pipeline.training.fit import Recipe, fit, predict_logits
from wsi_pipeline.training.metrics import best_threshold, bootstrap_over_cases, fit_temperature, score
from wsi_pipeline.training.patches import PatchSet, load_patches
from wsi_pipeline.training.splits import Split, read_published, split_cases

log = logging.getLogger(__name__)
ARCHITECTURE = "torchvision/resnet18"


def train_idc(data: Path, out: Path, recipe: Recipe, *, pretrained: bool = False, command: str = "") -> ModelBundle:
    """Train, choose, test and save a ResNet-18 for 50x50 px at 4 µm/px.

    Args:
        data: Folder with IDC patch folders or zips and, if there is one, ``split_published.csv``.
        out: Folder of the new bundle.
        recipe: Settings of the training.
        pretrained: Start from torchvision's ImageNet weights.
        command: For the card: how to do it again.
    """
    patches = load_patches([data])
    split = _split(data, patches, recipe.seed)
    train, validation, test = (patches.of(part) for part in (split.train, split.validation, split.test))
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        log.info("%s: %d cases, %d patches, %.1f %% IDC", name, *_counts(part)[:2], 100 * part.labels.mean())
    mean, std = _mean_std(train)
    torch.manual_seed(recipe.seed)
    network = (build_pretrained if pretrained else build_network)(ARCHITECTURE, 2)
    network = fit(network, train, validation, recipe, mean=mean, std=std)
    # The weights ship as float16: what is chosen and reported below must be what ships.
    network = network.half().float()
    logits = predict_logits(network, validation.images, mean, std)
    temperature = fit_temperature(logits, validation.labels)
    threshold = best_threshold(validation.labels, _probability(logits, temperature))
    card = Card(
        name=out.name,
        description="Invasive ductal carcinoma in H&E of the breast; 50 x 50 px at 4 µm/px. For research use only.",
        architecture=ARCHITECTURE,
        class_names=("non-IDC", "IDC"),
        positive_class="IDC",
        patch_size_px=PATCH_PX,
        mpp=PATCH_MPP,
        input_px=PATCH_PX,
        mean=tuple(mean.flatten().tolist()),
        std=tuple(std.flatten().tolist()),
        temperature=temperature,
        threshold=Threshold(value=threshold, chosen="highest balanced accuracy on the validation cases"),
        weights=Weights(sha256="0" * 64),
        licence="MIT",
        training={
            "data": "Kaggle Breast Histopathology Images (IDC_regular_ps50_idx5), CC0; Janowczyk & Madabhushi 2016",
            "recipe": {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__},
            "start": "ImageNet" if pretrained else "random weights",
            "command": command,
            "software": {"wsi_pipeline": __version__, "torch": torch.__version__},
            "patches": {
                name: _counts(part)[1] for name, part in (("train", train), ("validation", validation), ("test", test))
            },
            "split_by_case": {"train": split.train, "validation": split.validation, "test": split.test},
        },
        metrics={
            name: _measure(part, _probability(predict_logits(network, part.images, mean, std), temperature), threshold)
            for name, part in (("validation", validation), ("test", test))
        },
    )
    return save_bundle(out, network, card)


def _split(data: Path, patches: PatchSet, seed: int) -> Split:
    """Cases that are here whole and cases of which a sample is here are drawn apart, so that each part has both."""
    cases, counts = np.unique(patches.cases, return_counts=True)
    strata = {str(case): "whole" if count > 100 else "sample" for case, count in zip(cases, counts, strict=True)}
    published = data / "split_published.csv"
    validation = read_published(published, "validation") if published.exists() else ()
    return split_cases(strata, validation=validation, strata=strata, seed=seed)


def _mean_std(train: PatchSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the training pixels in 0..1, each [3, 1, 1]."""
    sample = train.images[:: max(1, len(train.images) // 4000)].reshape(-1, 3) / 255.0
    return tuple(torch.tensor(v.round(4), dtype=torch.float32)[:, None, None] for v in (sample.mean(0), sample.std(0)))  # type: ignore[return-value]


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
    bundle = train_idc(args.data, args.out, recipe, pretrained=args.pretrained, command=command)
    log.info("%s: %s", bundle.path, bundle.card.metrics["test"])


if __name__ == "__main__":
    main()
