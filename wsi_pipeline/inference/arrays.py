"""Where pixels, fields of view and answers lie: numpy arrays in this machine's memory, or tensors on a device."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = Any
"""A numpy array or a torch tensor, whichever its `Arrays` are made of. Both are sliced alike."""

Answers = NDArray[np.float32]


class Arrays(Protocol):
    """What is done with arrays between the pixels of a block and the network's answers, wherever they lie."""

    def take(self, values: Array) -> Array:
        """Values of this machine's memory, brought there."""
        ...

    def cut(self, pixels: Array, windows: Array, size: int) -> Array:
        """Fields of view out of a block's pixels.

        Args:
            pixels: uint8 [height, width, 3].
            windows: int64 [n, 2], (x, y) of their top left corners.
            size: Their side.

        Returns:
            uint8 [n, size, size, 3].
        """
        ...

    def join(self, parts: Sequence[Array]) -> Array:
        """One array of several, one after the other."""
        ...

    def fill(self, fields: Array, count: int) -> Array:
        """Fields of view, and black ones up to `count`; contiguous."""
        ...

    def symmetries(self, fields: Array) -> Iterator[Array]:
        """The 8 turned and mirrored forms of fields of view [n, side, side, 3], themselves first; contiguous."""
        ...

    def stack(self, answers: Sequence[Array]) -> Array:
        """Answers [n, ...] to several forms of the same fields as one array [n, forms, ...]."""
        ...

    def send(self, answers: Array) -> Callable[[], Answers]:
        """Start to bring answers to this machine's memory; gives what waits for them."""
        ...


class HostArrays:
    """Numpy arrays."""

    def take(self, values: Array) -> NDArray[Any]:
        """See `Arrays`."""
        return np.asarray(values)

    def cut(self, pixels: NDArray[np.uint8], windows: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
        """See `Arrays`."""
        height, width, colours = pixels.shape
        rows = np.ascontiguousarray(pixels).reshape(height, width * colours)  # a field's row is one piece of memory
        x, y = windows.T
        fields: NDArray[np.uint8] = sliding_window_view(rows, (size, size * colours))[y, x * colours]
        return fields.reshape(len(windows), size, size, colours)

    def join(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """See `Arrays`."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def fill(self, fields: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
        """See `Arrays`."""
        if len(fields) < count:
            fields = np.concatenate([fields, np.zeros((count - len(fields), *fields.shape[1:]), np.uint8)])
        return np.ascontiguousarray(fields)

    def symmetries(self, fields: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """See `Arrays`."""
        for mirrored in (fields, fields[:, :, ::-1]):
            for quarters in range(4):
                yield np.ascontiguousarray(np.rot90(mirrored, quarters, (1, 2)))

    def stack(self, answers: Sequence[Answers]) -> Answers:
        """See `Arrays`."""
        return np.stack(answers, 1)

    def send(self, answers: Answers) -> Callable[[], Answers]:
        """See `Arrays`."""
        return lambda: answers
