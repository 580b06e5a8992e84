"""What a model's card says, put for people: what it sees, what it learnt from, how good it is, what its limits are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.models.card import CROSS_VALIDATION, WITHOUT_CONTEXT, Card
from wsi_pipeline.render.page import interval, number
from wsi_pipeline.wording import counted

FIGURES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "precision": "PPV",
    "negative_predictive_value": "NPV",
    "f1": "F1",
    "ece": "Calibration error (ECE)",
}
"""Metrics of a card in the order to show them."""

_PARTS = {
    CROSS_VALIDATION: "cross-validated",
    WITHOUT_CONTEXT: "each patch by itself",
    "test": "test cases",
    "validation": "validation cases",
}
"""What a card may have been measured on, the most telling first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of a card on one part of its data."""

    title: str
    """Such as ``cross-validated``."""
    count: str
    """On how many cases and patches."""
    figures: tuple[tuple[str, str, str], ...]
    """Name, value and 95 % interval of each, written out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """A card for people."""

    name: str
    description: str
    facts: tuple[tuple[str, str], ...]
    """What is asked first, with the answer."""
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]
    """What a reader of the figures must know."""
    limits: tuple[str, ...]


def card_facts(card: Card) -> CardFacts:
    """The card's own words in order; what it does not say is left out."""
    return CardFacts(
        name=card.name,
        description=card.description,
        facts=tuple((name, text) for name, text in _facts(card) if text),
        measured=tuple(_measured(card.metrics)),
        notes=tuple(str(note) for note in _list(card.metrics.get("notes"))),
        limits=card.limits,
    )


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    side = f"{card.patch_size_px} x {card.patch_size_px} px"
    scale = (
        f"{card.mpp:g} µm/px ({card.patch_size_px * card.mpp:g} µm a side)" if card.mpp else "several magnifications"
    )
    training = card.training
    yield "Tells apart", f"{', '.join(card.class_names)}; regions are of {card.positive_class}"
    yield "Sees", f"{side} at {scale} around each cell"
    yield "Network", card.architecture + (f" of {len(card.members)} members" if card.members else "")
    yield "Second stage", "weighs each cell against its neighbourhood" if card.context else ""
    yield "Trained on", str(training.get("data", ""))
    yield "Patches", _patches(training.get("patches"))
    yield "Cases", _cases(training.get("split"))
    yield "Calibration", str(training.get("calibration", ""))
    yield "Threshold", f"{card.threshold.value:g}: {card.threshold.chosen}"
    yield "Made by", str(training.get("command", ""))
    yield "Licence", card.licence


def _patches(parts: Any) -> str:
    """Such as ``train 23,750 (non-IDC 16,843, IDC 6,907)``: each part that has any."""
    if not isinstance(parts, Mapping):
        return ""
    shown = []
    for part, counts in parts.items():
        if isinstance(counts, Mapping) and (total := sum(counts.values())):
            classes = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            shown.append(f"{part} {total:,} ({classes})")
    return "; ".join(shown)


def _cases(split: Any) -> str:
    if not isinstance(split, Mapping):
        return ""
    parts = [(part, split.get(part)) for part in ("train", "validation", "test")]
    counts = [f"{part} {len(names):,}" for part, names in parts if isinstance(names, Sequence) and names]
    return f"{'; '.join(counts)}, split by {split.get('unit', split.get('kind', 'case'))}" if counts else ""


def _measured(metrics: Mapping[str, Any]) -> Iterator[Measured]:
    for part, title in _PARTS.items():
        found = metrics.get(part)
        if not isinstance(found, Mapping):
            continue
        ranges = found.get("interval_95") or {}
        figures = [
            (name, number(found[key]), interval(ranges.get(key)))
            for key, name in FIGURES.items()
            if isinstance(found.get(key), int | float)
        ]
        count = f"{counted(found.get('cases', 0), metrics.get('unit', 'case'))}, {found.get('patches', 0):,} patches"
        leaky = "LEAKY split, " if metrics.get("leaky") else ""
        yield Measured(title=f"{leaky}{title}", count=count, figures=tuple(figures))


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
