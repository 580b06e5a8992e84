"""The files of a folder or of a zip, read the same way."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

from wsi_pipeline.errors import DatasetError, SlideNotFoundError
from wsi_pipeline.slides.zip_directory import list_members, read_head, read_member

HEAD_BYTES = 24
"""What of a file is looked at on opening: a PNG's signature and its size."""

_LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What tells a file's content without decoding it."""

    crc: int
    """CRC-32 of its bytes."""
    size: int
    """Bytes."""
    head: bytes
    """The first bytes, at most `HEAD_BYTES`; none where the file cannot be read."""


class PatchFiles(Protocol):
    """An open folder or zip."""

    names: tuple[str, ...]
    """Paths of its files, with forward slashes; what operating systems leave behind is not listed."""

    def facts(self, name: str) -> FileFacts:
        """Checksum, size and first bytes of a file; of one that cannot be read, what is known."""

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises OSError or BadZipFile where they cannot be read."""

    def close(self) -> None:
        """Release the zip; closing twice is allowed."""


def open_files(root: str | Path, containing: str = "") -> PatchFiles:
    """Open a folder or a zip.

    Args:
        root: The folder or zip.
        containing: Only files whose path holds this text.

    Raises:
        SlideNotFoundError: where `root` does not exist.
        DatasetError: where it is a broken zip, or a folder in it may not be read.
    """
    root = Path(root)
    if not root.exists():
        raise SlideNotFoundError(root, "does not exist", "Check the path.")
    try:
        return _Folder(root, containing) if root.is_dir() else _Zip(root, containing)
    except BadZipFile as error:
        hint = "Download or copy it again." if root.suffix.lower() == ".zip" else "Give a folder or a zip file."
        raise DatasetError(root, f"is no readable zip file ({error})", hint) from error
    except OSError as error:
        raise DatasetError(root, f"cannot be read ({error})", "Check its permissions.") from error


class _Folder:
    def __init__(self, root: Path, containing: str) -> None:
        self._root = root
        self.names = tuple(name for name in _walk(root) if containing in name and not _is_litter(name))

    def facts(self, name: str) -> FileFacts:
        try:
            data = self.read(name)
        except OSError:
            return FileFacts(crc=0, size=0, head=b"")
        return FileFacts(crc=zlib.crc32(data), size=len(data), head=data[:HEAD_BYTES])

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def close(self) -> None:
        """Nothing is held open."""


class _Zip:
    def __init__(self, path: Path, containing: str) -> None:
        self._file = path.open("rb")
        try:
            members = list_members(self._file, containing)
            self._members = {member.name: member for member in members if not _is_litter(member.name)}
        except BadZipFile:
            self._file.close()
            raise
        self.names = tuple(self._members)

    def facts(self, name: str) -> FileFacts:
        member = self._members[name]
        try:
            head = read_head(self._file, member, HEAD_BYTES)
        except (OSError, BadZipFile):
            head = b""
        return FileFacts(crc=member.crc, size=member.size, head=head)

    def read(self, name: str) -> bytes:
        return read_member(self._file, self._members[name])

    def close(self) -> None:
        self._file.close()


def _walk(root: Path) -> list[str]:
    def refuse(error: OSError) -> None:
        raise error

    names = []
    for folder, _, files in os.walk(root, onerror=refuse):
        inside = Path(folder).relative_to(root)
        names += [(inside / file).as_posix() for file in files]
    return names


def _is_litter(name: str) -> bool:
    """Whether an operating system or a program left the file behind: .DS_Store, __MACOSX/._patch.png, .trash/a.png."""
    parts = name.split("/")
    hidden = any(part.startswith(".") for part in parts)
    return hidden or parts[-1].lower() in _LEFT_BY_SYSTEMS or name.startswith("__MACOSX/")
