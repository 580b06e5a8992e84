"""Addresses of slides: local paths and fsspec URLs, their bytes and their fingerprints."""

import os
import re
import struct
import zlib
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from xml.etree.ElementTree import ParseError

from wsi_pipeline.errors import ResolutionError, SlideFormatError, SlideNotFoundError
from wsi_pipeline.geometry import Level, Mpp, Scale, Size

BROKEN_FILE_ERRORS: tuple[type[Exception], ...] = (
    OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RuntimeError,
    EOFError, MemoryError, struct.error, zlib.error, ParseError,
)  # fmt: skip
"""What the TIFF, XML and image decoders raise on bytes that are not what they should be."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of classic and of BigTIFF files."""

_SAMPLE = 64 << 10
_END = 1 << 20
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DOUBLE_SUFFIXES = (".ome.tif", ".ome.tiff")


def is_remote(address: str) -> bool:
    """Whether an address is an fsspec URL such as ``s3://bucket/slide.svs`` and not a local path."""
    return _REMOTE.match(address) is not None


def slide_id(address: str) -> str:
    """A name for people and for folders: the file's stem without ``.ome``, or the case of a patch folder or zip."""
    if is_remote(address):
        name = PurePosixPath(without_query(address)).name
    else:
        file, _, case = address.partition("::")
        if case or Path(file).is_dir():
            return _safe(case or Path(file).name)
        name = Path(file).name
    for suffix in _DOUBLE_SUFFIXES:
        if name.lower().endswith(suffix):
            return _safe(name[: -len(suffix)])
    return _safe(PurePosixPath(name).stem)


def absolute(address: str) -> str:
    """An address that other processes and other folders understand too."""
    if is_remote(address):
        return address
    file, mark, case = address.partition("::")
    return f"{os.path.abspath(file)}{mark}{case}"  # noqa: PTH100  (links are kept, as the user named them)


def without_query(address: str) -> str:
    """An address as it may be written down: the query of a signed https address is a secret."""
    return address.split("?", maxsplit=1)[0] if is_remote(address) else address


def _safe(name: str) -> str:
    """`name` without what file systems refuse, and without bytes that are no UTF-8."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]', "_", name).strip(". ") or "slide"


def open_bytes(address: str) -> BinaryIO:
    """Open a local file or fsspec address for reading.

    Raises:
        SlideNotFoundError: where it does not exist or cannot be reached.
        SlideFormatError: where it is a folder or an empty file.
    """
    if is_remote(address):
        return _open_remote(address)
    path = Path(address)
    if path.is_dir():
        raise SlideFormatError(address, "is a folder, not a slide file", "Name a file in it.")
    try:
        if path.stat().st_size == 0:
            raise SlideFormatError(address, "the file is empty", "Copy it again from its source.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise SlideNotFoundError(address, "does not exist", "Check the path.") from error
    except OSError as error:
        raise SlideNotFoundError(address, f"cannot be read ({error.strerror})", "Check its permissions.") from error


def _open_remote(address: str) -> BinaryIO:
    from fsspec.core import url_to_fs

    scheme = address.split("://", maxsplit=1)[0]
    try:
        filesystem, path = url_to_fs(address)
        return cast(BinaryIO, filesystem.open(path, "rb"))
    except FileNotFoundError as error:
        raise SlideNotFoundError(address, "does not exist", "Check the address.") from error
    except ImportError as error:
        hint = 'Install the remote extra: pip install "wsi-pipeline[remote]".'
        raise SlideNotFoundError(address, f"{scheme} addresses need another package ({error})", hint) from error
    except remote_errors() as error:
        raise SlideNotFoundError(address, f"cannot be reached ({error})", "Check the address and access.") from error


def remote_errors() -> tuple[type[Exception], ...]:
    """What file systems raise on a failed transfer, as far as their packages are installed."""
    errors: list[type[Exception]] = [OSError, ValueError, RuntimeError, ImportError]
    try:
        from aiohttp import ClientError
    except ImportError:
        pass
    else:
        errors.append(ClientError)
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        pass
    else:
        errors.append(BotoCoreError)
    return tuple(errors)


def fingerprint(file: BinaryIO, extra: str = "") -> str:
    """SHA-256 (hex) over a file's size, its first and last MiB and eight samples between, quick for any size.

    Args:
        file: Open for reading; its position is moved.
        extra: Anything else that tells the content, such as names and sizes of further files.
    """
    size = file.seek(0, 2)
    digest = sha256(f"{size}:{extra}:".encode())
    starts = [(0, _END)]
    if size > _END:
        starts += [(size * n // 9, _SAMPLE) for n in range(1, 9)]
        starts += [(max(0, size - _END), _END)]
    for start, length in starts:
        file.seek(start)
        digest.update(file.read(length))
    return digest.hexdigest()


def resolution(
    address: str, user: float | None, found: tuple[float, float] | None, warnings: list[str]
) -> tuple[Mpp | None, str]:
    """The resolution and where it comes from; a value that is no microscope's becomes a warning.

    Args:
        address: The slide, for messages.
        user: What the user says, µm/px.
        found: What the file says along x and y, µm/px.
        warnings: Sentences are added here.

    Raises:
        ResolutionError: where the user's value is nonsense.
    """
    if user is not None:
        try:
            return Mpp(user, user), "user"
        except ResolutionError as error:
            raise ResolutionError(address, error.why, error.hint) from error
    if found is None:
        return None, "missing"
    try:
        return Mpp(*found), "file"
    except ResolutionError:
        x, y = found
        value = f"{x:g}" if x == y else f"{x:g} x {y:g}"
        warnings.append(f"The file says {value} µm/px, which is no microscope's resolution; it is ignored.")
        return None, "missing"


def pyramid(sizes: list[Size]) -> tuple[Level, ...]:
    """Levels of the given sizes, finest first.

    Scanners divide by a whole number and drop the remainder, so where such a number explains both sides it is the
    scale; else the ratio of the sizes is.
    """
    base = sizes[0]
    levels = []
    for size in sizes:
        x, y = base.width / size.width, base.height / size.height
        whole = round(min(x, y))
        if abs(base.width / whole - size.width) < 1 and abs(base.height / whole - size.height) < 1:
            x = y = float(whole)
        levels.append(Level(size, Scale(x, y)))
    return tuple(levels)
