"""From what a user names (files, folders, globs, lists, addresses) to the slides it holds."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from zipfile import is_zipfile

from wsi_pipeline.errors import DatasetError, SlideNotFoundError
from wsi_pipeline.slides.files import TIFF_MAGIC, is_remote, remote_errors
from wsi_pipeline.slides.kaggle import Patch, PatchIndex, index_patches
from wsi_pipeline.slides.openslide_reader import detect_vendor

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".czi"}
)
"""Files that are taken from a folder by their name."""

_NO_SLIDES = frozenset(
    {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".txt", ".csv", ".tsv", ".json", ".geojson", ".xml", ".yaml", ".yml",
     ".md", ".html", ".pdf", ".log", ".gz", ".tar", ".py", ".ini", ".dat", ".opt", ".npy", ".h5", ".parquet", ".doc",
     ".docx", ".xls", ".xlsx", ".ipynb", ".pt", ".safetensors"}
)  # fmt: skip
"""Files that are passed over in a folder without a look inside."""

LABELS_SUFFIX = ".labels.ome.tif"
"""Ends the mask that `assemble.assemble_case` writes beside a case's picture: no slide."""

MULTI_FILE_SUFFIXES = (".mrxs", ".vms", ".vmu")
"""The data of these formats lie in a folder of the index file's name."""

_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI..([0-9.]+)", re.DOTALL)
"""DICOM's SeriesInstanceUID (0020,000E), explicit little-endian."""

_EXPECTED = "Expected slides (" + " ".join(sorted(SLIDE_SUFFIXES)) + ") or IDC patches <case>/<0 or 1>/"
_EXPECTED += "<case>_idx5_x<X>_y<Y>_class<0 or 1>.png"


def find_slides(inputs: Sequence[str]) -> list[str]:
    """The slides that `inputs` name, sorted, each once.

    An input is a file (always kept, so that what is wrong with it is reported by its name), a folder (searched with
    all that is under it), a glob, a text list (``.txt``: one input a line, ``#`` starts a comment, relative to the
    list), an fsspec address, or a folder or zip of IDC patches, which gives one address a case: the case's folder,
    or ``file.zip::case``.

    Raises:
        SlideNotFoundError: where an input gives nothing at all, or a list does not exist.
        DatasetError: where the patches of several cases lie mixed in one folder.
    """
    found: dict[str, str] = {}
    for text in inputs:
        for address in _expand(text):
            found.setdefault(_identity(address), address)
    if not found:
        raise SlideNotFoundError("slides", "no input was named", "Name a slide, a folder, a glob or a list.")
    return sorted(found.values())


def _identity(address: str) -> str:
    """What two spellings of one address have in common."""
    if is_remote(address):
        return address
    file, mark, case = address.partition("::")
    return f"{Path(file).resolve()}{mark}{case}"


def _expand(text: str) -> Iterator[str]:
    path = Path(text)
    if is_remote(text):
        yield from _expand_remote(text)
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() == ".txt":
        yield from _in_list(path)
    elif path.is_file() and is_zipfile(path):
        cases = index_patches(path).cases
        yield from [f"{path}::{case}" for case in cases] or [str(path)]
    elif not path.exists() and glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  (relative and absolute alike)
        if not matches:
            raise SlideNotFoundError(text, "no file matches", "Check the pattern and the folder.")
        for match in matches:
            yield from _expand(match)
    else:
        yield str(path)


def _in_list(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SlideNotFoundError(path, f"the list cannot be read ({error})", "Check the path.") from error
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise SlideNotFoundError(path, "the list names no slide", "Write one path a line.")
    for name in names:
        yield from _expand(name if is_remote(name) else str(path.parent / name))


def _expand_remote(address: str) -> Iterator[str]:
    if not (address.endswith("/") or glob.has_magic(address.split("?", maxsplit=1)[0])):
        yield address
        return
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(address)
        names = filesystem.find(path) if address.endswith("/") else filesystem.glob(path)
    except remote_errors() as error:
        raise SlideNotFoundError(address, f"cannot be listed ({error})", "Check the address and access.") from error
    slides = [name for name in names if PurePosixPath(name).suffix.lower() in SLIDE_SUFFIXES]
    if not slides:
        raise SlideNotFoundError(address, "holds no slides", "Check the address.")
    for name in slides:
        yield str(filesystem.unstrip_protocol(name))


def _in_folder(folder: Path) -> Iterator[str]:
    index = index_patches(folder)
    slides = [*_case_folders(folder, index), *_slides_among(folder, index.foreign)]
    if not slides:
        pictures = [name for name in index.foreign if name.lower().endswith(".png")]
        why = "holds no slides and no IDC patches"
        if pictures:
            why += f"; its {len(pictures)} PNG files are not named like patches ({pictures[0]})"
        raise SlideNotFoundError(folder, why, f"{_EXPECTED}.")
    yield from slides


def _case_folders(folder: Path, index: PatchIndex) -> Iterator[str]:
    homes: dict[PurePosixPath, str] = {}
    for case, patches in index.cases.items():
        home = _home(patches)
        if homes.setdefault(home, case) != case:
            raise DatasetError(
                folder / home,
                f"patches of the cases {homes[home]} and {case} lie in one folder",
                "Sort them into folders <case>/<0 or 1>/, or put them in a zip.",
            )
        yield str(folder / home)


def _home(patches: Iterable[Patch]) -> PurePosixPath:
    """The folder of a case: above its class folders, where it has them."""
    parent = min((PurePosixPath(patch.member).parent for patch in patches), key=lambda path: len(path.parts))
    return parent.parent if parent.name in ("0", "1") else parent


def _slides_among(folder: Path, names: Iterable[str]) -> Iterator[str]:
    paths = sorted(PurePosixPath(name) for name in names)
    companions = {path.with_suffix("") for path in paths if path.suffix.lower() in MULTI_FILE_SUFFIXES}
    series: set[tuple[PurePosixPath, bytes]] = set()
    for path in paths:
        if any(part.startswith(".") or part.endswith((".zarr", ".partial")) for part in path.parts):
            continue
        if path.name.endswith(LABELS_SUFFIX):
            continue
        if not companions.isdisjoint(path.parents):
            continue
        suffix = path.suffix.lower()
        if suffix == ".dcm" and not _is_new_series(folder, path, series):
            continue
        if suffix == ".zip":
            yield from _cases_in_zip(folder / path)
        elif suffix in SLIDE_SUFFIXES or (suffix not in _NO_SLIDES and _is_slide(folder / path)):
            yield str(folder / path)


def _cases_in_zip(path: Path) -> list[str]:
    """A zip in a folder: its cases; nothing where it holds none; itself where it is broken, to be reported."""
    try:
        return [f"{path}::{case}" for case in index_patches(path).cases]
    except DatasetError:
        return [str(path)]


def _is_new_series(folder: Path, path: PurePosixPath, seen: set[tuple[PurePosixPath, bytes]]) -> bool:
    """Whether no other file of the same DICOM series in the same folder was seen before."""
    try:
        with (folder / path).open("rb") as file:
            match = _SERIES_UID.search(file.read(1 << 16))
    except OSError:
        return True
    if match is None:
        return True
    key = path.parent, match[1]
    new = key not in seen
    seen.add(key)
    return new


def _is_slide(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(4) in TIFF_MAGIC:
                return True
    except OSError:
        return False
    return detect_vendor(str(path)) is not None
