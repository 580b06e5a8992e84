"""From a trained and measured network to a bundle."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wsi_pipeline import __version__
from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.splits import Split, class_counts
from wsi_pipeline.files import atomic_path, make_folder, write_json
from wsi_pipeline.models.bundle import CARD_FILE, SPLIT_FILE, ModelBundle, save_bundle
from wsi_pipeline.training.fit import Fitted, write_history
from wsi_pipeline.training.measuring import Measured, make_card
from wsi_pipeline.training.recipe import Recipe

LISTED = 2000
"""Up to so many names, the card lists the split itself; beyond, only ``split.json`` does."""

FOLDS_FILE = "folds.json"
_OF_OTHERS = (FOLDS_FILE, "model-int8.xml", "model-int8.bin")
"""Files that a bundle which is replaced may have, and the new one has not."""


def publish(
    out: Path,
    fitted: Fitted,
    measured: Measured,
    dataset: PatchDataset,
    split: Split,
    *,
    recipe: Recipe,
    training: Mapping[str, object],
    folds: Mapping[str, int] | None = None,
) -> ModelBundle:
    """Write the bundle: ``split.json``, ``history.csv``, ``recipe.yaml``, the weights in float16, and the card last.

    Args:
        out: Its folder; what it replaces is no bundle any more from the first file on, and nothing of it is left.
        fitted: The trained network.
        measured: Calibration and metrics of these very weights.
        dataset: All patches.
        split: Its parts.
        recipe: Settings.
        training: More for the card: command, start.
        folds: The fold of each case, for `FOLDS_FILE`; None where there was no cross-validation.

    Raises:
        OutputError: where it cannot be written.
    """
    make_folder(out)
    (out / CARD_FILE).unlink(missing_ok=True)
    for old in _OF_OTHERS:
        (out / old).unlink(missing_ok=True)
    if folds is not None:
        write_json(out / FOLDS_FILE, folds)
    write_json(out / SPLIT_FILE, split.as_json(dataset))
    write_history(out / "history.csv", fitted.history)
    with atomic_path(out / "recipe.yaml") as part:
        part.write_text(recipe.without_folders().as_yaml(), encoding="utf-8")
    leaky = "LEAKY split: its scores say nothing of unseen patients. " if split.leaky else ""
    card = make_card(
        out.name,
        fitted,
        dataset,
        recipe,
        description=f"{recipe.description} {_sees(fitted, dataset)} {leaky}{RESEARCH_USE}.".strip(),
        temperature=measured.temperature,
        bias=measured.bias,
        context=measured.context,
        threshold=measured.threshold,
        licence="MIT" if dataset.source else "",  # of weights from one's own data we know nothing
        limits=(*dataset.limits, *recipe.limits),
        training={
            **training,
            "calibration": measured.calibration,
            **facts(dataset, split, recipe.without_folders(), fitted),
        },
        metrics=measured.metrics,
    )
    return save_bundle(out, fitted.network, card)


def _sees(fitted: Fitted, dataset: PatchDataset) -> str:
    resolution = f" at {dataset.mpp:.3g} µm/px" if dataset.mpp else ""
    return f"{fitted.patch_px} x {fitted.patch_px} px{resolution}."


def facts(dataset: PatchDataset, split: Split, recipe: Recipe, fitted: Fitted) -> dict[str, Any]:
    """What the card tells of how a network came to be, JSON-able: data, recipe, split, software, hardware."""
    described = split.as_json(dataset)
    listed = {key: value for key, value in described.items() if key in {*split.parts, "cases"}}
    if sum(len(names) for names in (*listed.values(), *listed.get("cases", {}).values())) > LISTED:
        described = {key: value for key, value in described.items() if key not in listed}
    names = ["torch", "torchvision", "lightning", "numpy"]
    if recipe.distillation is not None and find_spec("openvino") is not None:
        names.append("openvino")  # which computes the teacher on a CPU
    return {
        "data": dataset.source or f"patches of one's own, in the layout {dataset.layout}",
        "patches": {part: class_counts(dataset, indices) for part, indices in split.parts.items()},
        "epochs": len(fitted.history),
        "recipe": recipe.model_dump(mode="json", exclude={"description", "limits"}),
        "split": described,
        "software": {"wsi_pipeline": __version__, "python": platform.python_version()}
        | {name: version(name) for name in names},
        "hardware": fitted.hardware,
    }
