"""The channels of a map: classes, spread, and what a second stage makes of them. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline import ngff

Read = Callable[[int], NDArray[np.float32]]
"""Gives a channel by its number, float32 [rows, cols], NaN where nothing is known."""

Refine = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From one probability map [rows, cols] to another, NaN where it was NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Which channels a map has, in their order: the classes, the spread, the unrefined probability."""

    class_names: tuple[str, ...]
    positive_class: str
    """What the spread and the second stage are about."""
    has_spread: bool
    refined: bool

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "Layers":
        """The layers of a map by its attributes."""
        names = tuple(attributes["class_names"])
        return cls(
            class_names=names,
            positive_class=attributes.get("positive_class", names[-1]),
            has_spread=attributes.get("spread", False),
            refined=attributes.get("refined", False),
        )

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.class_names) + self.has_spread + self.refined

    @property
    def positive(self) -> int:
        """Channel of the positive class."""
        return self.class_names.index(self.positive_class)

    @property
    def spread(self) -> int | None:
        """Channel of the spread."""
        return len(self.class_names) if self.has_spread else None

    @property
    def unrefined(self) -> int | None:
        """Channel of the positive class's probability before the second stage."""
        return self.count - 1 if self.refined else None

    def shown(self) -> list[ngff.Channel]:
        """The channels for viewers."""
        return ngff.map_channels(self.class_names, self.positive_class, spread=self.has_spread, unrefined=self.refined)


def refine_channels(read: Read, layers: Layers, refine: Refine) -> Read:
    """The channels of the refined map.

    The other classes keep their proportions and fill up to 1.

    Args:
        read: The channels as the network gave them, of the same layers without the last.
        layers: Those of the refined map.
        refine: The second stage.

    Raises:
        ValueError: where `refine` gives no probability for a cell that had one, or one for a cell that had none.
    """
    names, positive = layers.class_names, layers.positive
    before = read(positive)
    after = np.asarray(refine(before), np.float32)
    fits = after.shape == before.shape and np.array_equal(np.isnan(after), np.isnan(before))
    if not fits or np.nanmin(after, initial=0) < 0 or np.nanmax(after, initial=1) > 1:
        raise ValueError("the second stage gave no map of probabilities of the same cells")
    del before
    others = [number for number in range(len(names)) if number != positive]
    rest = _sum(read, others) if len(others) > 1 else None

    def channel(number: int) -> NDArray[np.float32]:
        if number == positive:
            return after
        if number == layers.unrefined:
            return read(positive)
        if number == layers.spread:
            return read(number)
        left = 1 - after
        if rest is None:
            return left
        share = np.divide(read(number), rest, out=np.full_like(rest, 1 / len(others)), where=rest > 0)
        return left * share

    return channel


def _sum(read: Read, numbers: Sequence[int]) -> NDArray[np.float32]:
    total = read(numbers[0]).copy()
    for number in numbers[1:]:
        total += read(number)
    return total
