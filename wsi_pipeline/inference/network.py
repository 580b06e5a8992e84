"""A bundle's network on its device: one batch of fields of view in, calibrated probabilities and their spread out.

Test-time augmentation shows the network each field of view in the 8 positions that turning and mirroring a square
gives: tissue has no upright position, so what the answers differ by is doubt of the network, not of the tissue. The
probability is their mean, the spread their standard deviation. The members of a deep ensemble (Lakshminarayanan et
al. 2017) are treated alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.config import EngineName, InferenceSettings, Precision
from wsi_pipeline.errors import ConfigError, InferenceError
from wsi_pipeline.inference.engines import Choice, Engine, choose_engine, make_engine
from wsi_pipeline.models.bundle import ModelBundle

DEFAULT_BATCH = {"cpu": 256, "mps": 512, "cuda": 1024}


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


def choose(inference: InferenceSettings) -> Choice:
    """The engine that these settings mean on this machine, and what it rounds to.

    Raises:
        ConfigError: where the device is not there, or engine, precision and device do not go together.
    """
    return choose_engine(inference.engine, inference.precision, choose_device(inference.device))


def symmetries(batch: Tensor) -> Iterator[Tensor]:
    """The 8 turned and mirrored forms of [n, channels, side, side], the batch itself first."""
    for mirrored in (batch, batch.flip(-1)):
        for quarters in range(4):
            yield torch.rot90(mirrored, quarters, (-2, -1))


class BatchNetwork:
    """A bundle's network, ready on its device, that always sees batches of the same shape.

    A short batch is filled up, so that a field's probability does not depend on which others it was computed with.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        device: torch.device,
        *,
        batch_size: int,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        tta: bool = False,
    ) -> None:
        card = bundle.card
        self.bundle, self.device, self.batch_size, self.tta = bundle, device, batch_size, tta
        self.engine: Engine = make_engine(bundle, device, engine=engine, precision=precision, batch_size=batch_size)
        if self.engine.classes != len(card.class_names):
            raise InferenceError(
                bundle.path,
                f"the network gives {self.engine.classes} classes, the card names {len(card.class_names)}",
                "The card and the weights are not of one bundle.",
            )
        self._bias = torch.tensor(card.bias or [0.0] * len(card.class_names), device=device)

    @property
    def gives_spread(self) -> bool:
        """Whether there is more than one answer to each field of view: of the symmetries, of members, or of both."""
        return self.tta or self.engine.members is not None

    @property
    def columns(self) -> int:
        """Of what `score` gives: the classes, and the spread where there is one."""
        return self.engine.classes + self.gives_spread

    def score(self, fields: Tensor) -> NDArray[np.float32]:
        """Calibrated probabilities, and the positive class's spread in a last column where there is one.

        Args:
            fields: uint8 [n, size_px, size_px, 3] on the device; n is at most the batch size.

        Returns:
            float32 [n, classes], or [n, classes + 1] where `gives_spread`.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        return self.fetch(self.submit(fields))

    def submit(self, fields: Tensor) -> Tensor:
        """The same, left on the device, where it may still be being computed; see `fetch`."""
        return self._run(fields, self._score)

    def submit_logits(self, fields: Tensor) -> Tensor:
        """Logits float32 [n, classes] of the fields as they lie, before any calibration; else as `submit`."""
        return self._run(fields, lambda batch: self._answer(batch)[0])

    def fetch(self, found: Tensor) -> NDArray[np.float32]:
        """Bring what was submitted to the host.

        Raises:
            InferenceError: where the network failed or its outputs are not finite.
        """
        return self.send(found)()

    def send(self, found: Tensor) -> Callable[[], NDArray[np.float32]]:
        """Start on bringing it, and give what waits for it: meanwhile the GPU goes on with what is submitted next."""
        arrived: torch.cuda.Event | None = None
        if found.is_cuda:
            host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            with torch.cuda.device(found.device):
                host.copy_(found, non_blocking=True)
                arrived = torch.cuda.Event()
                arrived.record()
            found = host

        def wait() -> NDArray[np.float32]:
            with self._faults():
                if arrived is not None:
                    arrived.synchronize()
                values: NDArray[np.float32] = found.cpu().numpy()
            if not np.isfinite(values).all():
                hint = "Try --precision fp32; else the weights are damaged."
                raise InferenceError(self._where, "gave scores that are not finite", hint)
            return values

        return wait

    def _score(self, batch: Tensor) -> Tensor:
        probabilities, opinions = [], []
        for turned in symmetries(batch.permute(0, 3, 1, 2)) if self.tta else (batch.permute(0, 3, 1, 2),):
            logits, members = self._answer(turned.permute(0, 2, 3, 1).contiguous())
            calibrated = torch.softmax(logits / self.bundle.card.temperature + self._bias, 1)
            probabilities.append(calibrated)
            opinions.append((calibrated[None] if members is None else members)[..., self.bundle.positive])
        mean = torch.stack(probabilities).mean(0)
        if not self.gives_spread:
            return mean
        return torch.cat([mean, torch.cat(opinions).std(0, correction=0)[:, None]], 1)

    def _answer(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [n, classes], and for an ensemble its members' probabilities [members, n, classes]."""
        answers = self.engine(batch)
        if self.engine.members is None:
            return answers, None
        return answers.mean(0).clamp_min(torch.finfo(torch.float32).tiny).log(), answers

    @torch.inference_mode()
    def _run(self, fields: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        with self._faults():
            missing = self.batch_size - len(fields)
            filled = torch.cat([fields, fields.new_zeros(missing, *fields.shape[1:])]) if missing else fields
            return compute(filled.contiguous())[: len(fields)]

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            smaller = f"Try --batch-size {max(1, self.batch_size // 2)}."
            raise InferenceError(self._where, "the device's memory is full", smaller) from error
        except InferenceError:
            raise
        except RuntimeError as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            raise InferenceError(self._where, f"failed ({reason})") from error

    @property
    def _where(self) -> str:
        return f"network {self.bundle.card.name}"
