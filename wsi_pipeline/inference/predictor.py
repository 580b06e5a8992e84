"""From the pixels of blocks to the scores of their cells, in batches filled across blocks."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from wsi_pipeline.errors import InferenceError
from wsi_pipeline.grid import Block
from wsi_pipeline.inference.network import DEFAULT_BATCH, BatchNetwork
from wsi_pipeline.models.bundle import ModelBundle
from wsi_pipeline.patches import PixelBlock

Fields = Tensor | NDArray[np.uint8]
"""Fields of view, uint8 RGB [n, size_px, size_px, 3]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBlock:
    """A block with its result."""

    block: Block
    scores: NDArray[np.float32]
    """[n, classes]: probabilities, NaN where the cell could not be read."""
    spread: NDArray[np.float32] | None = None
    """[n]: standard deviation of the positive class's probability over symmetries, members or both, NaN as above."""


@dataclass(slots=True)
class _Open:
    """A block of which some cells are still in the network."""

    block: Block
    readable: NDArray[np.bool_]
    columns: NDArray[np.float32]
    """Probabilities, then the spread where there is one."""
    filled: int = 0


@dataclass(slots=True)
class Seconds:
    """Where the time of a prediction went."""

    read: float = 0.0
    """In the reading processes, summed over them."""
    wait: float = 0.0
    """For pixels, while the network had nothing to do."""
    network: float = 0.0

    def reset(self) -> None:
        """Start counting anew."""
        self.read = self.wait = self.network = 0.0

    def as_dict(self) -> dict[str, float]:
        """Seconds by name."""
        return asdict(self)


@dataclass(kw_only=True)
class Predictor:
    """A bundle's network, ready on its device; serves any number of slides.

    A probability is calibrated, ``softmax(logits / temperature + bias)``; the second stage of a card with a `context`
    works on whole maps and is not applied here.

    Batches always have the same shape (the last is filled up), so that a cell's probability does not depend on which
    other cells it was computed with: on one kind of device, a resumed run gives the same map, bit for bit.
    """

    bundle: ModelBundle
    device: torch.device
    batch_size: int | None = None
    """Fields of view in a batch; None for `DEFAULT_BATCH` of the device."""
    amp: bool = True
    """Mixed precision on a GPU."""
    tta: bool = False
    """Mean over the 8 symmetries of the square, at 8 times the work."""
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        self._batch = self.batch_size or DEFAULT_BATCH[self.device.type]
        self._network = BatchNetwork(self.bundle, self.device, batch_size=self._batch, amp=self.amp, tta=self.tta)
        self._classes = len(self.bundle.card.class_names)
        self._check_classes()

    @property
    def gives_spread(self) -> bool:
        """Whether probabilities come with a spread: with `tta`, and always from an ensemble."""
        return self._network.gives_spread

    def predict(self, blocks: Iterable[PixelBlock]) -> Iterator[ScoredBlock]:
        """Scores of each block, in order. Batches are filled across blocks.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        waiting: deque[Tensor] = deque()
        held, pending = 0, deque[_Open]()
        for block in self._timed(blocks):
            pending.append(self._open(block))
            fields = self._cut(block)
            held += len(fields)
            waiting.append(fields)
            while held >= self._batch:
                _deliver(pending, self._run(self._network.score, _take(waiting, self._batch)))
                held -= self._batch
            yield from self._finished(pending)
        if held:
            _deliver(pending, self._run(self._network.score, _take(waiting, held)))
        yield from self._finished(pending)

    def probabilities(self, fields: Fields) -> NDArray[np.float32]:
        """Calibrated probabilities, float32 [n, classes], of fields of view uint8 [n, size_px, size_px, 3].

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        return self.predict_fields(fields)[0]

    def predict_fields(self, fields: Fields) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Calibrated probabilities and their spread.

        Args:
            fields: uint8 [n, size_px, size_px, 3].

        Returns:
            float32 [n, classes]; and float32 [n], standard deviation of the positive class's probability over the
            symmetries, the members of an ensemble, or both, None where there are neither.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        return self._split(self._in_batches(fields, self._network.score, self._classes + self.gives_spread))

    def logits(self, fields: Fields) -> NDArray[np.float32]:
        """Raw logits, float32 [n, classes], of fields of view as they lie: no calibration, no symmetries.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        return self._in_batches(fields, self._network.logits, self._classes)

    def _in_batches(
        self, fields: Fields, compute: Callable[[Tensor], NDArray[np.float32]], columns: int
    ) -> NDArray[np.float32]:
        source, found = torch.as_tensor(fields), np.empty((len(fields), columns), np.float32)
        for start in tqdm(range(0, len(source), self._batch), "network", disable=None, leave=False, delay=2):
            part = source[start : start + self._batch].to(self.device).permute(0, 3, 1, 2)
            found[start : start + len(part)] = self._run(compute, part)
        return found

    def _run(self, compute: Callable[[Tensor], NDArray[np.float32]], fields: Tensor) -> NDArray[np.float32]:
        started = time.perf_counter()
        found = compute(fields)
        self.seconds.network += time.perf_counter() - started
        return found

    def _timed(self, blocks: Iterable[PixelBlock]) -> Iterator[PixelBlock]:
        source = iter(blocks)
        while True:
            started = time.perf_counter()
            block = next(source, None)
            self.seconds.wait += time.perf_counter() - started
            if block is None:
                return
            self.seconds.read += block.seconds
            yield block

    def _open(self, block: PixelBlock) -> _Open:
        shape = (len(block.readable), self._classes + self.gives_spread)
        return _Open(block.block, block.readable, np.full(shape, np.nan, np.float32))

    def _cut(self, block: PixelBlock) -> Tensor:
        """The readable fields of view, uint8 [n, 3, size_px, size_px]; pixels cross to the device once."""
        size = self.bundle.card.patch_size_px
        pixels = block.pixels.to(self.device, non_blocking=True)
        x, y = block.windows[torch.from_numpy(block.readable)].to(self.device).unbind(1)
        return pixels.unfold(0, size, 1).unfold(1, size, 1)[y, x]

    def _split(self, columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Probabilities and spread of what the network gives side by side."""
        if not self.gives_spread:
            return columns, None
        return np.ascontiguousarray(columns[:, :-1]), columns[:, -1].copy()

    def _finished(self, pending: deque[_Open]) -> Iterator[ScoredBlock]:
        while pending and pending[0].filled == int(pending[0].readable.sum()):
            done = pending.popleft()
            scores, spread = self._split(done.columns)
            yield ScoredBlock(block=done.block, scores=scores, spread=spread)

    def _check_classes(self) -> None:
        side = self.bundle.card.patch_size_px
        found = self._network.logits(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=self.device)).shape[1]
        if found != self._classes:
            raise InferenceError(
                self.bundle.path,
                f"the network gives {found} classes, the card names {self._classes}",
                "The card and the weights are not of one bundle.",
            )


def _deliver(pending: deque[_Open], scores: NDArray[np.float32]) -> None:
    """Hand scores out to the oldest cells that wait for them."""
    for block in pending:
        cells = np.flatnonzero(block.readable)[block.filled : block.filled + len(scores)]
        block.columns[cells] = scores[: len(cells)]
        block.filled += len(cells)
        scores = scores[len(cells) :]


def _take(waiting: deque[Tensor], count: int) -> Tensor:
    """The first `count` fields of view of those that wait."""
    parts = []
    while count:
        head = waiting.popleft()
        parts.append(head[:count])
        if len(head) > count:
            waiting.appendleft(head[count:])
        count -= len(parts[-1])
    return torch.cat(parts)
