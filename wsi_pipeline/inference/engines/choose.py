"""Which engine a run takes, and in which arithmetic it computes."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from wsi_pipeline.config import Arithmetic, EngineName, Precision
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.inference.devices import Device, kind_of

OPENVINO = ("openvino", "openvino-int8")
INSTALL = 'Install it with: pip install "wsi-pipeline[openvino]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A definite engine and what it rounds to."""

    engine: Literal["torch", "compile", "openvino", "openvino-int8"]
    arithmetic: Arithmetic


def choose_engine(engine: EngineName, precision: Precision, device: Device) -> Choice:
    """Make the choices that ``auto`` leaves open.

    On a GPU ``auto`` is torch in mixed precision. On a CPU it is OpenVINO where that is installed, else torch, both in
    fp32: OpenVINO computes faster (docs/engines.md). int8 and, on a CPU, bf16 change the numbers and are never chosen
    for the user.

    Raises:
        ConfigError: where engine, precision and device do not go together, or OpenVINO is not installed.
    """
    kind = kind_of(device)
    if engine == "auto":
        engine = "openvino" if kind == "cpu" and find_spec("openvino") else "torch"
    if engine in OPENVINO:
        if kind != "cpu":
            raise ConfigError("engine", f"{engine} runs on the CPU, not on {kind}", "Add --device cpu.")
        if find_spec("openvino") is None:
            raise ConfigError("engine", f"{engine} needs the package openvino, which is not installed", INSTALL)
    if engine == "openvino-int8":
        if precision == "bf16":
            raise ConfigError("precision", "bf16 and the engine openvino-int8 exclude each other", "Leave one out.")
        return Choice(engine=engine, arithmetic="int8")
    return Choice(engine=engine, arithmetic=_arithmetic(precision, kind))


def _arithmetic(precision: Precision, kind: str) -> Arithmetic:
    if precision == "bf16" and kind == "mps":
        raise ConfigError("precision", "bf16 is not supported on mps", "Use --precision fp32.")
    if precision != "auto":
        return precision
    if kind != "cuda":
        return "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
