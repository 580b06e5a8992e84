"""A cache bounded in bytes, for many threads."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Keeps what was used last, up to a number of bytes.

    Args:
        limit: Bytes in all.
        size: How many bytes a value is; `len` for bytes.
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self._limit, self._size = limit, size
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0
        """Bytes kept now."""

    def get(self, key: Hashable) -> Value | None:
        """The value, None where it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, value: Value) -> Value:
        """Keep a value, which is given back; one that is larger than the whole cache is not kept."""
        if self._size(value) > self._limit:
            return value
        with self._lock:
            if key in self._kept:
                self.bytes -= self._size(self._kept.pop(key))
            self._kept[key] = value
            self.bytes += self._size(value)
            while self.bytes > self._limit:
                _, dropped = self._kept.popitem(last=False)
                self.bytes -= self._size(dropped)
        return value


class Crossings:
    """Locks by key, a fixed number of them: what is costly to make is made by one thread while the others wait."""

    def __init__(self, count: int = 16) -> None:
        self._locks = [Lock() for _ in range(count)]

    def of(self, key: Hashable) -> Lock:
        """The lock of a key; keys may share one, so never hold two."""
        return self._locks[hash(key) % len(self._locks)]
