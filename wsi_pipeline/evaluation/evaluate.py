"""How good a bundle is on a data set: every patch shown to the network, everything measured."""

import numpy as np

from wsi_pipeline.context import refine_points
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import BundleError, ConfigError, DatasetError
from wsi_pipeline.evaluation.figures import Figures, figures, figures_by_case
from wsi_pipeline.evaluation.held_out import held_out_patches
from wsi_pipeline.evaluation.maps import Overlaps, measure_overlaps
from wsi_pipeline.evaluation.match import check_geometry, class_order, map_labels
from wsi_pipeline.evaluation.notes import warnings_of
from wsi_pipeline.evaluation.predict import predict_dataset
from wsi_pipeline.evaluation.result import Evaluation, Options, Patches, Probabilities
from wsi_pipeline.inference import Predictor, choose_device, default_batch
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.seen import Seen, mark, what_was_seen
from wsi_pipeline.scoring.calibration import Rows
from wsi_pipeline.scoring.metrics import call

_NOTHING_SEEN = Seen(known=True, leaky=False, train=frozenset(), validation=frozenset())
"""Of a cross-validation: no patch had been seen by the network that scored it."""

_OF_NETWORKS = ("tta", "unseen", "device", "batch_size", "engine", "precision")
"""Options that mean nothing where logits were kept."""


def evaluate(bundle: ModelBundle, dataset: PatchDataset, options: Options | None = None) -> Evaluation:
    """Measure a bundle on labelled patches.

    Nothing is fitted or chosen on these patches: calibration, threshold and second stage are the bundle's own. With
    `Options.out_of_fold` the bundle's cross-validation is measured instead, see `held_out_patches`.

    Args:
        bundle: The model.
        dataset: The patches; see `datasets.open_dataset`.
        options: See `Options`.

    Raises:
        ConfigError: where an option is out of its range or the device is not there.
        ResolutionError: where the patches are not of the bundle's size or resolution.
        DatasetError: where classes do not match, no case is left, or no patch can be read.
        BundleError: where the context is asked for and the bundle has none, or it was not cross-validated.
        InferenceError: where the network fails.
    """
    options = options or Options()
    _check_options(bundle, options)
    check_geometry(bundle.card, dataset)
    kept = options.out_of_fold
    seen = what_was_seen(bundle) if kept is None else _NOTHING_SEEN
    rows = select(dataset, seen, options)
    if kept is None:
        patches = predict(bundle, dataset.subset(rows.tolist()), seen, options)
    else:
        patches = held_out_patches(bundle, dataset, kept, rows, options)
    return measure(bundle, patches, seen, options)


def select(dataset: PatchDataset, seen: Seen, options: Options) -> Rows:
    """Indices of the patches of the cases asked for; with `unseen` of no case of which any patch was seen.

    Raises:
        DatasetError: where none is left.
    """
    groups = dataset.groups
    kept = np.ones(len(dataset), np.bool_)
    if options.cases is not None:
        kept &= np.isin(groups, list(options.cases)) | np.isin(dataset.cases, list(options.cases))
        if not kept.any():
            raise DatasetError(dataset.root, "holds none of the cases asked for", f"It holds {groups[0]}, for example.")
    if options.unseen:
        before = mark(dataset, seen.train | seen.validation)
        kept &= ~np.isin(groups, groups[before])
        if not kept.any():
            raise DatasetError(dataset.root, "holds no case that the model has not seen", "Leave out --unseen.")
    return np.flatnonzero(kept)


def predict(bundle: ModelBundle, dataset: PatchDataset, seen: Seen, options: Options) -> Patches:
    """Show every patch to the network.

    Raises:
        DatasetError: where classes do not match, or no patch can be read.
        InferenceError: where the network fails.
    """
    card, labels, device = bundle.card, map_labels(bundle.card, dataset), choose_device(options.device)
    size = options.batch_size or default_batch(card, device, len(dataset))
    predictor = Predictor(
        bundle=bundle, device=device, batch_size=size, engine=options.engine, precision=options.precision, keep=True
    )
    found = predict_dataset(dataset, predictor, tta=options.tta, thumbs=options.thumbs)
    if found.unreadable:
        dataset, labels = dataset.subset(found.rows.tolist()), labels[found.rows]
    classes = class_order(card)
    order = [card.class_names.index(name) for name in classes]
    calibrated = found.after[:, order]
    refined = _refine(bundle, dataset, calibrated, classes.index(card.positive_class), options)
    return Patches(
        dataset=dataset,
        labels=labels,
        cases=dataset.cases,
        groups=dataset.groups,
        uncalibrated=found.before[:, order],
        calibrated=calibrated,
        shipped=calibrated if refined is None else refined,
        refined=refined is not None,
        trained=mark(dataset, seen.train),
        validated=mark(dataset, seen.validation),
        thumbs=found.thumbs,
        unreadable=found.unreadable,
        computed=predictor.facts,
    )


def measure(bundle: ModelBundle, patches: Patches, seen: Seen, options: Options) -> Evaluation:
    """All figures of patches that the network has seen."""
    card, classes = bundle.card, class_order(bundle.card)
    positive = classes.index(card.positive_class)
    threshold, source = _threshold(bundle, options)

    def of(probabilities: Probabilities) -> Figures:
        return figures(patches.labels, probabilities, patches.groups, threshold, draws=options.draws, seed=options.seed)

    per_case = {}
    if patches.grouped:
        per_case = figures_by_case(patches.labels, patches.shipped, patches.cases, threshold, positive)
    return Evaluation(
        bundle=bundle,
        options=options,
        classes=classes,
        patches=patches,
        threshold=threshold,
        threshold_source=source,
        figures=of(patches.shipped),
        without_context=of(patches.calibrated) if patches.refined else None,
        per_case=per_case,
        whole_slide=_whole_slide(patches, threshold, positive, options),
        seen=seen,
        warnings=tuple(warnings_of(card, patches, seen, options)),
    )


def _check_options(bundle: ModelBundle, options: Options) -> None:
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ConfigError("threshold", f"{options.threshold:g} is no probability", "Give a number from 0 to 1.")
    if options.threshold is not None and len(bundle.card.class_names) > 2:
        why = f"is not used for {len(bundle.card.class_names)} classes: the most probable one is called"
        raise ConfigError("threshold", why, "Leave out --threshold.")
    if options.out_of_fold is not None:
        for name in _OF_NETWORKS:
            if getattr(options, name) != getattr(Options(), name):
                option = f"--{name.replace('_', '-')}"
                why = "means nothing with --out-of-fold: no network runs, and each that ran had not seen the case"
                raise ConfigError(option, why, f"Leave out {option}.")
    if options.context and bundle.card.context is None:
        raise BundleError(bundle.path, "has no second stage over the neighbourhood", "Leave out --context.")


def _threshold(bundle: ModelBundle, options: Options) -> tuple[float, str]:
    if len(bundle.card.class_names) > 2:
        return bundle.card.threshold.value, "not used: the most probable class is called"
    if options.threshold is not None:
        return options.threshold, "given"
    return bundle.card.threshold.value, bundle.card.threshold.chosen


def _refine(
    bundle: ModelBundle, dataset: PatchDataset, probabilities: Probabilities, positive: int, options: Options
) -> Probabilities | None:
    """Probabilities as the neighbourhood sees them; None where the bundle, the data or the user say no."""
    context, positions = bundle.card.context, dataset.positions
    if context is None or options.context is False or positions is None:
        return None
    before = probabilities[:, positive]
    after = refine_points(before, positions, dataset.cases, dataset.patch_size.width, context)
    rest = np.divide(1 - after, 1 - before, out=np.zeros_like(before), where=before < 1)
    refined = probabilities * rest[:, None]
    refined[:, positive] = after
    if probabilities.shape[1] == 2:  # exactly, where the network was sure of the positive class too
        refined[:, 1 - positive] = 1 - after
    return refined


def _whole_slide(patches: Patches, threshold: float, positive: int, options: Options) -> Overlaps | None:
    if not options.whole_slide or patches.dataset.positions is None:
        return None
    truth, called = patches.labels == positive, call(patches.shipped, threshold) == positive
    return measure_overlaps(truth, called, patches.cases, groups=patches.groups, draws=options.draws, seed=options.seed)
