"""A network before its training: from random weights, from ImageNet's, or from those of a bundle (fine-tuning)."""

import logging
from dataclasses import dataclass
from math import isclose
from typing import Any

import numpy as np
import torch
from torch import nn

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import BundleError, ConfigError, DatasetError
from wsi_pipeline.models.architectures import (
    build_network,
    build_pretrained,
    imagenet_colours,
    is_too_small,
    normalises_itself,
    trunk_and_head,
)
from wsi_pipeline.models.bundle import ModelBundle, load_bundle
from wsi_pipeline.models.card import Colours
from wsi_pipeline.models.seen import SEEN_BEFORE, Seen, mark, what_was_seen
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.sampling import Indices
from wsi_pipeline.training.schedules import named_stages, trained_at

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A network with its first weights."""

    network: nn.Module
    text: str
    """Where they come from, for the card."""
    colours: Colours | None = None
    """What they were trained with; None for random weights."""


def build(recipe: Recipe, dataset: PatchDataset) -> Start:
    """The recipe's network for a data set, with its first weights; what does not suit it is refused here.

    Those of the bundle ``model.start``; else ImageNet's, where the recipe wants them and they can be had; else random.

    Raises:
        BundleError: where the architecture is unknown, a bundle cannot be read, or ImageNet weights are a must and
            cannot be had.
        ConfigError: where the bundle's network is another than the recipe's, or normalises its channels itself although
            the recipe wants them normalised, or its schedule names stages that the network has not, or the patches
            are too small for it.
    """
    check_normalisation(recipe)
    start = _first_weights(recipe, dataset)
    _check_side(start.network, recipe, dataset)
    if recipe.optimisation.stages:
        trained_at(recipe.optimisation.stages, 1, tuple(named_stages(start.network)))
    return start


def _first_weights(recipe: Recipe, dataset: PatchDataset) -> Start:
    architecture, choice, classes = recipe.model.architecture, recipe.model.pretrained, len(dataset.class_names)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if recipe.model.start is not None:
            return _from_bundle(load_bundle(recipe.model.start), recipe, dataset)
        if choice != "no":
            try:
                network = build_pretrained(architecture, classes)
                return Start(network=network, text="ImageNet", colours=imagenet_colours(architecture))
            except BundleError as error:
                if choice == "yes":
                    raise
                log.info("Starting from random weights. %s", error)
        torch.manual_seed(recipe.seed)
        network = build_network(architecture, classes)
    wanted = "random weights" if choice == "no" else "random weights (ImageNet weights could not be had)"
    return Start(network=network, text=wanted)


def check_normalisation(recipe: Recipe) -> None:
    """Refuse other colours than plain ones for a network that normalises its channels itself.

    Raises:
        ConfigError: where the recipe wants others.
    """
    wanted, architecture = recipe.model.normalisation, recipe.model.architecture
    if wanted not in {"auto", "none"} and normalises_itself(architecture):
        why = f"{wanted} does not suit {architecture}, which normalises its channels itself"
        raise ConfigError("model.normalisation", why, "Set it to none.")


def _check_side(network: nn.Module, recipe: Recipe, dataset: PatchDataset) -> None:
    side = smallest = recipe.model.input_px or min(dataset.patch_size.width, dataset.patch_size.height)
    while is_too_small(smallest, network):
        smallest += 1
    if smallest > side:
        why = f"{side} px are too few for {recipe.model.architecture}, whose last stages would halve a single pixel"
        hint = f"Give --set model.input_px={smallest} or more, or another architecture."
        raise ConfigError("model.input_px", why, hint)


def _from_bundle(bundle: ModelBundle, recipe: Recipe, dataset: PatchDataset) -> Start:
    """All weights, or all but the last layers' where the classes are others."""
    _check_network(bundle, recipe)
    network, text = bundle.build(), f"the bundle {bundle.card.name}, {bundle.digest[:12]}"
    if bundle.card.class_names != dataset.class_names:
        fresh = build_network(bundle.card.architecture, len(dataset.class_names))
        trunk_and_head(fresh)[0].load_state_dict(trunk_and_head(network)[0].state_dict())
        network, text = fresh, f"{text}, but for the last layers, as its classes are others"
    log.info("Starting from %s", text)
    if bundle.card.mpp and dataset.mpp and not isclose(bundle.card.mpp, dataset.mpp, rel_tol=0.05):
        log.info("It was trained at %g µm/px, these patches have %g.", bundle.card.mpp, dataset.mpp)
    return Start(network=network.train().requires_grad_(True), text=text, colours=(bundle.card.mean, bundle.card.std))


def _check_network(bundle: ModelBundle, recipe: Recipe) -> None:
    card, wanted = bundle.card, recipe.model
    name = f"model.start: {wanted.start}"
    if card.weights is None or not card.weights.file.endswith(".safetensors"):
        why = "is an ensemble" if card.weights is None else "holds a compiled network"
        raise ConfigError(name, f"{why}, which cannot be trained further", "Start from a bundle of one network.")
    resized = card.input_px if card.input_px != card.patch_size_px else None
    keys = {"architecture": card.architecture} | ({"input_px": resized} if resized and not wanted.input_px else {})
    wrong = {key: value for key, value in keys.items() if getattr(wanted, key) != value}
    if wrong:
        why = ", ".join(f"{key} is {value} there and {getattr(wanted, key)} here" for key, value in wrong.items())
        hint = " ".join(f"--set model.{key}={value}" for key, value in wrong.items())
        raise ConfigError(name, why, f"Give {hint}, or start from another bundle.")


def starts(recipe: Recipe) -> list[ModelBundle]:
    """The bundles that the network and its teacher start from.

    Raises:
        BundleError: where one cannot be read.
    """
    teacher = recipe.distillation.model.start if recipe.distillation else None
    return [load_bundle(name) for name in (recipe.model.start, teacher) if name is not None]


def started_from(recipe: Recipe, dataset: PatchDataset, held_out: Indices, *, leaky: bool) -> dict[str, Any]:
    """What the bundles that the network and its teacher start from had seen, for the card; empty where there are none.

    Args:
        recipe: Settings.
        dataset: All patches.
        held_out: Indices of those that will measure the network.
        leaky: Whether patches of one case train and measure anyway, and everything says so.

    Raises:
        DatasetError: where a case that will measure the network was seen.
        ConfigError: where a bundle's own split was leaky, so that nobody can tell.
        BundleError: where a bundle cannot be read.
    """
    bundles = starts(recipe)
    seen = [what_was_seen(bundle) for bundle in bundles]
    for bundle, one in zip(bundles, seen, strict=True):
        if not leaky:
            _check_unseen(bundle, one, dataset, held_out)
    if not seen:
        return {}
    parts = {part: sorted(frozenset().union(*(getattr(one, part) for one in seen))) for part in ("train", "validation")}
    return {SEEN_BEFORE: {**parts, "known": all(one.known for one in seen)}}


def _check_unseen(bundle: ModelBundle, seen: Seen, dataset: PatchDataset, held_out: Indices) -> None:
    if seen.leaky:
        hint = "Start from a bundle that was split by case."
        raise ConfigError(bundle.path, "comes from a leaky split: which cases it has seen is not known", hint)
    if not seen.known:
        log.info("%s does not say which cases trained it: if these are among them, the figures flatter.", bundle.path)
    before = np.unique(dataset.groups[mark(dataset, seen.train | seen.validation)])
    both = np.intersect1d(before, dataset.groups[held_out])
    if len(both):
        why = f"{len(both)} cases that are to measure the network, such as {both[0]}, were seen by {bundle.card.name}"
        hint = "Train on cases that are new to it, or start from another bundle."
        raise DatasetError(dataset.root, why, hint)
