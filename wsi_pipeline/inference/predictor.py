"""From the pixels of blocks to the scores of their cells, in batches filled across blocks."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.config import Arithmetic, EngineName, Precision
from wsi_pipeline.grid import Block
from wsi_pipeline.inference.adaptive import Rule
from wsi_pipeline.inference.adaptive_batches import AdaptiveBatches
from wsi_pipeline.inference.arrays import Array
from wsi_pipeline.inference.devices import Device, each_device, kind_of
from wsi_pipeline.inference.network import DEFAULT_BATCH, BatchNetwork
from wsi_pipeline.inference.replicas import share_blocks
from wsi_pipeline.models.bundle import ModelBundle
from wsi_pipeline.patches import PixelBlock
from wsi_pipeline.timing import note

Fields = Array
"""Fields of view in this machine's memory, uint8 RGB [n, size_px, size_px, 3]: a numpy array or a torch tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBlock:
    """A block with its result."""

    block: Block
    scores: NDArray[np.float32]
    """[n, classes]: probabilities, NaN where the cell could not be read."""
    spread: NDArray[np.float32] | None = None
    """[n]: standard deviation of the positive class's probability over symmetries, members or both, NaN as above."""
    evaluated: NDArray[np.bool_] | None = None
    """[n]: which cells the network looked at, where others are interpolated; None where it looked at all."""


@dataclass(slots=True)
class _Open:
    """A block of which some cells are still to be cut or in the network."""

    block: Block
    readable: NDArray[np.bool_]
    pixels: Array
    windows: Array
    """Of the readable cells, on the device like the pixels."""
    cut: int = 0
    """Cells that went into the network."""
    answers: list[Array] = field(default_factory=list)
    """What came back, in order: it stays on the device until the block is whole."""

    @property
    def uncut(self) -> int:
        """Cells that did not go into the network yet."""
        return len(self.windows) - self.cut


_Leaving = tuple[Block, NDArray[np.bool_], Callable[[], NDArray[np.float32]]]
"""A block, its readable cells, and what waits for their columns on their way from the device."""


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

    def add(self, other: "Seconds") -> None:
        """Count another's time too."""
        self.read += other.read
        self.wait += other.wait
        self.network += other.network

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
    device: Device
    """``cuda`` without a number is all GPUs: each has its own network, and they share the blocks."""
    batch_size: int | None = None
    """Fields of view in a batch; None for `DEFAULT_BATCH` of the device."""
    engine: EngineName = "auto"
    """See `engines.choose_engine`."""
    precision: Precision = "auto"
    tta: bool = False
    """Mean over the 8 symmetries of the square, at 8 times the work."""
    keep: bool = False
    """What an engine makes of the network is kept for, and taken from, other runs (see `engines.conversions`)."""
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        self._batch = self.batch_size or DEFAULT_BATCH[kind_of(self.device)]
        first, *others = each_device(self.device)
        self.device = first
        self._network = BatchNetwork(
            self.bundle,
            first,
            batch_size=self._batch,
            engine=self.engine,
            precision=self.precision,
            tta=self.tta,
            keep=self.keep,
        )
        self._others = [replace(self, device=device, seconds=Seconds()) for device in others]

    @property
    def gives_spread(self) -> bool:
        """Whether probabilities come with a spread: with `tta`, and always from an ensemble."""
        return self._network.gives_spread

    @property
    def facts(self) -> dict[str, str]:
        """The engine, and what it rounds to: for records."""
        return {"engine": self._network.engine.name, "precision": self.arithmetic}

    @property
    def arithmetic(self) -> Arithmetic:
        """What the network's numbers are rounded to."""
        return self._network.engine.arithmetic

    def predict(
        self,
        blocks: Iterable[PixelBlock],
        rule: Rule | None = None,
        *,
        on_cells: Callable[[int], None] = lambda _: None,
    ) -> Iterator[ScoredBlock]:
        """Scores of each block, in order. Batches are filled across blocks.

        On a GPU a block's scores are fetched while the next block is in the network.

        Args:
            blocks: The pixels.
            rule: Where to look closer, for an adaptive map (see `inference.adaptive`); None looks at every cell.
            on_cells: Called with the number of cells that were answered now: after each batch where one device looks
                at every cell, else after each block.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        if rule is None and not self._others:
            yield from self._predict(blocks, on_cells)
            return
        works = [predictor._work(rule) for predictor in (self, *self._others)]  # noqa: SLF001
        try:
            for scored in works[0](blocks) if len(works) == 1 else share_blocks(works, blocks):
                on_cells(len(scored.block.cells))
                yield scored
        finally:
            for other in self._others:
                self.seconds.add(other.seconds)
                other.seconds.reset()

    def _work(self, rule: Rule | None) -> Callable[[Iterable[PixelBlock]], Iterator[ScoredBlock]]:
        return self._predict if rule is None else partial(self._refine, rule)

    def _refine(self, rule: Rule, blocks: Iterable[PixelBlock]) -> Iterator[ScoredBlock]:
        batches = AdaptiveBatches(self._network, rule, counted=self._counted)
        for refined in batches.refine(self._timed(blocks)):
            scores, spread = self._split(refined.columns)
            yield ScoredBlock(block=refined.block, scores=scores, spread=spread, evaluated=refined.evaluated)

    def _predict(
        self, blocks: Iterable[PixelBlock], on_cells: Callable[[int], None] = lambda _: None
    ) -> Iterator[ScoredBlock]:
        pending, leaving = deque[_Open](), deque[_Leaving]()
        ahead = 1 if kind_of(self.device) == "cuda" else 0
        for block in self._timed(blocks):
            with self._counted():
                pending.append(self._open(block))
                while sum(opened.uncut for opened in pending) >= self._batch:
                    self._submit(pending, self._batch)
                    on_cells(self._batch)
                leaving.extend(self._whole(pending))
            while len(leaving) > ahead:
                yield self._land(leaving.popleft())
        with self._counted():
            if rest := sum(opened.uncut for opened in pending):
                self._submit(pending, rest)
                on_cells(rest)
            leaving.extend(self._whole(pending))
        while leaving:
            yield self._land(leaving.popleft())

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
        network = self._network
        return self._split(self._in_batches(fields, network.submit, network.fetch, network.columns))

    def logits(self, fields: Fields) -> NDArray[np.float32]:
        """Raw logits, float32 [n, classes], of fields of view as they lie: no calibration, no symmetries.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        network = self._network
        return self._in_batches(fields, network.submit_logits, network.fetch_logits, network.engine.classes)

    def _in_batches(
        self,
        fields: Fields,
        submit: Callable[[Array], Array],
        fetch: Callable[[Array], NDArray[np.float32]],
        columns: int,
    ) -> NDArray[np.float32]:
        if not len(fields):
            return np.empty((0, columns), np.float32)
        found, arrays = list[Array](), self._network.arrays
        for start in tqdm(range(0, len(fields), self._batch), "network", disable=None, leave=False, delay=2):
            with self._counted():
                found.append(submit(arrays.take(fields[start : start + self._batch])))
        with self._counted():
            return fetch(arrays.join(found))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            note("network", started, ended)
            self.seconds.network += ended - started

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
        return _Open(
            block=block.block,
            readable=block.readable,
            pixels=self._network.arrays.take(block.pixels),
            windows=self._network.arrays.take(block.windows[block.readable]),
        )

    def _submit(self, pending: Iterable[_Open], count: int) -> None:
        """One batch into the network: the first `count` cells that were not there yet."""
        taken, arrays = list[tuple[_Open, Array]](), self._network.arrays
        for opened in pending:
            if count and opened.uncut:
                windows = opened.windows[opened.cut :][:count]
                taken.append((opened, arrays.cut(opened.pixels, windows, self.bundle.card.patch_size_px)))
                opened.cut += len(windows)
                count -= len(windows)
        answers, start = self._network.submit(arrays.join([fields for _, fields in taken])), 0
        for opened, fields in taken:
            opened.answers.append(answers[start : start + len(fields)])
            start += len(fields)

    def _whole(self, pending: deque[_Open]) -> Iterator[_Leaving]:
        """Blocks, from the first on, of which every cell went through the network: their scores start for the host."""
        while pending and not pending[0].uncut:
            done = pending.popleft()
            network = self._network
            arrive = network.send(network.arrays.join(done.answers)) if done.answers else self._nothing
            yield done.block, done.readable, arrive

    def _nothing(self) -> NDArray[np.float32]:
        return np.empty((0, self._network.columns), np.float32)

    def _land(self, leaving: _Leaving) -> ScoredBlock:
        block, readable, arrive = leaving
        columns = np.full((len(readable), self._network.columns), np.nan, np.float32)
        with self._counted():
            columns[readable] = arrive()
        scores, spread = self._split(columns)
        return ScoredBlock(block=block, scores=scores, spread=spread)

    def _split(self, columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Probabilities and spread of what the network gives side by side."""
        if not self.gives_spread:
            return columns, None
        return np.ascontiguousarray(columns[:, :-1]), columns[:, -1].copy()
