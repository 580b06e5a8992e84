"""A bundle's network on its device: one batch of fields of view in, calibrated probabilities and their spread out.

Test-time augmentation shows the network each field of view in the 8 positions that turning and mirroring a square
gives: tissue has no upright position, so what the answers differ by is doubt of the network, not of the tissue. The
probability is their mean, the spread their standard deviation. The members of a deep ensemble (Lakshminarayanan et
al. 2017) are treated alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import EngineName, InferenceSettings, Precision
from wsi_pipeline.errors import InferenceError
from wsi_pipeline.inference.arrays import Answers, Array, Arrays
from wsi_pipeline.inference.devices import Device, choose_device, kind_of
from wsi_pipeline.inference.engines import Choice, Engine, choose_engine, make_engine
from wsi_pipeline.machine import memory_is_full
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import Card
from wsi_pipeline.scoring.calibration import calibrate

DEFAULT_BATCH = {"cpu": 256, "mps": 512, "cuda": 1024}
_USUAL_PX = 50
"""Input side that these are meant for."""


def default_batch(card: Card, device: Device, count: int) -> int:
    """Fields of view in a batch for `count` of them: fewer where they are large, and never many more than there are."""
    usual = DEFAULT_BATCH[kind_of(device)] * (_USUAL_PX / max(card.input_px, _USUAL_PX)) ** 2
    return max(1, min(int(usual), count))


def choose(inference: InferenceSettings) -> Choice:
    """The engine that these settings mean on this machine, and what it rounds to.

    Raises:
        ConfigError: where the device is not there, or engine, precision and device do not go together.
    """
    return choose_engine(inference.engine, inference.precision, choose_device(inference.device))


class BatchNetwork:
    """A bundle's network, ready on its device, that always sees batches of the same shape.

    A short batch is filled up, so that a field's probability does not depend on which others it was computed with.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        device: Device,
        *,
        batch_size: int,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        tta: bool = False,
        keep: bool = False,
    ) -> None:
        card = bundle.card
        self.bundle, self.device, self.batch_size, self.tta = bundle, device, batch_size, tta
        self.engine: Engine = make_engine(
            bundle, device, engine=engine, precision=precision, batch_size=batch_size, keep=keep
        )
        if self.engine.classes != len(card.class_names):
            raise InferenceError(
                bundle.path,
                f"the network gives {self.engine.classes} classes, the card names {len(card.class_names)}",
                "The card and the weights are not of one bundle.",
            )

    @property
    def arrays(self) -> Arrays:
        """Where its fields of view are cut and its answers lie."""
        return self.engine.arrays

    @property
    def gives_spread(self) -> bool:
        """Whether there is more than one answer to each field of view: of the symmetries, of members, or of both."""
        return self.tta or self.engine.members is not None

    @property
    def columns(self) -> int:
        """Of what `fetch` gives: the classes, and the spread where there is one."""
        return self.engine.classes + self.gives_spread

    def submit(self, fields: Array) -> Array:
        """Show the network a batch.

        Args:
            fields: uint8 [n, size_px, size_px, 3] of `arrays`; n is at most the batch size.

        Returns:
            Its answers [n, ...], which may still be being computed; parts of them, joined or not, go to `fetch`.

        Raises:
            InferenceError: where the network fails.
        """
        return self._run(fields, turned=self.tta)

    def submit_logits(self, fields: Array) -> Array:
        """The same of the fields as they lie, for `fetch_logits`."""
        return self._run(fields, turned=False)

    def fetch(self, answers: Array) -> NDArray[np.float32]:
        """Calibrated probabilities, and the positive class's spread in a last column where there is one.

        Args:
            answers: What was submitted.

        Returns:
            float32 [n, classes], or [n, classes + 1] where `gives_spread`.

        Raises:
            InferenceError: where the network failed or its outputs are not finite.
        """
        return self.send(answers)()

    def send(self, answers: Array) -> Callable[[], NDArray[np.float32]]:
        """Start on `fetch`, and give what waits for it: meanwhile a GPU goes on with what is submitted next."""
        arrive = self.arrays.send(answers)

        def wait() -> NDArray[np.float32]:
            with self._faults():
                found = arrive()
            return self._finite(self._columns(found))

        return wait

    def fetch_logits(self, answers: Array) -> NDArray[np.float32]:
        """Logits float32 [n, classes], before any calibration, of what `submit_logits` gave; raises as `fetch`."""
        with self._faults():
            found = self.arrays.send(answers)()
        return self._finite(self._logits(found)[:, 0])

    def _columns(self, answers: Answers) -> NDArray[np.float32]:
        calibrated = self._calibrated(self._logits(answers))
        mean: NDArray[np.float32] = calibrated.mean(1)
        if not self.gives_spread:
            return mean
        every = calibrated if self.engine.members is None else self._calibrated(_logarithms(answers))
        opinions = every[..., self.bundle.positive]
        return np.column_stack([mean, opinions.reshape(len(opinions), -1).std(1)])

    def _calibrated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [..., classes] of logits of the same shape."""
        card = self.bundle.card
        with np.errstate(invalid="ignore"):  # what is not finite is told by `_finite`
            flat = calibrate(logits.reshape(-1, logits.shape[-1]), card.temperature, card.bias)
        return flat.reshape(logits.shape)

    def _logits(self, answers: Answers) -> NDArray[np.float32]:
        """[n, forms, classes]; of an ensemble, logarithms of its members' mean probability."""
        if self.engine.members is None:
            return answers
        return _logarithms(answers.mean(2))

    def _run(self, fields: Array, *, turned: bool) -> Array:
        with self._faults():
            batch = self.arrays.fill(fields, self.batch_size)
            forms = self.arrays.symmetries(batch) if turned else [batch]
            return self.arrays.stack([self.engine(form) for form in forms])[: len(fields)]

    def _finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            hint = "Try --precision fp32; else the weights are damaged."
            raise InferenceError(self._where, "gave scores that are not finite", hint)
        return values

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except InferenceError:
            raise
        except (RuntimeError, MemoryError) as error:
            if memory_is_full(error):
                smaller = f"Try --batch-size {max(1, self.batch_size // 2)}."
                raise InferenceError(self._where, "the device's memory is full", smaller) from error
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            raise InferenceError(self._where, f"failed ({reason})") from error

    @property
    def _where(self) -> str:
        return f"network {self.bundle.card.name}"


def _logarithms(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    logarithms: NDArray[np.float32] = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logarithms
