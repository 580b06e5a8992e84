"""What must be said beside the figures, so that nobody takes them for more than they are."""

from collections.abc import Iterator

import numpy as np

from wsi_pipeline.evaluation.result import Options, Patches
from wsi_pipeline.models.card import Card
from wsi_pipeline.models.seen import Seen
from wsi_pipeline.wording import some_names

FEW_GROUPS = 10


def warnings_of(card: Card, patches: Patches, seen: Seen, options: Options) -> Iterator[str]:
    """Sentences, the gravest first."""
    if options.out_of_fold is None:
        yield from _of_seen(card, patches, seen)
    else:
        yield from _of_cross_validation(card, patches, options)
    yield from _of_data(card, patches, options)
    yield from _of_options(card, patches, options)


def _of_cross_validation(card: Card, patches: Patches, options: Options) -> Iterator[str]:
    fitted = "calibrated and refined" if patches.refined else "calibrated"
    yield (
        f"CROSS-VALIDATED: each patch was scored by a network that had not seen its case, {fitted} by what was fitted "
        "on the other folds. The bundle's own network, trained on all cases, is not measured here."
    )
    if options.threshold is None:
        yield "The threshold was chosen on all folds together, these patches among them, which flatters what is called."
        if patches.refined:
            yield from (f"The card says of all its cases: {note}" for note in card.metrics.get("notes", ()))


def _of_seen(card: Card, patches: Patches, seen: Seen) -> Iterator[str]:
    chose = "chose its threshold" if len(card.class_names) == 2 else "calibrated it"
    for marked, what in ((patches.trained, "trained this model"), (patches.validated, chose)):
        if not marked.any():
            continue
        count = f"{marked.sum():,} of {len(marked):,} patches"
        if patches.grouped:
            total, touched = len(np.unique(patches.groups)), len(np.unique(patches.groups[marked]))
            count = f"{touched:,} of {total:,} {patches.unit}s, which hold {count},"
        yield f"SEEN BEFORE: {count} {what}, so the figures flatter it; --unseen leaves them out."
    if seen.limit < 1:
        yield f"TRIAL: the model was trained with --limit {seen.limit:g}, so its figures say little."
    if seen.leaky:
        yield (
            "LEAKY: the model was trained on a split that puts patches of one case on both sides, so figures on such "
            "a split say nothing of new patients."
        )
    if not seen.known:
        yield "The model does not say which cases trained it: whether these are new to it is not known."


def _of_data(card: Card, patches: Patches, options: Options) -> Iterator[str]:
    if len(np.unique(patches.labels)) == 1:
        yield "The data hold one class only: what needs both is not given."
    absent = len(card.class_names) - len(np.unique(patches.labels))
    if absent and len(card.class_names) > 2:
        yield f"{absent} of the model's {len(card.class_names)} classes do not occur in the data."
    if patches.unreadable:
        names = [bad.name for bad in patches.unreadable]
        total = len(patches.labels) + len(names)
        yield f"{len(names):,} of {total:,} patches cannot be read and are left out: {some_names(names)}."
    groups, unit = len(np.unique(patches.groups)), patches.unit
    if not patches.grouped and groups > 1:
        yield "The data do not say which case a patch is of: intervals are over patches, and narrower than is true."
    elif groups == 1:
        yield f"All patches are of one {unit}: there are no intervals, and nothing is known of others."
    elif groups < FEW_GROUPS and options.draws:
        yield f"There are {groups} {unit}s only: the intervals are rough."


def _of_options(card: Card, patches: Patches, options: Options) -> Iterator[str]:
    if options.unseen:
        yield f"What the model had seen is left out (--unseen): {patches.unit}s that trained or calibrated it."
    if options.cases is not None:
        missing = sorted(set(options.cases).difference(patches.cases.tolist(), patches.groups.tolist()))
        if missing:
            yield f"Cases asked for but not evaluated: {some_names(missing)}."
    unplaced = patches.dataset.positions is None
    if card.context is not None and not patches.refined:
        why = "the places of the patches are not known" if unplaced else "as asked"
        foreign, alone = "", card.threshold_without_context
        if options.threshold is None and card.threshold_needs_context:
            other = "" if alone is None else f"; without it {alone:g} was chosen (--threshold)"
            foreign = f" The model's threshold was chosen with it{other}."
        yield f"The model's second stage over the neighbourhood was left out: {why}.{foreign}"
    if options.whole_slide and unplaced:
        yield "The places of the patches are not known, so cases cannot be put together again."
    if options.threshold is not None:
        yield f"The threshold {options.threshold:g} was given; the model's own is {card.threshold.value:g}."
