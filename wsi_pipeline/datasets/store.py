"""Files of labelled patches in a folder, a zip or a folder of zips, read from any process."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile
from zlib import crc32

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.slides.patch_files import open_files
from wsi_pipeline.slides.zip_directory import ZipMember, list_members, read_head, read_member

MAX_OPEN_ZIPS = 128
"""Zips held open at once by a process; a folder may hold one for each of hundreds of cases."""

SAMPLE_BYTES = 4096
"""Read from the middle of a file to tell it from others."""


class PatchStore:
    """The files below a folder or in a zip; zips in a folder are looked into.

    It pickles, survives a fork and may be read by several threads: each process opens the zips for itself, when it
    first reads from them.

    Args:
        root: A folder or a zip.

    Raises:
        SlideNotFoundError: where `root` does not exist.
        DatasetError: where `root` or a zip in it is broken, or a folder may not be read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        found = _names(root)
        if Path(root).is_dir():
            zips = [name for name in found if name.lower().endswith(".zip")]
            names = sorted(set(found).difference(zips))
            names += [f"{name}/{member}" for name in sorted(zips) for member in _names(Path(root) / name)]
            self._zips = frozenset(zips)
        else:
            names, self._zips = list(found), frozenset([""])
        self.names = tuple(names)
        """Paths below the root with forward slashes; of a zip in the folder as ``file.zip/path``."""
        self._start()

    def keep(self, names: Iterable[str]) -> None:
        """Forget all files but these: the published IDC zip lists every patch twice."""
        self.names = tuple(names)
        self.close()
        self._start()

    def address(self, name: str) -> str:
        """Where a file lies, for messages."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DatasetError: where they cannot be read; the file is named.
        """
        return self._bytes(name, None)

    def head(self, name: str, length: int) -> bytes:
        """The first bytes of a file, at most `length`.

        Raises:
            DatasetError: as `read`.
        """
        return self._bytes(name, length)

    def checksum(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 of a file, of one in a folder only of some bytes in its middle: quick to have.

        The same for files with the same content, and seldom the same for others.

        Raises:
            DatasetError: as `read`.
        """
        archive, member = self._locate(name)
        with self._named_errors(name):
            if archive is not None:
                with self._lock_here():
                    entry = self._entry(archive, member)[1]
                return entry.size, entry.crc
            with Path(self.root, member).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, (size - SAMPLE_BYTES) // 2))
                return size, crc32(file.read(SAMPLE_BYTES))

    def close(self) -> None:
        """Close the zips that this process has open; the next read opens them again."""
        for file in self._opened.values():
            file.close()
        self._opened.clear()

    def _bytes(self, name: str, length: int | None) -> bytes:
        archive, member = self._locate(name)
        with self._named_errors(name):
            if archive is None:
                with Path(self.root, member).open("rb") as file:
                    return file.read(-1 if length is None else length)
            with self._lock_here():
                zip_file, entry = self._entry(archive, member)
                return read_member(zip_file, entry) if length is None else read_head(zip_file, entry, length)

    @contextmanager
    def _named_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise DatasetError(self.address(name), "is not there any more", "Open the data set again.") from error
        except (OSError, BadZipFile) as error:
            why = f"cannot be read ({error})"
            raise DatasetError(self.address(name), why, "Copy it again, or remove it.") from error

    def _locate(self, name: str) -> tuple[str | None, str]:
        """The zip that a file lies in ("" for the root itself, None for none) and its path there."""
        if "" in self._zips:
            return "", name
        end = name.find("/")
        while end >= 0 and self._zips:
            if name[:end] in self._zips:
                return name[:end], name[end + 1 :]
            end = name.find("/", end + 1)
        return None, name

    def _entry(self, archive: str, member: str) -> tuple[BinaryIO, ZipMember]:
        """An open zip and what its list says of a member."""
        file = self._opened.get(archive)
        if file is None:
            if len(self._opened) >= MAX_OPEN_ZIPS:
                self._opened.pop(next(iter(self._opened))).close()
            file = self._opened[archive] = Path(self.root, archive).open("rb")  # noqa: SIM115 - closed by close
        if archive not in self._members:
            wanted = self._wanted(archive)
            self._members[archive] = {entry.name: entry for entry in list_members(file) if entry.name in wanted}
        return file, self._members[archive][member]

    def _wanted(self, archive: str) -> set[str]:
        """The members of a zip that `keep` has kept; each zip asks once."""
        if not self._to_list:
            for name in self.names:
                where, member = self._locate(name)
                if where is not None:
                    self._to_list.setdefault(where, set()).add(member)
        return self._to_list.pop(archive, set())

    def _lock_here(self) -> threading.Lock:
        """The lock of this process. Its zips are opened anew: a forked one shares its parent's place in each file."""
        if self._process != os.getpid():
            self.close()
            self._start(self._members)
        return self._lock

    def _start(self, members: dict[str, dict[str, ZipMember]] | None = None) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._opened: dict[str, BinaryIO] = {}
        self._members = members or {}
        self._to_list: dict[str, set[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "names": self.names, "_zips": self._zips}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __del__(self) -> None:
        if hasattr(self, "_opened"):
            self.close()


def _names(root: str | Path) -> tuple[str, ...]:
    files = open_files(root)
    files.close()
    return files.names
