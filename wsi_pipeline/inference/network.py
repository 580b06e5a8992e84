"""A bundle's network on its device: one batch of fields of view in, calibrated probabilities and their spread out.

Test-time augmentation shows the network each field of view in the 8 positions that turning and mirroring a square
gives: tissue has no upright position, so what the answers differ by is doubt of the network, not of the tissue. The
probability is their mean, the spread their standard deviation. The members of a deep ensemble (Lakshminarayanan et
al. 2017) are treated alike.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_pipeline.errors import ConfigError, InferenceError
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


def symmetries(batch: Tensor) -> Iterator[Tensor]:
    """The 8 turned and mirrored forms of [n, channels, side, side], the batch itself first."""
    for mirrored in (batch, batch.flip(-1)):
        for quarters in range(4):
            yield torch.rot90(mirrored, quarters, (-2, -1))


class BatchNetwork:
    """A bundle's network, ready on its device, that always sees batches of the same shape.

    A short batch is filled up, so that a field's probability does not depend on which others it was computed with.
    """

    def __init__(self, bundle: ModelBundle, device: torch.device, *, batch_size: int, amp: bool, tta: bool) -> None:
        card = bundle.card
        self.bundle, self.device, self.batch_size, self.tta = bundle, device, batch_size, tta
        self.network: Callable[[Tensor], Tensor] = bundle.build().to(device).to(memory_format=torch.channels_last)
        self._members: Callable[[Tensor], Tensor] | None = getattr(self.network, "member_probabilities", None)
        self._amp = amp and device.type == "cuda"
        self._mean = torch.tensor(card.mean, device=device)[:, None, None]
        self._std = torch.tensor(card.std, device=device)[:, None, None]
        self._bias = torch.tensor(card.bias or [0.0] * len(card.class_names), device=device)

    @property
    def gives_spread(self) -> bool:
        """Whether there is more than one answer to each field of view: of the symmetries, of members, or of both."""
        return self.tta or self._members is not None

    def score(self, fields: Tensor) -> NDArray[np.float32]:
        """Calibrated probabilities, and the positive class's spread in a last column where there is one.

        Args:
            fields: uint8 [n, 3, size_px, size_px] on the device; n is at most the batch size.

        Returns:
            float32 [n, classes], or [n, classes + 1] where `gives_spread`.

        Raises:
            InferenceError: where the network fails or its outputs are not finite.
        """
        return self._run(fields, self._score)

    def logits(self, fields: Tensor) -> NDArray[np.float32]:
        """Logits float32 [n, classes] of the fields as they lie, before any calibration; arguments as for `score`."""
        return self._run(fields, lambda batch: self._answer(batch)[0])

    def _score(self, batch: Tensor) -> Tensor:
        probabilities, opinions = [], []
        for turned in symmetries(batch) if self.tta else (batch,):
            logits, members = self._answer(turned.contiguous(memory_format=torch.channels_last))
            calibrated = torch.softmax(logits / self.bundle.card.temperature + self._bias, 1)
            probabilities.append(calibrated)
            opinions.append((calibrated[None] if members is None else members)[..., self.bundle.positive])
        mean = torch.stack(probabilities).mean(0)
        if not self.gives_spread:
            return mean
        return torch.cat([mean, torch.cat(opinions).std(0, correction=0)[:, None]], 1)

    def _answer(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [n, classes], and for an ensemble its members' probabilities [members, n, classes]."""
        with torch.autocast(self.device.type, enabled=self._amp):
            if self._members is None:
                return self.network(batch).float(), None
            members = self._members(batch).float()
        return members.mean(0).clamp_min(torch.finfo(torch.float32).tiny).log(), members

    @torch.inference_mode()
    def _run(self, fields: Tensor, compute: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        where = f"network {self.bundle.card.name}"
        try:
            found: NDArray[np.float32] = compute(self._prepare(fields))[: len(fields)].cpu().numpy()
        except torch.OutOfMemoryError as error:
            smaller = f"Try --batch-size {max(1, self.batch_size // 2)}."
            raise InferenceError(where, "the device's memory is full", smaller) from error
        except RuntimeError as error:
            raise InferenceError(where, f"failed ({str(error).splitlines()[0]})") from error
        if not np.isfinite(found).all():
            hint = "On a GPU, try --no-amp; else the weights are damaged."
            raise InferenceError(where, "gave scores that are not finite", hint)
        return found

    def _prepare(self, fields: Tensor) -> Tensor:
        """What the network takes: the batch filled up, normalised and resized."""
        card = self.bundle.card
        batch = torch.cat([fields, fields.new_zeros(self.batch_size - len(fields), *fields.shape[1:])])
        batch = ((batch.float() / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        if card.input_px != card.patch_size_px:
            side = (card.input_px, card.input_px)
            batch = functional.interpolate(batch, side, mode="bilinear", antialias=True, align_corners=False)
        return batch
