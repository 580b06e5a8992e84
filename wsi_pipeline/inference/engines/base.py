"""What every engine is."""

from typing import Protocol

from wsi_pipeline.config import Arithmetic
from wsi_pipeline.inference.arrays import Array, Arrays


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

    @property
    def arrays(self) -> Arrays:
        """Where its fields of view and answers lie."""
        ...

    def __call__(self, fields: Array) -> Array:
        """Answer a batch.

        Args:
            fields: uint8 RGB [batch, size, size, 3] of `arrays`, contiguous.

        Returns:
            float32, in the same place: logits [batch, classes], or of an ensemble its members' probabilities
            [batch, members, classes]. On a GPU it may still be being computed.

        Raises:
            RuntimeError: where the network fails.
        """
        ...
