"""Blocks that are refined as their answers come in, many at a time, so that the network's batches stay full."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.grid import Block
from wsi_pipeline.inference.adaptive import Refinement, Rule
from wsi_pipeline.inference.arrays import Array
from wsi_pipeline.inference.devices import kind_of
from wsi_pipeline.inference.network import BatchNetwork
from wsi_pipeline.patches import PixelBlock

MAX_OPEN_BYTES = 1 << 29
"""Bound on the pixels of blocks that are being refined; then a batch goes into the network though it is not full."""

Columns = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinedBlock:
    """A block whose cells were looked at as far as it matters."""

    block: Block
    columns: Columns
    """[n, columns] as the network gives them, interpolated where it did not look, NaN where not readable."""
    evaluated: NDArray[np.bool_]
    """[n]: which cells the network looked at."""


@dataclass(slots=True)
class _Open:
    block: Block
    refinement: Refinement
    pixels: Array | None
    """On the device, until no more of its cells are wanted."""
    windows: NDArray[np.int64]
    """[cells, 2], on the host."""
    sent: int = 0
    """Of the wanted cells, those that went into the network."""
    answers: list[Columns] = field(default_factory=list)
    """What came back of them, in order."""

    @property
    def unsent(self) -> int:
        return len(self.refinement.wanted) - self.sent

    @property
    def finished(self) -> bool:
        return not len(self.refinement.wanted)

    @property
    def bytes(self) -> int:
        return 0 if self.pixels is None else int(self.pixels.nbytes)

    def take(self, count: int) -> NDArray[np.int64]:
        """The windows of the next wanted cells."""
        cells = self.refinement.wanted[self.sent : self.sent + count]
        self.sent += len(cells)
        return self.windows[cells]

    def give(self, answers: Columns) -> None:
        """What the network says of cells that were taken; with the last of them, the next are named."""
        self.answers.append(answers)
        if sum(len(part) for part in self.answers) < len(self.refinement.wanted):
            return
        self.refinement.give(np.concatenate(self.answers))
        self.sent, self.answers = 0, []
        if self.finished:
            self.pixels = None


_Flying = tuple[list[tuple[_Open, int]], Callable[[], Columns]]
"""Blocks with the number of their cells in a batch, and what waits for the batch's answers."""


class AdaptiveBatches:
    """Shows a network the cells that blocks want, oldest block first, in batches filled across blocks and levels.

    Args:
        network: On its device.
        rule: Where to refine.
        counted: Notes the time spent on the network.
    """

    def __init__(
        self,
        network: BatchNetwork,
        rule: Rule,
        *,
        counted: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._network, self._rule, self._counted = network, rule, counted
        self._size = network.bundle.card.patch_size_px
        self._open, self._flying = deque[_Open](), deque[_Flying]()
        # On a GPU the next batch is under way before the last one's answers are looked at.
        self._ahead = 1 if kind_of(network.device) == "cuda" else 0

    def refine(self, blocks: Iterable[PixelBlock]) -> Iterator[RefinedBlock]:
        """Each block, in order.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        for pixels in blocks:
            with self._counted():
                self._open.append(self._begin(pixels))
                while self._full():
                    self._step()
            yield from self._finished()
        while self._open:
            with self._counted():
                self._step()
            yield from self._finished()

    def _begin(self, pixels: PixelBlock) -> _Open:
        refinement = Refinement(pixels.block, pixels.readable, self._network.columns, self._rule)
        on_device = self._network.arrays.take(pixels.pixels) if len(refinement.wanted) else None
        return _Open(block=pixels.block, refinement=refinement, pixels=on_device, windows=pixels.windows)

    def _full(self) -> bool:
        """Whether there is a batch to be had, or no memory for a further block."""
        unsent = sum(opened.unsent for opened in self._open)
        return unsent >= self._network.batch_size or sum(opened.bytes for opened in self._open) > MAX_OPEN_BYTES

    def _step(self) -> None:
        """Submit what is wanted; take in the answers to what was submitted before."""
        submitted = self._submit()
        if len(self._flying) > (self._ahead if submitted else 0):
            self._land()

    def _land(self) -> None:
        taken, arrive = self._flying.popleft()
        answers, start = arrive(), 0
        for opened, count in taken:
            opened.give(answers[start : start + count])
            start += count

    def _submit(self) -> bool:
        left, taken, parts = self._network.batch_size, list[tuple[_Open, int]](), list[Array]()
        arrays = self._network.arrays
        for opened in self._open:
            if left and opened.unsent and opened.pixels is not None:
                windows = opened.take(left)
                parts.append(arrays.cut(opened.pixels, arrays.take(windows), self._size))
                taken.append((opened, len(windows)))
                left -= len(windows)
        if not taken:
            return False
        found = self._network.submit(arrays.join(parts))
        self._flying.append((taken, self._network.send(found)))
        return True

    def _finished(self) -> Iterator[RefinedBlock]:
        while self._open and self._open[0].finished:
            done = self._open.popleft()
            yield RefinedBlock(block=done.block, columns=done.refinement.columns(), evaluated=done.refinement.evaluated)
