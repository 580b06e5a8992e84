"""A heatmap as one file: a zip without compression whose root is the store's, which zarr opens as it is.

It is made while it is sent: nothing is written to a disk, however many ask for it and however slowly they read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast
from zipfile import ZIP64_LIMIT, ZIP_FILECOUNT_LIMIT, ZIP_STORED, ZipFile, ZipInfo

_CHUNK = 1 << 20

# A file's header and what follows its data; its line in the directory; the end of the directory (APPNOTE 4.3).
_HEADER, _DESCRIPTOR, _LINE, _END = 30, 16, 46, 22


class Archive:
    """A folder's files, the outermost first; links are left out.

    Args:
        folder: What is packed; its own name is not part of the names inside.
    """

    def __init__(self, folder: Path) -> None:
        found = sorted(folder.rglob("*"), key=lambda path: (len(path.parts), path))
        files = [path for path in found if path.is_file() and not path.is_symlink()]
        self._entries = [_entry(path, path.relative_to(folder).as_posix()) for path in files]
        self._files: Sequence[Path] = files
        self.size = _size(self._entries)
        """Bytes in all; None where the archive is so large that it has another form."""

    def pieces(self) -> Iterator[bytes]:
        """The archive from its first byte to its last."""
        out = _Outbox()
        with ZipFile(cast(IO[bytes], out), "w", ZIP_STORED) as archive:
            for entry, path in zip(self._entries, self._files, strict=True):
                with path.open("rb") as source, archive.open(entry, "w") as target:
                    while data := source.read(_CHUNK):
                        target.write(data)
                        yield out.take()
        yield out.take()


def _size(entries: Sequence[ZipInfo]) -> int | None:
    names = [len(entry.filename.encode()) for entry in entries]
    parts = (_HEADER + _DESCRIPTOR + _LINE) * len(names) + 2 * sum(names)
    total = parts + sum(entry.file_size for entry in entries) + _END
    large = total * 1.05 > ZIP64_LIMIT or len(names) > ZIP_FILECOUNT_LIMIT
    return None if large else total


def _entry(path: Path, name: str) -> ZipInfo:
    entry = ZipInfo.from_file(path, name, strict_timestamps=False)
    entry.compress_type = ZIP_STORED
    return entry


class _Outbox:
    """What was written and not taken yet; a file without positions, in which nothing can be changed afterwards."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
