"""Arrays as torch tensors, on a CPU, a GPU or MPS."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.inference.arrays import Answers


class TorchArrays:
    """Tensors on one device; see `arrays.Arrays`.

    To and from a GPU everything goes through page-locked memory, while the GPU and this process go on.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def take(self, values: NDArray[np.generic] | Tensor) -> Tensor:
        """See `Arrays`."""
        host = torch.as_tensor(values)
        if self._device.type != "cuda":
            return host.to(self._device)
        return (host if host.is_pinned() else host.contiguous().pin_memory()).to(self._device, non_blocking=True)

    def cut(self, pixels: Tensor, windows: Tensor, size: int) -> Tensor:
        """See `Arrays`."""
        x, y = windows.unbind(1)
        return pixels.unfold(0, size, 1).unfold(1, size, 1)[y, x].permute(0, 2, 3, 1)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Arrays`."""
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))

    def fill(self, fields: Tensor, count: int) -> Tensor:
        """See `Arrays`."""
        if len(fields) < count:
            fields = torch.cat([fields, fields.new_zeros(count - len(fields), *fields.shape[1:])])
        return fields.contiguous()

    def symmetries(self, fields: Tensor) -> Iterator[Tensor]:
        """See `Arrays`."""
        return (form.contiguous() for form in symmetries(fields, (1, 2)))

    def stack(self, answers: Sequence[Tensor]) -> Tensor:
        """See `Arrays`."""
        return torch.stack(list(answers), 1)

    def send(self, answers: Tensor) -> Callable[[], Answers]:
        """See `Arrays`: the GPU goes on with what is submitted next."""
        if not answers.is_cuda:
            return lambda: answers.cpu().numpy()
        host = torch.empty(answers.shape, dtype=answers.dtype, pin_memory=True)
        with torch.cuda.device(answers.device):
            host.copy_(answers, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()

        def wait() -> Answers:
            arrived.synchronize()
            return host.numpy()

        return wait


def symmetries(batch: Tensor, axes: tuple[int, int]) -> Iterator[Tensor]:
    """The 8 turned and mirrored forms of squares, whose rows and columns are these axes; the batch itself first."""
    for mirrored in (batch, batch.flip(axes[1])):
        for quarters in range(4):
            yield torch.rot90(mirrored, quarters, axes)
