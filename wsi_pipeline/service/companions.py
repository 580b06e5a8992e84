"""Files that are read along with a slide's own: they may lie no farther than the slide itself.

OpenSlide follows links and the names that stand in the slide's index, wherever they lead:

* of MRXS, the folder beside it and the files that its ``Slidedat.ini`` names;
* of VMS and VMU, the files that they name;
* of Trestle's TIFF, the picture of the glass beside it;
* of DICOM, every file beside it, to see whether it is of the same series.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_MAX_INDEX_BYTES, _MAX_VMS_BYTES = 8 << 20, 64 << 10
_DICOM, _VMS = b"DICM", b"Virtual Microscope Specimen"


def leads_out(path: Path, root: Path) -> Path | None:
    """What belongs to a slide and lies outside of a folder; None where all of it lies within.

    Args:
        path: The slide, a regular file within `root`.
        root: The folder, its own links followed.

    Raises:
        OSError: where what belongs to it cannot be looked at.
        ValueError: where its index is too large to be one.
    """
    return next((part for part in _companions(path) if not part.resolve().is_relative_to(root)), None)


def _companions(path: Path) -> Iterator[Path]:
    """What may lie elsewhere: links, and what an index names by more than a plain name."""
    yield path.with_suffix(".Full")
    if path.suffix.lower() == ".mrxs":
        folder = path.with_suffix("")
        yield folder
        if folder.is_dir():
            yield from _links(folder)
            yield from _named(folder / "Slidedat.ini", folder)
    # OpenSlide goes by what is in these, whatever their names are.
    with path.open("rb") as file:
        head = file.read(_MAX_VMS_BYTES)
    if path.suffix.lower() in {".vms", ".vmu"} or _VMS in head:
        yield from _links(path.parent)
        yield from _named(path, path.parent)
    elif path.suffix.lower() == ".dcm" or head[128:132] == _DICOM:
        yield from _links(path.parent)


def _links(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            # A plain folder in here is read only where an index names what is in it.
            if entry.is_symlink():
                yield Path(entry.path)


def _named(index: Path, folder: Path) -> Iterator[Path]:
    """What the values of an index would be as names of files; plain names are among the folder's own."""
    if not index.is_file():
        return
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError(f"{index.name} is too large")
    text = index.read_bytes().decode("latin-1")
    for line in text.splitlines():
        value = line.partition("=")[2].strip().strip('"').replace("\\", "/")
        if "/" in value and "\0" not in value:
            yield folder / value.lstrip("/")
