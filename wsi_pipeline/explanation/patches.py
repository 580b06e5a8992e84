"""Labelled patches with the evidence in them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets import load_images
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.broken import NAMES_TOLD
from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.evaluation.match import check_geometry, class_order, map_labels
from wsi_pipeline.evaluation.predict import Unreadable, predict_dataset
from wsi_pipeline.explanation.choose import Pick, certainty, choose, rank
from wsi_pipeline.explanation.gradcam import GradCam
from wsi_pipeline.geometry import Size
from wsi_pipeline.inference import Predictor, default_batch
from wsi_pipeline.inference.devices import Device
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import Card
from wsi_pipeline.models.seen import mark, what_was_seen
from wsi_pipeline.scoring.metrics import call

log = logging.getLogger(__name__)

POOL = 2000
"""Patches that the network looks at to find right, wrong or uncertain ones; a data set may have many more."""

MAX_PATCHES = 200
"""Bound on the patches of one sheet."""

LEAKY_NOTE = "the model was measured on a LEAKY split"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What is said of one patch beside its picture."""

    name: str
    """Case, or name of the file."""
    label: str | None
    """Class by its label; None where it has none."""
    called: str
    """Class that the model calls."""
    probability: float
    """Calibrated, of the class that is explained; without the neighbourhood's say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPatches:
    """Patches with the evidence in them, a row each."""

    pixels: NDArray[np.uint8]
    """RGB [n, side, side, 3]."""
    evidence: NDArray[np.float32]
    """[n, side, side], log-odds, at least 0."""
    positions: tuple[tuple[int, int], ...]
    """(rows, cols) of the network's own maps, before they were enlarged."""
    patches: tuple[Patch, ...]
    card: Card
    class_name: str
    """What the evidence is for."""
    notes: tuple[str, ...]
    """What a reader must know of the choice, a clause each."""


def explain_patches(
    bundle: ModelBundle,
    dataset: PatchDataset,
    *,
    device: Device,
    class_name: str | None = None,
    count: int = 24,
    pick: Pick = "mixed",
    seed: int = 0,
    batch: int | None = None,
) -> ExplainedPatches:
    """Choose patches of a data set, as many of each class and of as many cases as can be, and explain them.

    What cannot be read is left out: a warning names it, and a note counts it.

    Args:
        bundle: The model.
        dataset: Its patches must fit the bundle.
        device: Where the network runs.
        class_name: What to show evidence for; None for the positive class.
        count: How many patches.
        pick: Which; for all but ``mixed``, at most `POOL` patches are looked at to find them.
        seed: Of the choice.
        batch: Patches at once; None chooses.

    Raises:
        ConfigError: where the count is out of range, or the model has no such class.
        ResolutionError: where the patches are not of the bundle's size or resolution.
        DatasetError: where the classes do not match, there are no such patches, or none can be read.
        BundleError: where the network cannot be explained.
        InferenceError: where it fails.
    """
    card, index = bundle.card, find_class(bundle.card, class_name)
    if not 1 <= count <= MAX_PATCHES:
        raise ConfigError("count", f"{count} is not between 1 and {MAX_PATCHES}", "A sheet has room for so many.")
    check_geometry(card, dataset)
    cam = GradCam(bundle, device, batch_size=batch)  # what cannot be explained is refused before the work begins
    chosen = _choose(bundle, dataset, device, count=count, pick=pick, seed=seed, batch=batch)
    # By label, then the most probable first.
    order = np.lexsort((-chosen.probabilities[:, index], chosen.labels))
    rows, classes = chosen.rows[order], class_order(card)
    pixels = load_images(dataset, rows, size=Size(card.patch_size_px, card.patch_size_px))
    patches = tuple(
        Patch(
            name=str(dataset.cases[chosen.rows[n]]),
            label=classes[chosen.labels[n]],
            called=classes[chosen.called[n]],
            probability=float(chosen.probabilities[n, index]),
        )
        for n in order
    )
    return ExplainedPatches(
        pixels=pixels,
        evidence=cam.maps(pixels, index),
        positions=cam.positions,
        patches=patches,
        card=card,
        class_name=card.class_names[index],
        notes=(
            _choice(dataset, len(rows), pick, chosen.looked, seed),
            *_trained(bundle, dataset, rows),
            *tell_unreadable(chosen.unreadable),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    rows: NDArray[np.int64]
    """[n]: places in the data set."""
    labels: NDArray[np.int64]
    """[n]: into `class_order`; so are those called."""
    called: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    """[n, classes], in the card's order."""
    looked: int
    """How many patches were shown to the network."""
    unreadable: tuple[Unreadable, ...]
    """Those that could not be."""


def _choose(
    bundle: ModelBundle,
    dataset: PatchDataset,
    device: Device,
    *,
    count: int,
    pick: Pick,
    seed: int,
    batch: int | None,
) -> _Chosen:
    card, labels, groups = bundle.card, map_labels(bundle.card, dataset), dataset.groups
    rng = np.random.default_rng(seed)
    looked = count if pick == "mixed" else max(POOL, count)
    pool = choose(labels, groups, rng.permutation(len(labels)).astype(np.float64), looked)
    predictor = Predictor(bundle=bundle, device=device, batch_size=batch or default_batch(card, device, len(pool)))
    found = predict_dataset(dataset.subset(pool.tolist()), predictor)
    pool = pool[found.rows]
    ordered = found.after[:, [card.class_names.index(name) for name in class_order(card)]]
    called = call(ordered, card.threshold.value)
    priority = rank(pick, called == labels[pool], certainty(ordered, card.threshold.value), rng)
    taken = choose(labels[pool], groups[pool], priority, count)
    if not len(taken):
        why = f"none of {len(pool):,} patches looked at is called {'rightly' if pick == 'right' else 'wrongly'}"
        raise DatasetError(dataset.root, why, "Pick others with --pick, or look at others with another --seed.")
    return _Chosen(
        rows=pool[taken],
        labels=labels[pool[taken]],
        called=called[taken],
        probabilities=found.after[taken],
        looked=len(pool),
        unreadable=found.unreadable,
    )


def tell_unreadable(unreadable: Sequence[Unreadable]) -> list[str]:
    """Warn of patches that are left out, by their names, and give the note that counts them, where there are any."""
    for patch in unreadable[:NAMES_TOLD]:
        log.warning("%s %s; it is left out", patch.name, patch.why)
    if len(unreadable) > NAMES_TOLD:
        log.warning("%d more cannot be read either; they are left out", len(unreadable) - NAMES_TOLD)
    return [f"{len(unreadable):,} more could not be read"] if unreadable else []


def find_class(card: Card, name: str | None) -> int:
    """Index of a class by its name, in any case; of the positive one where none is given.

    Raises:
        ConfigError: where there is no such class.
    """
    wanted = card.positive_class if name is None else name
    found = [n for n, known in enumerate(card.class_names) if known == wanted]
    found += [n for n, known in enumerate(card.class_names) if known.casefold() == wanted.casefold()]
    if not found:
        raise ConfigError(
            "class", f"{card.name} has no class {wanted!r}", f"Its classes: {', '.join(card.class_names)}."
        )
    return found[0]


def _choice(dataset: PatchDataset, count: int, pick: Pick, looked: int, seed: int) -> str:
    kinds = {"mixed": "any", "right": "called rightly", "wrong": "called wrongly", "uncertain": "nearest to a change"}
    among = "" if pick == "mixed" else f", among {looked:,} looked at"
    return f"{count} of {len(dataset):,} patches ({kinds[pick]}{among}; seed {seed})"


def _trained(bundle: ModelBundle, dataset: PatchDataset, rows: NDArray[np.int64]) -> list[str]:
    """What a model trained on, it may know by heart."""
    leaky = [LEAKY_NOTE] if bundle.card.leaky else []
    count = int(mark(dataset.subset(rows.tolist()), what_was_seen(bundle).train).sum())
    return [f"{count} of them trained the model, or are of cases that did", *leaky] if count else leaky
