"""OpenVINO on the CPU: fp32, bf16, or a bundle's int8 network."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.config import Arithmetic
from wsi_pipeline.errors import InferenceError
from wsi_pipeline.inference.fields import FieldNetwork

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is not int8 runs in this precision; left to itself OpenVINO takes bf16 on CPUs that have it."""

MIN_PART = 16
"""Fields of view that one core takes at a time, at least."""


class OpenVinoEngine:
    """A network of OpenVINO's, one stream for each core: a batch is divided among them."""

    def __init__(self, model: Any, *, arithmetic: Arithmetic, batch_size: int, size_px: int) -> None:
        """Compile a network.

        Args:
            model: ``openvino.Model`` from `convert` or `read`.
            arithmetic: ``fp32``, ``bf16`` or ``int8``.
            batch_size: Fields of view in a batch.
            size_px: Their side.

        Raises:
            InferenceError: where the network does not take batches of this shape, or the CPU not this arithmetic.
        """
        import openvino

        self.name = "openvino-int8" if arithmetic == "int8" else "openvino"
        self.arithmetic = arithmetic
        threads = torch.get_num_threads()
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
            raise _refusal(error) from error
        _check_precision(compiled, _HINTS[arithmetic])
        *many, _, self.classes = compiled.output(0).shape
        self.members: int | None = many[0] if many else None
        self._queue = openvino.AsyncInferQueue(compiled, streams)
        self._queue.set_callback(self._keep)
        self._found: dict[int, NDArray[np.float32]] = {}

    def __call__(self, fields: Tensor) -> Tensor:
        """See `Engine`."""
        pixels, self._found = fields.numpy(), {}
        for number, start in enumerate(range(0, len(pixels), self._part)):
            part = pixels[start : start + self._part]
            if len(part) < self._part:
                part = np.concatenate([part, np.zeros((self._part - len(part), *part.shape[1:]), np.uint8)])
            self._queue.start_async({0: part}, number, share_inputs=True)
        self._queue.wait_all()
        answers = np.concatenate([self._found[number] for number in sorted(self._found)], axis=-2)
        return torch.from_numpy(answers[..., : len(pixels), :])

    def _keep(self, request: Any, number: int) -> None:
        self._found[number] = request.get_output_tensor(0).data.copy()


def convert(network: FieldNetwork, *, size_px: int) -> Any:
    """OpenVINO's form of a network: ``openvino.Model``, uint8 [any, size_px, size_px, 3] in, answers out.

    It goes straight through OpenVINO's reader of TorchScript: `openvino.convert_model` takes four times as long and
    reports its use to OpenVINO's makers.

    Raises:
        InferenceError: where the network does something that OpenVINO does not know.
    """
    import openvino
    from openvino import frontend
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    failures = (
        *(frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure),
        *(frontend.OpConversionFailure, frontend.OpValidationFailure),
    )
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # torch would rather have its own exporter used
            decoder = TorchScriptPythonDecoder(
                network,
                example_input=(torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8),),
                trace_kwargs={"check_trace": False},  # a second run, and more than a second of imports for it
            )
        reader = frontend.FrontEndManager().load_by_framework("pytorch")
        model = reader.convert(reader.load(decoder))
        fields = model.inputs[0].get_node()
        fields.set_element_type(openvino.Type.u8)
        fields.set_partial_shape(openvino.PartialShape([-1, size_px, size_px, 3]))
        model.validate_nodes_and_infer_types()
    except (RuntimeError, *failures) as error:
        raise _refusal(error) from error
    return model


def read(path: Path) -> Any:
    """A network in OpenVINO's own files, an ``.xml`` with its ``.bin`` beside it.

    Raises:
        InferenceError: where OpenVINO cannot read them.
    """
    import openvino

    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InferenceError(path, f"is no network that this OpenVINO reads ({reason})", "Quantise anew.") from error


def _refusal(error: Exception) -> InferenceError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InferenceError("engine openvino", f"cannot take this network ({reason})", "Use --engine torch.")


def _check_precision(compiled: Any, wanted: str) -> None:
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != wanted:
        raise InferenceError("engine openvino", f"computes in {found} here, not in {wanted}", "Use --precision fp32.")
