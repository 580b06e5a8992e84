"""From a trained and measured network to a bundle."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
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

_SOURCES = {
    "idc": "Kaggle Breast Histopathology Images (IDC_regular_ps50_idx5), CC0; Janowczyk & Madabhushi 2016",
    "breakhis": "BreakHis, CC BY 4.0; Spanhol et al. 2016",
    "pcam": "PatchCamelyon, CC0; Veeling et al. 2018, Bejnordi et al. 2017",
}


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
        part.write_text(recipe.as_yaml(), encoding="utf-8")
    leaky = "LEAKY split: its scores say nothing of unseen patients. " if split.leaky else ""
    card = make_card(
        out.name,
        fitted,
        dataset,
        recipe,
        description=f"{recipe.description} {leaky}{RESEARCH_USE}.".strip(),
        temperature=measured.temperature,
        bias=measured.bias,
        context=measured.context,
        threshold=measured.threshold,
        licence="MIT",
        limits=recipe.limits,
        training={**training, "calibration": measured.calibration, **facts(dataset, split, recipe, fitted)},
        metrics=measured.metrics,
    )
    return save_bundle(out, fitted.network, card)


def facts(dataset: PatchDataset, split: Split, recipe: Recipe, fitted: Fitted) -> dict[str, Any]:
    """What the card tells of how a network came to be, JSON-able: data, recipe, split, software, hardware."""
    described = split.as_json(dataset)
    listed = {key: value for key, value in described.items() if key in {*split.parts, "cases"}}
    if sum(len(names) for names in (*listed.values(), *listed.get("cases", {}).values())) > LISTED:
        described = {key: value for key, value in described.items() if key not in listed}
    names = ("torch", "torchvision", "lightning", "numpy")
    return {
        "data": _SOURCES.get(dataset.layout, dataset.layout),
        "patches": {part: class_counts(dataset, indices) for part, indices in split.parts.items()},
        "epochs": len(fitted.history),
        "recipe": _without_folders(recipe.model_dump(mode="json", exclude={"description", "limits"})),
        "split": described,
        "software": {"wsi_pipeline": __version__, "python": platform.python_version()}
        | {name: version(name) for name in names},
        "hardware": fitted.hardware,
    }


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """A bundle to start from by its name alone: where it lies on this machine is nobody's business."""
    for section in (recipe, recipe["distillation"] or {}):
        if (model := section.get("model")) and model["start"] is not None:
            model["start"] = Path(model["start"]).name
    return recipe
