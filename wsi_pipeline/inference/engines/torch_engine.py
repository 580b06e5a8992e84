"""Engines of torch: as it is, and compiled; on CPU, CUDA and MPS."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from wsi_pipeline.config import Arithmetic
from wsi_pipeline.inference.devices import Device, kind_of
from wsi_pipeline.inference.fields import FieldNetwork
from wsi_pipeline.inference.torch_arrays import TorchArrays

_MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """The network by torch: batch norms folded, channels last in memory, mixed precision by autocast."""

    def __init__(
        self, network: FieldNetwork, device: Device, *, size_px: int, arithmetic: Arithmetic, compiled: bool
    ) -> None:
        """Put a network on its device.

        Args:
            network: On the CPU.
            device: Where to.
            size_px: Side of the fields of view.
            arithmetic: ``fp32``, ``bf16`` or ``fp16``.
            compiled: By torch's compiler: half a minute of start-up for less work between the layers.
        """
        self.name = "compile" if compiled else "torch"
        self.arithmetic, self._kind = arithmetic, kind_of(device)
        self.arrays = TorchArrays(device)
        self.members, self.classes = _answers(network, size_px)
        network = network.to(device).to(memory_format=torch.channels_last)
        self._graphed = compiled and self._kind == "cuda"
        self._network: Callable[[Tensor], Tensor] = network
        if compiled:
            self._network = torch.compile(network, mode="reduce-overhead" if self._graphed else None, dynamic=False)

    @torch.inference_mode()
    def __call__(self, fields: Tensor) -> Tensor:
        """See `Engine`."""
        with self._rounding():
            answers = self._network(fields)
        # A CUDA graph writes its next answers to the same memory.
        return answers.clone() if self._graphed else answers

    def _rounding(self) -> AbstractContextManager[object]:
        if self.arithmetic in _MIXED:
            return torch.autocast(self._kind, _MIXED[self.arithmetic])
        if self._kind == "cuda":  # which would round to TF32
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()


@torch.inference_mode()
def _answers(network: FieldNetwork, size_px: int) -> tuple[int | None, int]:
    """Members (None for one network) and classes, from one black field."""
    shape = network(torch.zeros(1, size_px, size_px, 3, dtype=torch.uint8)).shape
    return (shape[1] if len(shape) == 3 else None), shape[-1]
