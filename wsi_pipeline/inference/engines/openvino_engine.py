"""OpenVINO on the CPU: fp32, bf16, or a bundle's int8 network. No torch here, whose import takes seconds."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Arithmetic
from wsi_pipeline.errors import InferenceError
from wsi_pipeline.inference.arrays import HostArrays
from wsi_pipeline.machine import compute_threads

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is not int8 runs in this precision; left to itself OpenVINO takes bf16 on CPUs that have it."""

MIN_PART = 16
"""Fields of view that one core takes at a time, at least."""


class OpenVinoEngine:
    """A network of OpenVINO's, one stream for each core: a batch is divided among them."""

    def __init__(self, model: Any, *, arithmetic: Arithmetic, batch_size: int, size_px: int) -> None:
        """Compile a network.

        Args:
            model: ``openvino.Model`` from `to_openvino.convert` or `read`.
            arithmetic: ``fp32``, ``bf16`` or ``int8``.
            batch_size: Fields of view in a batch.
            size_px: Their side.

        Raises:
            InferenceError: where the network does not take batches of this shape, or the CPU not this arithmetic.
        """
        import openvino

        self.name = "openvino-int8" if arithmetic == "int8" else "openvino"
        self.arithmetic, self.arrays = arithmetic, HostArrays()
        threads = compute_threads()
        self._part = -(-batch_size // max(1, min(threads, batch_size // MIN_PART)))
        streams = -(-batch_size // self._part)
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[arithmetic],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
        }
        try:
            model.reshape([self._part, size_px, size_px, 3])
            compiled = openvino.Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise refusal(error) from error
        _check_precision(compiled, _HINTS[arithmetic])
        _, *many, self.classes = compiled.output(0).shape
        self.members: int | None = many[0] if many else None
        self._queue = openvino.AsyncInferQueue(compiled, streams)
        self._queue.set_callback(self._keep)
        self._found: dict[int, NDArray[np.float32]] = {}

    def __call__(self, fields: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine`."""
        self._found = {}
        for number, start in enumerate(range(0, len(fields), self._part)):
            part = self.arrays.fill(fields[start : start + self._part], self._part)
            self._queue.start_async({0: part}, number, share_inputs=True)
        self._queue.wait_all()
        return np.concatenate([self._found[number] for number in sorted(self._found)])[: len(fields)]

    def _keep(self, request: Any, number: int) -> None:
        self._found[number] = request.get_output_tensor(0).data.copy()


def read(path: Path) -> Any:
    """A network in OpenVINO's own files, an ``.xml`` with its ``.bin`` beside it.

    Raises:
        InferenceError: where OpenVINO cannot read them.
    """
    import openvino

    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InferenceError(path, f"is no network that this OpenVINO reads ({reason})", "Quantise anew.") from error
    if model.output(0).partial_shape[0].is_static:  # of an ensemble, members came first
        raise InferenceError(path, "is of an older version of this program", "Quantise anew.")
    return model


def refusal(error: Exception) -> InferenceError:
    """That OpenVINO does not take a network, and why."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InferenceError("engine openvino", f"cannot take this network ({reason})", "Use --engine torch.")


def _check_precision(compiled: Any, wanted: str) -> None:
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != wanted:
        raise InferenceError("engine openvino", f"computes in {found} here, not in {wanted}", "Use --precision fp32.")
