"""Bytes of an open file at any place, for several threads at once."""

import os
from io import BufferedReader
from threading import Lock
from typing import BinaryIO


class PositionalFile:
    """Reads a file without moving a position that others rely on.

    A local file is read where asked by the operating system (``pread``), with one call and no lock. Any other one,
    and every file on a system without ``pread``, is read by one thread after the other.

    Args:
        file: Open for reading; its owner closes it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._local = isinstance(file, BufferedReader) and hasattr(os, "pread")
        self._lock = Lock()

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer where the file ends before."""
        if self._local:
            return os.pread(self._file.fileno(), length, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)
