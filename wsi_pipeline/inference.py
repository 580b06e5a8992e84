"""From the pixels of blocks to probabilities, on CPU, CUDA or MPS."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_pipeline.errors import ConfigError, InferenceError
from wsi_pipeline.grid import Block
from wsi_pipeline.models.bundle import ModelBundle
from wsi_pipeline.patches import PixelBlock

DEFAULT_BATCH = {"cpu": 256, "mps": 512, "cuda": 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBlock:
    """A block with its result."""

    block: Block
    scores: NDArray[np.float32]
    """[n, classes]: probabilities, NaN where the cell could not be read."""


@dataclass(slots=True)
class _Open:
    """A block of which some cells are still in the network."""

    block: Block
    readable: NDArray[np.bool_]
    scores: NDArray[np.float32]
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


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: where the device asked for is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if there[device]))
    if not there[name]:
        raise ConfigError("device", f"this machine has no {name} device that torch can use", "Use --device auto.")
    return torch.device(name)


@dataclass(kw_only=True)
class Predictor:
    """A bundle's network, ready on its device; serves any number of slides.

    Batches always have the same shape (the last is filled up), so that a cell's probability does not depend on which
    other cells it was computed with: on one kind of device, a resumed run gives the same map, bit for bit.
    """

    bundle: ModelBundle
    device: torch.device
    batch_size: int | None = None
    amp: bool = True
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        card = self.bundle.card
        self._batch = self.batch_size or DEFAULT_BATCH[self.device.type]
        self._network = self.bundle.build().to(self.device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(card.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(card.std, device=self.device)[:, None, None]
        self._check_classes()

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
                self._deliver(pending, self._run(_take(waiting, self._batch)))
                held -= self._batch
            yield from _finished(pending)
        if held:
            self._deliver(pending, self._run(_take(waiting, held)))
        yield from _finished(pending)

    def probabilities(self, fields: Tensor) -> NDArray[np.float32]:
        """Probabilities [n, classes] of fields of view uint8 [n, size_px, size_px, 3], in batches of the fixed size."""
        parts = [self._run(part) for part in fields.to(self.device).permute(0, 3, 1, 2).split(self._batch)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.bundle.card.class_names)), np.float32)

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
        scores = np.full((len(block.readable), len(self.bundle.card.class_names)), np.nan, np.float32)
        return _Open(block.block, block.readable, scores)

    def _cut(self, block: PixelBlock) -> Tensor:
        """The readable fields of view, uint8 [n, 3, size_px, size_px]; pixels cross to the device once."""
        size = self.bundle.view.size_px
        pixels = block.pixels.to(self.device, non_blocking=True)
        x, y = block.windows[torch.from_numpy(block.readable)].to(self.device).unbind(1)
        return pixels.unfold(0, size, 1).unfold(1, size, 1)[y, x]

    @torch.inference_mode()
    def _run(self, fields: Tensor) -> NDArray[np.float32]:
        started = time.perf_counter()
        count, card = len(fields), self.bundle.card
        try:
            with torch.autocast(self.device.type, enabled=self.amp and self.device.type == "cuda"):
                logits = self._network(self._prepare(fields))
        except torch.OutOfMemoryError as error:
            raise InferenceError(
                f"network {card.name}", "the device's memory is full", f"Try --batch-size {max(1, self._batch // 2)}."
            ) from error
        except RuntimeError as error:
            raise InferenceError(f"network {card.name}", f"failed ({str(error).splitlines()[0]})") from error
        scores = torch.softmax(logits[:count].float() / card.temperature, 1).cpu().numpy()
        if not np.isfinite(scores).all():
            raise InferenceError(
                f"network {card.name}",
                "gave scores that are not finite",
                "On a GPU, try --no-amp; else the weights are damaged.",
            )
        self.seconds.network += time.perf_counter() - started
        return scores

    def _prepare(self, fields: Tensor) -> Tensor:
        """What the network takes: the batch filled up, normalised and resized."""
        card = self.bundle.card
        batch = torch.cat([fields, fields.new_zeros(self._batch - len(fields), *fields.shape[1:])])
        batch = ((batch.float() / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        if card.input_px != card.patch_size_px:
            side = (card.input_px, card.input_px)
            batch = functional.interpolate(batch, side, mode="bilinear", antialias=True, align_corners=False)
        return batch

    def _check_classes(self) -> None:
        card = self.bundle.card
        side = card.patch_size_px
        found = self.probabilities(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[1]
        if found != len(card.class_names):
            raise InferenceError(
                self.bundle.path,
                f"the network gives {found} classes, the card names {len(card.class_names)}",
                "The card and the weights are not of one bundle.",
            )
        self.seconds.reset()

    def _deliver(self, pending: deque[_Open], scores: NDArray[np.float32]) -> None:
        """Hand scores out to the oldest cells that wait for them."""
        for block in pending:
            cells = np.flatnonzero(block.readable)[block.filled : block.filled + len(scores)]
            block.scores[cells] = scores[: len(cells)]
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


def _finished(pending: deque[_Open]) -> Iterator[ScoredBlock]:
    while pending and pending[0].filled == int(pending[0].readable.sum()):
        done = pending.popleft()
        yield ScoredBlock(block=done.block, scores=done.scores)
