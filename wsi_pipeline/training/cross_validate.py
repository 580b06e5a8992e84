"""Cross-validation by case, then one network trained on all cases: how a model to ship is made and measured.

Every case is scored once by a network that never saw it. On these out-of-fold scores calibration, second stage
(`wsi_pipeline.context`) and threshold are fitted; the figures in the card are cross-fitted: each fold is scored with a
calibration and a second stage that were fitted on the other folds. The network that ships is trained on all cases by
the same recipe, so on new cases it should do no worse than the card says.
"""

import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import ThresholdAim
from wsi_pipeline.datasets import check_readable
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.check import describe
from wsi_pipeline.datasets.out_of_fold import LOGITS_FILE, OutOfFold
from wsi_pipeline.datasets.splits import Split, folds, limit_samples
from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.models.bundle import ModelBundle
from wsi_pipeline.models.card import CROSS_VALIDATION, WITHOUT_CONTEXT, Threshold
from wsi_pipeline.scoring.calibration import AIMS, Probabilities, best_threshold
from wsi_pipeline.scoring.metrics import score
from wsi_pipeline.training.interrupted import is_helper, tidy, training_folder
from wsi_pipeline.training.measuring import (
    FEW_CASES,
    Measured,
    describe_metrics,
    draft_bundle,
    predict_logits,
    scores,
)
from wsi_pipeline.training.publish import publish
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.start import started_from
from wsi_pipeline.training.train import build_and_fit, check_free, open_for
from wsi_pipeline.training.trainer import Device, choose_device
from wsi_pipeline.wording import counted

log = logging.getLogger(__name__)


def cross_validate(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    count: int,
    limit: float = 1.0,
    device: Device = "auto",
    overwrite: bool = False,
    restart: bool = False,
    command: str = "",
) -> ModelBundle:
    """Measure a recipe by cross-validation over cases, train it on all of them and write the bundle.

    Interrupted, the same call goes on where it stopped, as `train` does. The out-of-fold logits are kept in
    ``<out>.training/out_of_fold.npz`` and the fold of each case in ``folds.json`` beside the bundle.

    Args:
        recipe: Settings; of its split only the seed is used, and nothing validates, so nothing stops early.
        data: Labelled patches of two classes.
        out: Folder of the new bundle.
        count: Number of folds.
        limit: Fraction of the patches to use, for a trial.
        device: Where to train.
        overwrite: Replace a bundle that is there, when the new one is done.
        restart: Begin anew where a training was interrupted.
        command: For the card: how this was called.

    Raises:
        DatasetError: where the data cannot be used, or have fewer cases than folds.
        TrainingError: where a training cannot go on.
        OutputError: where `out` is there already or cannot be written.
        ConfigError: where recipe and data do not fit, or the recipe's split is a published one.
        BundleError: where a bundle to start from, or weights that must be had, cannot be read.
    """
    out = Path(out).absolute()
    _check_split(recipe)
    recipe = recipe.with_split("case")
    check_free(out, data, recipe, overwrite=overwrite)
    dataset = _open(recipe, data, limit)
    log.info("%s", describe(dataset))
    every = np.arange(len(dataset))
    before = started_from(recipe, dataset, every, leaky=False)
    pairs = folds(dataset, count, recipe.split.seed)
    if not is_helper():
        check_readable(dataset, every)  # rather than when a fold is through
    with training_folder(out, folds=count, restart=restart) as folder:
        fold = np.empty(len(dataset), np.int64)
        logits = np.empty((len(dataset), len(dataset.class_names)), np.float32)
        for number, (train, held_out) in enumerate(pairs):
            log.info("Fold %d of %d: %d patches train, %d are held out", number + 1, count, len(train), len(held_out))
            fold[held_out] = number
            _, fitted = build_and_fit(dataset, train, None, recipe, folder=folder / f"fold-{number}", device=device)
            if not is_helper():
                draft = draft_bundle(folder / f"fold-{number}" / "draft", fitted, dataset, recipe)
                logits[held_out] = predict_logits(draft, dataset, held_out, device=choose_device(device))
        if is_helper():
            build_and_fit(dataset, every, None, recipe, folder=folder / "all", device=device)
            raise SystemExit(0)
        kept = OutOfFold(dataset=dataset, logits=logits, fold=fold)
        kept.save(folder / LOGITS_FILE)
        measured = measure_folds(kept, limit, recipe.threshold)
        log.info("%s", describe_metrics(measured.metrics))
        log.info("Now all %d patches train the network that ships", len(dataset))
        start, fitted = build_and_fit(dataset, every, None, recipe, folder=folder / "all", device=device)
        note = f"All cases trained the network; its figures are of {count} networks that each left some cases out."
        split = Split(kind="case", seed=recipe.split.seed, train=every, limit=limit, notes=(note,))
        facts = {"command": command, "start": start.text, **before}
        where = {case: int(n) for case, n in zip(dataset.groups.tolist(), fold, strict=True)}
        bundle = publish(out, fitted, measured, dataset, split, recipe=recipe, training=facts, folds=where)
        tidy(folder)
        if limit == 1 and not recipe.data.subset:
            log.info("Its curves, cases and patches: %s", _evaluation(recipe, dataset, out, folder / LOGITS_FILE))
    return bundle


def _evaluation(recipe: Recipe, dataset: PatchDataset, out: Path, kept: Path) -> str:
    """The command that shows a cross-validation."""
    words = ["wsi-pipeline", "evaluate", "--model", out, "--data", dataset.root, "--out-of-fold", kept]
    words += ["--layout", recipe.data.layout] if recipe.data.layout != "auto" else []
    words += [word for value in recipe.data.magnifications for word in ("--magnification", value)]
    return shlex.join(map(str, [*words, "--report", "cross-validation.html"]))


def _check_split(recipe: Recipe) -> None:
    """Refuse what the recipe asks of its split that folds cannot give."""
    if recipe.split.compare_leaky:
        hint = "Add --set split.compare_leaky=false, or leave out --folds."
        raise ConfigError("split.compare_leaky", "is not for cross-validation", hint)
    if recipe.split.kind == "published":
        why = "is not for cross-validation: all cases would train, those of its test part too"
        raise ConfigError("split.kind: published", why, "Train without --folds, or set split.kind to case.")


def _open(recipe: Recipe, data: str | Path, limit: float) -> PatchDataset:
    """The patches, or so many of them, where they can be cross-validated by case."""
    dataset = open_for(recipe, data)
    if dataset.group_kind == "picture":
        why = "does not tell which case a patch comes from, so it cannot be cross-validated by case"
        raise DatasetError(dataset.root, why, "Train without --folds.")
    if len(dataset.class_names) != 2:
        why = f"has {len(dataset.class_names)} classes; cross-validation is for two"
        raise DatasetError(dataset.root, why, "Train without --folds.")
    return limit_samples(dataset, limit, recipe.split.seed)


def measure_folds(kept: OutOfFold, limit: float = 1.0, aim: ThresholdAim = "balanced_accuracy") -> Measured:
    """Calibration, second stage and threshold from out-of-fold logits, and what they are worth, cross-fitted.

    The second stage is fitted where the places of the patches are known.

    Args:
        kept: The logits.
        limit: Fraction of the patches that were used: a trial is called one.
        aim: What the threshold is chosen for.
    """
    dataset, truth, groups = kept.dataset, kept.truth, kept.dataset.groups
    first, final = kept.cross_fitted()
    temperature, bias, context = kept.fit()
    value = best_threshold(truth, final, aim)
    metrics: dict[str, Any] = {
        "split": "case",
        "leaky": False,
        "unit": dataset.group_kind,
        "notes": [
            *_notes(dataset, kept.folds, limit),
            *_with_thresholds_of_others(truth, final, kept.fold, aim),
        ],
        CROSS_VALIDATION: scores(truth, final, groups, value, 1),
    }
    if context is not None:
        alone = first[:, kept.positive]
        metrics[WITHOUT_CONTEXT] = scores(truth, alone, groups, best_threshold(truth, alone, aim), 1)
    return Measured(
        temperature=temperature,
        bias=bias,
        threshold=Threshold(value=value, chosen=f"{AIMS[aim]} on cross-validated patches"),
        metrics=metrics,
        context=context,
        calibration="temperature and biases (Platt scaling), and the second stage, fitted on out-of-fold logits",
    )


def _notes(dataset: PatchDataset, count: int, limit: float) -> list[str]:
    """What a reader of the numbers must know."""
    unit, cases = dataset.group_kind, len(np.unique(dataset.groups))
    notes = [f"Cross-validation by {unit}, {count} folds; the threshold was chosen on all folds together."]
    if cases < FEW_CASES:
        notes.append(f"Only {counted(cases, unit)}: far too few to claim anything.")
    if limit < 1:
        notes.append(
            f"Only {len(dataset):,} patches are used, {limit:.1%} of each class of each {unit} but at least one: a "
            "trial, not a result, and of another balance of classes than the data."
        )
    return notes


def _with_thresholds_of_others(
    truth: NDArray[np.int64], probability: Probabilities, fold: NDArray[np.int64], aim: ThresholdAim
) -> Iterator[str]:
    """What the threshold's choice on all folds flatters: each fold called from a threshold of the other ones."""
    called = np.empty(len(truth), np.float32)
    for number in np.unique(fold):
        held_out = fold == number
        if len(np.unique(truth[~held_out])) < 2:
            return
        value = best_threshold(truth[~held_out], probability[~held_out], aim)
        called[held_out] = probability[held_out] >= value
    found = score(truth, called, 0.5)
    yield (
        "Each fold called from a threshold that was chosen on the other folds: balanced accuracy "
        f"{found['balanced_accuracy']:.3f}, F1 {found['f1']:.3f}."
    )
