"""The folder of a training: whether what lies in it is the same training, and no litter or noise around it."""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import TrainingError
from wsi_pipeline.files import make_folder, write_json
from wsi_pipeline.locks import LOCK_NAME, folder_lock
from wsi_pipeline.models.bundle import TRAINING_SUFFIX, load_bundle
from wsi_pipeline.models.card import Colours
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.sampling import Indices

IDENTITY_FILE = "identity.json"
PLAN_FILE = "plan.json"
"""At the root of the folder: how many folds, none for a plain training."""
RESULT_FILE = "result.json"
"""Written when a training is through."""

_HINT = "Give --restart to begin anew, or another --out."


@contextmanager
def training_folder(out: Path, *, folds: int, restart: bool) -> Iterator[Path]:
    """The folder of checkpoints and logs beside a bundle, ``<out>.training``, held for this training alone.

    The helper processes of further GPUs work under the lock of the first one.

    Args:
        out: Folder of the bundle.
        folds: Of a cross-validation; 0 for a plain training.
        restart: Empty it first.

    Raises:
        OutputError: where another training holds it, or it cannot be written.
        TrainingError: where it holds an interrupted training with another number of folds.
    """
    folder = out.with_name(out.name + TRAINING_SUFFIX)
    if is_helper():
        yield folder
        return
    with folder_lock(folder):
        if restart:
            _empty(folder)
        _check_plan(folder, folds)
        yield folder


def is_helper() -> bool:
    """Whether this process was started by a training on several GPUs to serve a further one."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def tidy(folder: Path) -> None:
    """Remove checkpoints and drafts of a training whose bundle is written; the logs stay."""
    for path in folder.rglob("*.ckpt"):
        path.unlink()
    for path in [path for name in ("draft", RESULT_FILE, IDENTITY_FILE, PLAN_FILE) for path in folder.rglob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_plan(folder: Path, folds: int) -> None:
    path = folder / PLAN_FILE
    before = json.loads(path.read_text(encoding="utf-8"))["folds"] if path.exists() else folds
    if before != folds:
        held, asked = (f"in {count} folds" if count else "without folds" for count in (before, folds))
        raise TrainingError(folder, f"holds an interrupted training {held}, this one is {asked}", _HINT)
    write_json(path, {"folds": folds})


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == LOCK_NAME:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_same(
    folder: Path,
    recipe: Recipe,
    dataset: PatchDataset,
    train: Indices,
    validation: Indices | None,
    *,
    colours: Colours | None,
) -> None:
    """Note what is trained in a folder; refuse one where something else is.

    `colours` are those that the first weights are used to: they tell downloaded weights from random ones.

    Raises:
        TrainingError: where the folder holds a training of another recipe, on other patches or from other weights.
    """
    make_folder(folder)
    mine: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "data": data_digest(dataset, train, validation)}
    mine["colours"] = colours and [list(part) for part in colours]
    if recipe.model.start is not None:
        mine["start"] = load_bundle(recipe.model.start).digest
    path = folder / IDENTITY_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        difference = _difference(before, mine, recipe)
        if difference:
            raise TrainingError(folder, f"holds an interrupted training {difference}", _HINT)
    write_json(path, mine)


def data_digest(dataset: PatchDataset, train: Indices, validation: Indices | None) -> str:
    """SHA-256 (hex) of names and labels of the patches, and of the part each is in."""
    digest = sha256(repr((dataset.class_names, dataset.patch_size)).encode())
    for part in (train, np.empty(0, np.int64) if validation is None else validation):
        digest.update(b"part")
        for index in part:
            sample = dataset.samples[index]
            digest.update(f"{sample.name}\t{sample.label}\n".encode())
    return digest.hexdigest()


def _difference(before: dict[str, Any], mine: dict[str, Any], recipe: Recipe) -> str:
    old, new = _flat(before["recipe"]), _flat(mine["recipe"])
    keys = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    try:
        same = Recipe.model_validate(before["recipe"]).digest() == recipe.digest()
    except ValueError:
        same = False
    if not same:
        return (
            f"of another recipe ({', '.join(f'{key}: {old.get(key)} there, {new.get(key)} now' for key in keys[:3])})"
        )
    if before["data"] != mine["data"]:
        return "on other patches, or split otherwise"
    if before.get("colours", mine["colours"]) != mine["colours"]:  # the first folders did not say
        return "from other weights: downloaded ones are there now that were not, or the other way round"
    return "" if before.get("start") == mine.get("start") else "from a bundle that is another one now"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice and banners away: what matters comes as an error of ours."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for module in ("lightning", "torch", "torchmetrics", "tensorboard", "google", "fsspec"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            warnings.filterwarnings("ignore", message=r".*(lr_scheduler|No positive samples|No negative samples)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic[0])
        torch.backends.cudnn.benchmark = deterministic[1]
