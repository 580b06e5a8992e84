"""How good a trained network is: calibrated on validation patches, measured on unseen ones, as it ships."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.config import ThresholdAim
from wsi_pipeline.context import Context
from wsi_pipeline.datasets.ahead import read_ahead
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.broken import all_in_one
from wsi_pipeline.datasets.out_of_fold import may_have_context
from wsi_pipeline.datasets.splits import Split
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.inference import Predictor, default_batch
from wsi_pipeline.inference.devices import Device
from wsi_pipeline.models.bundle import ModelBundle, save_bundle
from wsi_pipeline.models.card import CROSS_VALIDATION, WITHOUT_CONTEXT, Card, Threshold, Weights
from wsi_pipeline.scoring.bootstrap import bootstrap_over_cases
from wsi_pipeline.scoring.calibration import AIMS, best_threshold, calibrate, fit_calibration
from wsi_pipeline.scoring.metrics import score
from wsi_pipeline.training.fit import Fitted
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.sampling import Indices
from wsi_pipeline.wording import counted

FEW_CASES = 20
"""With fewer cases in a part, its numbers are called too few to claim anything."""

DIGITS = 6
"""Decimals of a figure on a card: so many that to round it again to those shown is as good as to round once."""

_SHOWN = {
    "auroc": "AUROC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "F1",
    "precision": "precision", "recall": "recall", "specificity": "specificity",
    "average_precision": "average precision", "ece": "ECE",
}  # fmt: skip
_PARTS = (CROSS_VALIDATION, WITHOUT_CONTEXT, "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A network with its calibration, and how good it is."""

    temperature: float
    bias: tuple[float, ...]
    threshold: Threshold
    metrics: dict[str, Any]
    """For the card: of each part, scores with 95 % intervals; the split's kind; what must be known of them."""
    context: Context | None = None
    """The second stage, where one was fitted."""
    calibration: str = "temperature and biases (Platt scaling) fitted on the validation part"

    @classmethod
    def nothing(cls) -> Self:
        """For helper processes, which do not measure."""
        threshold = Threshold(value=0.5, chosen="not yet")
        return cls(temperature=1.0, bias=(), threshold=threshold, metrics={})


def make_card(name: str, fitted: Fitted, dataset: PatchDataset, recipe: Recipe, **more: Any) -> Card:
    """The card of a trained network.

    Args:
        name: Of the bundle.
        fitted: The network.
        dataset: What it was trained on: classes and resolution.
        recipe: Its architecture.
        more: What else is known; without it the threshold is 0.5.
    """
    known: dict[str, Any] = {"threshold": Threshold(value=0.5, chosen="not yet"), **more}
    return Card(
        name=name,
        architecture=recipe.model.architecture,
        class_names=dataset.class_names,
        positive_class=dataset.positive_class,
        patch_size_px=fitted.patch_px,
        mpp=dataset.mpp,
        input_px=fitted.input_px,
        mean=fitted.mean,
        std=fitted.std,
        weights=Weights(sha256="0" * 64),
        **known,
    )


def draft_bundle(folder: Path, fitted: Fitted, dataset: PatchDataset, recipe: Recipe) -> ModelBundle:
    """A bundle of the weights as they ship, not yet calibrated: for measuring. See `make_card` for the arguments."""
    return save_bundle(folder, fitted.network, make_card(folder.name, fitted, dataset, recipe))


def predict_logits(
    bundle: ModelBundle,
    dataset: PatchDataset,
    indices: Indices,
    *,
    device: Device,
) -> NDArray[np.float32]:
    """Raw logits, float32 [len(indices), classes], of a bundle on some patches of a data set.

    Args:
        bundle: Of the data set's classes.
        dataset: The patches.
        indices: Which, in this order.
        device: Where to.

    Raises:
        DatasetError: where some cannot be decoded: after all were tried, the first are named.
        InferenceError: where the network fails.
    """
    card, count = bundle.card, len(indices)
    predictor = Predictor(bundle=bundle, device=device, batch_size=default_batch(card, device, count))
    logits, errors = np.empty((count, len(card.class_names)), np.float32), dict[str, DatasetError]()
    with tqdm(total=count, desc="measuring", unit="patch", disable=None, leave=False) as bar:
        for chunk in read_ahead(dataset.subset(indices), card.patch_size_px):
            errors |= chunk.errors
            logits[chunk.rows] = predictor.logits(chunk.fields)
            bar.update(len(chunk.rows) + len(chunk.errors))
    if errors:
        raise all_in_one(dataset.root, errors, count)
    return logits


def measure(
    bundle: ModelBundle,
    dataset: PatchDataset,
    split: Split,
    recipe: Recipe,
    *,
    device: Device,
) -> Measured:
    """Calibrate a bundle and choose its threshold on the validation part, then measure on validation and test.

    Args:
        bundle: A draft.
        dataset: The patches.
        split: Its parts; where nothing validates, the calibration stays (1, 0) and the threshold 0.5.
        recipe: What the threshold is chosen for, and whether the epoch was chosen as well.
        device: Where to.
    """
    parts = {name: part for name, part in split.parts.items() if name != "train" and len(part)}
    labels = {name: dataset.labels[part] for name, part in parts.items()}
    logits = {name: predict_logits(bundle, dataset, part, device=device) for name, part in parts.items()}
    temperature, bias = 1.0, (0.0,) * len(dataset.class_names)
    threshold = Threshold(value=0.5, chosen="no validation patches to choose it on")
    if "validation" in parts:
        temperature, bias = fit_calibration(logits["validation"], labels["validation"])
    probabilities = {name: calibrate(values, temperature, bias) for name, values in logits.items()}
    if "validation" in parts:
        threshold = _choose(labels["validation"], probabilities["validation"], bundle.positive, recipe.threshold)
    metrics: dict[str, Any] = {
        "split": split.kind,
        "leaky": split.leaky,
        "unit": dataset.group_kind,
        "notes": _notes(dataset, split, recipe),
    }
    for name, part in parts.items():
        metrics[name] = scores(
            labels[name], probabilities[name], dataset.groups[part], threshold.value, bundle.positive
        )
    return Measured(temperature=temperature, bias=bias, threshold=threshold, metrics=metrics)


def _choose(labels: Indices, probabilities: NDArray[np.float32], positive: int, aim: ThresholdAim) -> Threshold:
    truth = (labels == positive).astype(np.int64)
    if len(np.unique(truth)) < 2:
        return Threshold(value=0.5, chosen="validation lacks the positive class or holds nothing else")
    value = best_threshold(truth, probabilities[:, positive], aim)
    return Threshold(value=value, chosen=f"{AIMS[aim]} on the validation part")


def scores(
    labels: Indices, probabilities: NDArray[np.float32], groups: NDArray[np.str_], threshold: float, positive: int
) -> dict[str, Any]:
    """Metrics of a part for the card, rounded, with 95 % intervals by bootstrap over cases.

    Args:
        labels: [n].
        probabilities: [n, classes], or [n] of the class 1.
        groups: [n], case of each patch.
        threshold: From which the positive class is called.
        positive: Its index.
    """
    if probabilities.ndim == 2 and probabilities.shape[1] == 2:
        labels, probabilities = (labels == positive).astype(np.int64), probabilities[:, positive]
    found = score(labels, probabilities, threshold)
    ranges = bootstrap_over_cases(labels, probabilities, groups, threshold)
    return {
        "cases": len(np.unique(groups)),
        "patches": len(labels),
        "threshold": threshold,
        **{key: round(value, DIGITS) for key, value in found.items()},
        "interval_95": {key: [round(end, DIGITS) for end in pair] for key, pair in ranges.items()},
    }


def _notes(dataset: PatchDataset, split: Split, recipe: Recipe) -> list[str]:
    """What a reader of the numbers must know."""
    notes = list(split.notes)
    if len(split.validation):
        which = "its figures flatter" if len(split.test) else "its figures, the only ones there are, flatter"
        chosen = _chosen(recipe, classes=len(dataset.class_names))
        notes.append(f"{chosen} chosen on the validation part: {which}.")
    if not split.leaky and may_have_context(dataset):
        notes.append("No second stage over the neighbourhood was fitted: --folds does that.")
    if dataset.group_kind == "picture" and split.kind != "published":
        notes.append("Which case a patch comes from is not known: patches of one case may stand in several parts.")
    for name in ("validation", "test"):
        cases = len(np.unique(dataset.groups[split.parts[name]]))
        if 0 < cases < FEW_CASES:
            notes.append(
                f"Only {counted(cases, dataset.group_kind)} in the {name} part: far too few to claim anything."
            )
    return notes


def _chosen(recipe: Recipe, classes: int) -> str:
    chosen = ["calibration"]
    if classes == 2:  # of more, the most probable one is called
        chosen.append("threshold")
    if recipe.optimisation.keep == "best" or recipe.optimisation.patience is not None:
        chosen.append("the epoch that is kept")
    first = ", ".join(chosen[:-1])
    return (f"{first} and {chosen[-1]} were" if first else f"{chosen[-1]} was").capitalize()


def describe_metrics(metrics: Mapping[str, Any]) -> str:
    """A line for each part that was measured, and the notes: what a person reads at the end of a training."""
    lines = list(_part_lines(metrics))
    leaky = metrics.get("leaky_comparison", {})
    if "test" in metrics and "test" in leaky:
        lines += _part_lines(leaky)
        honest, flattered = (found["test"]["accuracy"] for found in (metrics, leaky))
        lines.append(
            f"test accuracy {honest:.4f} on unseen cases, {flattered:.4f} on the LEAKY split: "
            f"a difference of {flattered - honest:+.4f}"
        )
    return "\n".join([*lines, *(f"- {note}" for note in metrics["notes"])])


def _part_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    for part in (name for name in _PARTS if name in metrics):
        found, values = metrics[part], []
        for key in (key for key in _SHOWN if key in found):
            ends = found["interval_95"].get(key)
            values.append(f"{_SHOWN[key]} {found[key]:.3f}" + (f" ({ends[0]:.3f}–{ends[1]:.3f})" if ends else ""))
        title = f"{'LEAKY ' if metrics['leaky'] else ''}{part.replace('_', ' ')}"
        count = f"{counted(found['cases'], metrics.get('unit', 'case'))}, {found['patches']:,} patches"
        yield f"{title}, {count}: {', '.join(values)}"
