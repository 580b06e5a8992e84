"""From a recipe and a folder of patches to a bundle."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_pipeline.datasets import check_readable, open_dataset, split_dataset
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.check import describe, split_lines
from wsi_pipeline.datasets.splits import Split, draw_samples
from wsi_pipeline.errors import OutputError
from wsi_pipeline.models.bundle import CARD_FILE, ModelBundle, load_bundle
from wsi_pipeline.training.data import check_offsets, fits_memory, training_part
from wsi_pipeline.training.fit import Fitted, fit
from wsi_pipeline.training.interrupted import check_same, is_helper, tidy, training_folder
from wsi_pipeline.training.measuring import Measured, describe_metrics, draft_bundle, measure
from wsi_pipeline.training.publish import publish
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.sampling import Indices
from wsi_pipeline.training.start import Start, build, started_from, starts
from wsi_pipeline.training.teacher import Teacher
from wsi_pipeline.training.trainer import Device, choose_device, wait_for_others

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    limit: float = 1.0,
    device: Device = "auto",
    published: Path | None = None,
    overwrite: bool = False,
    restart: bool = False,
    command: str = "",
) -> ModelBundle:
    """Train a recipe on a data set and write the bundle.

    Checkpoints and logs lie in ``<out>.training/``; where an interrupted training left them, the same call goes on.
    What happens is logged with level INFO.

    Args:
        recipe: Settings.
        data: Folder, zip or file of labelled patches.
        out: Folder of the new bundle.
        limit: Fraction of the patches to use, for a trial.
        device: Where to train.
        published: CSV file of a published split (columns case,split), where it does not lie in the data's folder.
        overwrite: Replace a bundle that is there, when the new one is done.
        restart: Begin anew where a training was interrupted.
        command: For the card: how this was called.

    Raises:
        DatasetError: where the data cannot be used; the file is named.
        TrainingError: where the training cannot go on.
        OutputError: where `out` is there already or cannot be written.
        ConfigError: where recipe and data do not fit.
        BundleError: where the architecture is unknown, or the weights to start from must be had and cannot.
    """
    out = Path(out).absolute()
    check_free(out, data, recipe, overwrite=overwrite)
    dataset = open_for(recipe, data)
    split = _split(dataset, recipe, published, limit)
    log.info("%s", describe(dataset, split))
    held_out = np.concatenate([split.validation, split.test])
    before = started_from(recipe, dataset, held_out, leaky=split.leaky)
    if not is_helper():
        check_readable(dataset, _not_read_at_once(dataset, split, recipe))
    with training_folder(out, folds=0, restart=restart) as folder:
        start, fitted, measured = _train_on(dataset, split, recipe, folder, device)
        if recipe.split.compare_leaky and not split.leaky:
            measured = _with_leaky(measured, dataset, recipe, folder / "leaky", device=device, limit=limit)
        if is_helper():
            raise SystemExit(0)
        facts = {"command": command, "start": start.text, **before}
        bundle = publish(out, fitted, measured, dataset, split, recipe=recipe, training=facts)
        tidy(folder)
    log.info("%s", describe_metrics(bundle.card.metrics))
    return bundle


def open_for(recipe: Recipe, data: str | Path) -> PatchDataset:
    """The patches that a recipe trains and measures with.

    Raises:
        DatasetError: where they cannot be used, or are fewer than the recipe draws.
    """
    dataset = open_dataset(data, layout=recipe.data.layout, magnifications=recipe.data.magnifications)
    if not recipe.data.subset:
        return dataset
    return dataset.subset(draw_samples(dataset, recipe.data.subset, recipe.split.seed).tolist())


def _not_read_at_once(dataset: PatchDataset, split: Split, recipe: Recipe) -> Indices:
    """Patches that a training does not decode before its first step."""
    if recipe.split.compare_leaky:  # which draws from all patches, when the first training is through
        return np.arange(len(dataset))
    at_once = len(split.train) + len(split.validation)
    parts = [split.test] if fits_memory(dataset, at_once, recipe.data) else list(split.parts.values())
    return np.concatenate(parts)


def build_and_fit(
    dataset: PatchDataset, train: Indices, validation: Indices | None, recipe: Recipe, *, folder: Path, device: Device
) -> tuple[Start, Fitted]:
    """The recipe's network, from its first weights on, after its teacher where it has one; see `build` and `fit`."""
    start = build(recipe, dataset)
    teacher = None
    if recipe.distillation is not None:
        used = len(training_part(dataset, train, recipe)) + (0 if validation is None else len(validation))
        check_offsets(dataset, recipe, fits=fits_memory(dataset, used, recipe.data))
        # rather than when the teacher is through
        check_same(folder, recipe, dataset, train, validation, colours=start.colours)
        first, teacher = _train_teacher(dataset, train, validation, recipe, folder=folder / "teacher", device=device)
        start = replace(start, text=f"{start.text}; its teacher: {first.text}")
    fitted = fit(
        start.network,
        dataset,
        train,
        validation,
        recipe,
        folder=folder,
        colours=start.colours,
        teacher=teacher,
        device=device,
    )
    return start, fitted


def _train_teacher(
    dataset: PatchDataset, train: Indices, validation: Indices | None, recipe: Recipe, *, folder: Path, device: Device
) -> tuple[Start, Teacher]:
    """A network that learns from the labels alone, as a draft of a bundle: it sees no patch that the other does not."""
    own, weight = recipe.teacher()
    log.info("First its teacher, %s: %d epochs", own.model.architecture, own.optimisation.epochs)
    start, fitted = build_and_fit(dataset, train, validation, own, folder=folder, device=device)
    draft = folder / "draft"
    if not is_helper():
        draft_bundle(draft, fitted, dataset, own)
    wait_for_others()
    log.info("Now %s, which learns from it: %d epochs", recipe.model.architecture, recipe.optimisation.epochs)
    return start, Teacher(load_bundle(draft), weight)


def _split(dataset: PatchDataset, recipe: Recipe, published: Path | None, limit: float) -> Split:
    settings = recipe.split
    return split_dataset(
        dataset,
        kind=settings.kind,
        seed=settings.seed,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        published=published,
        limit=limit,
    )


def _train_on(
    dataset: PatchDataset, split: Split, recipe: Recipe, folder: Path, device: Device
) -> tuple[Start, Fitted, Measured]:
    start, fitted = build_and_fit(dataset, split.train, split.validation, recipe, folder=folder, device=device)
    if is_helper():
        return start, fitted, Measured.nothing()
    draft = draft_bundle(folder / "draft", fitted, dataset, recipe)
    where = choose_device(device)
    return start, fitted, measure(draft, dataset, split, recipe, device=where)


def _with_leaky(
    measured: Measured, dataset: PatchDataset, recipe: Recipe, folder: Path, *, device: Device, limit: float
) -> Measured:
    """Train again on a random split of patches and set its scores beside the honest ones. Its network is not kept."""
    log.info("Now the same recipe on a LEAKY split, patch by patch, to show what the leak is worth.")
    recipe = recipe.with_split("leaky")
    split = _split(dataset, recipe, None, limit)
    log.info("%s", "\n".join(split_lines(dataset, split)))
    _, _, leaky = _train_on(dataset, split, recipe, folder, device)
    return replace(measured, metrics={**measured.metrics, "leaky_comparison": leaky.metrics})


def check_free(out: Path, data: str | Path, recipe: Recipe, *, overwrite: bool) -> None:
    """Refuse to replace what is there, or to write among the patches.

    Args:
        out: Folder of the new bundle.
        data: Folder or file of the patches.
        recipe: Settings, which may name bundles to start from.
        overwrite: Whether a bundle may be replaced.

    Raises:
        OutputError: where `out` holds a bundle that may not be replaced, or that is needed, lies in the data, or is no
            folder.
        BundleError: where a bundle to start from cannot be read.
    """
    if not out.name or out.name == "..":
        raise OutputError(out, "has no name of its own", "Give the folder of the new bundle a name.")
    if out.resolve().is_relative_to(Path(data).resolve()):
        raise OutputError(out, "lies in the data", "Give the bundle a folder outside the data.")
    if any(bundle.path.resolve() == out.resolve() for bundle in starts(recipe)):
        raise OutputError(out, "is the bundle that the training starts from", "Give another --out.")
    if (out / CARD_FILE).exists() and not overwrite:
        raise OutputError(out, "holds a bundle already", "Give --overwrite to replace it, or another --out.")
    if out.exists() and not out.is_dir():
        raise OutputError(out, "is no folder", "Give the folder of the new bundle.")
