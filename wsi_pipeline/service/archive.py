"""A heatmap as one file: a zip without compression whose root is the store's, which zarr opens as it is."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from zipfile import ZIP_STORED, ZipFile

_CHUNK = 1 << 20


def zip_folder(folder: Path, scratch: Path) -> IO[bytes]:
    """An open, unnamed file that holds the folder's files and goes when it is closed. Links are left out.

    Args:
        folder: What is packed; its own name is not part of the names inside.
        scratch: Folder on whose disk the file lies.
    """
    packed = TemporaryFile(dir=scratch)  # noqa: SIM115  (the caller closes it)
    try:
        with ZipFile(packed, "w", ZIP_STORED, strict_timestamps=False) as archive:
            for path in sorted(folder.rglob("*"), key=lambda path: (len(path.parts), path)):
                if path.is_file() and not path.is_symlink():
                    archive.write(path, path.relative_to(folder).as_posix())
        packed.seek(0)
    except BaseException:
        packed.close()
        raise
    return packed


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a file, which is closed at the end."""
    with file:
        while data := file.read(_CHUNK):
            yield data
