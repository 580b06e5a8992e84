"""Which parts of a card a run uses, and what it says of that: threshold, second stage, spread."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Settings
from wsi_pipeline.context import refine
from wsi_pipeline.grid import Grid
from wsi_pipeline.models.card import LEAKY_WARNING, Card

if TYPE_CHECKING:
    from wsi_pipeline.inference.adaptive import Rule


_UNLIKE = 0.1
"""Neighbours of the second stage may be so much nearer or farther than those it was fitted on."""


def choose_threshold(settings: Settings, card: Card) -> tuple[float, str]:
    """The threshold of the regions and where it comes from."""
    if settings.regions.threshold is not None:
        return settings.regions.threshold, "user"
    without = ", for maps with context, which is off" if _of_another_map(settings, card) else ""
    return card.threshold.value, f"model: {card.threshold.chosen}{without}"


def spread_over(settings: Settings, card: Card) -> str | None:
    """What a cell's spread is over, in words; None where there is but one answer to each field of view."""
    parts = [f"{len(card.members)} networks"] if card.members else []
    parts += ["8 symmetries"] if settings.prediction.tta else []
    return " x ".join(parts) or None


def uses_context(settings: Settings, card: Card) -> bool:
    """Whether the second stage is used: where the card has one and it is not switched off."""
    return card.context is not None and settings.prediction.context


def cells_per_view(grid: Grid) -> int:
    """Cells per field of view along one axis; 1 for native ones. The second stage counts in fields of view."""
    return max(1, round(grid.view.size_um / grid.cell_um))


def spacing_in_views(grid: Grid) -> float:
    """Fields of view between the cells that the second stage takes for neighbours; 1 where cells fit into them."""
    return cells_per_view(grid) * grid.cell_um / grid.view.size_um


def choose_refinement(
    settings: Settings, card: Card, grid: Grid
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """What makes the final map of the positive class's probability from the network's; None for no second stage.

    Maps are [rows, cols] of the grid; NaN stays NaN.
    """
    context = card.context
    if context is None or not settings.prediction.context:
        return None
    step, spacing = cells_per_view(grid), spacing_in_views(grid)
    return lambda probability: refine(probability, context, step, spacing)


def choose_rule(settings: Settings, card: Card, grid: Grid) -> "Rule | None":
    """Where an adaptive map is refined; None where every cell is looked at.

    It is refined around the model's own threshold, whichever one is used: a map does not depend on how it is outlined.
    """
    if not settings.prediction.adaptive:
        return None
    from wsi_pipeline.inference.adaptive import Rule

    names = list(card.class_names)
    return Rule.suited(
        cells_per_view(grid),
        threshold=card.threshold.value,
        positive=names.index(card.positive_class),
        classes=len(names),
    )


def prediction_facts(settings: Settings, card: Card) -> dict[str, Any]:
    """JSON-able: what of the card is used, for records and attributes."""
    return {
        "temperature": card.temperature,
        "bias": None if card.bias is None else list(card.bias),
        "tta": settings.prediction.tta,
        "adaptive": settings.prediction.adaptive,
        "members": list(card.members),
        "context": card.context.model_dump(mode="json") if card.context and settings.prediction.context else None,
        "spread_over": spread_over(settings, card),
    }


def describe_prediction(settings: Settings, card: Card) -> str:
    """The same for people: the model's name and how it is used, in one line."""
    parts = [card.name]
    if card.members:
        parts.append(f"mean of {len(card.members)} networks")
    if settings.prediction.tta:
        parts.append("mean over 8 symmetries")
    if settings.prediction.adaptive:
        parts.append("adaptive")
    if card.context is not None:
        parts.append("with context" if settings.prediction.context else "without its context")
    return ", ".join(parts)


def prediction_warnings(settings: Settings, card: Card, grid: Grid) -> Iterator[str]:
    """What a reader of the numbers must know of how they were made."""
    if card.leaky:
        yield LEAKY_WARNING
    if settings.prediction.adaptive and choose_rule(settings, card, grid) is None:
        yield (
            f"--adaptive was not applied: cells of {grid.cell_um:g} µm are too large for it under a field of view of "
            f"{grid.view.size_um:g} µm, so each of them was looked at."
        )
    if uses_context(settings, card) and abs(spacing_in_views(grid) - 1) > _UNLIKE:
        yield (
            f"Cells of {grid.cell_um:g} µm do not fit into fields of view of {grid.view.size_um:g} µm, and the model's "
            f"second stage sees neighbours {spacing_in_views(grid):.2g} fields of view apart instead of 1: its "
            "probabilities are of another accuracy than the model's card says. Choose another --cell, or --no-context."
        )
    if _of_another_map(settings, card) and settings.regions.threshold is None:
        alone = card.threshold_without_context
        known = "" if alone is None else f" {alone:g}, which was chosen without it"
        yield (
            "Context is switched off, but the model's threshold was chosen with it: regions and areas are of another "
            f"accuracy than the model's card says. Give --threshold{known}, or leave --no-context away."
        )


def _of_another_map(settings: Settings, card: Card) -> bool:
    """Whether the card's threshold was chosen for maps with context, and this run's is without."""
    return card.threshold_needs_context and not settings.prediction.context
