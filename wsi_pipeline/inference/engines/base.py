"""What every engine is."""

from typing import Protocol

from torch import Tensor

from wsi_pipeline.config import Arithmetic


class Engine(Protocol):
    """A bundle's network, ready to compute batches of one shape on one device."""

    name: str
    """``torch``, ``compile``, ``openvino`` or ``openvino-int8``."""
    arithmetic: Arithmetic
    """What it rounds to: results of different arithmetic are not mixed in one map."""
    classes: int
    """Columns of its answers."""
    members: int | None
    """Networks that answer; None where it is one, and no ensemble."""

    def __call__(self, fields: Tensor) -> Tensor:
        """Answer a batch.

        Args:
            fields: uint8 RGB [batch, size, size, 3], contiguous, on the engine's device.

        Returns:
            float32 on the same device: logits [batch, classes], or of an ensemble its members' probabilities
            [members, batch, classes]. On a GPU it may still be being computed.

        Raises:
            RuntimeError: where the network fails.
        """
        ...
