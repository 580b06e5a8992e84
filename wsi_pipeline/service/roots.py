"""Slides by name, from the folders that the service may read and from nowhere else."""

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

from wsi_pipeline.errors import ConfigError, SlideFormatError, SlideNotFoundError
from wsi_pipeline.service.companions import leads_out
from wsi_pipeline.slides.kaggle import index_patches
from wsi_pipeline.viewer.problems import RequestError

MAX_NAME = 1024
"""Characters of a slide's name."""

_CASE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSlide:
    """A slide under one of the roots."""

    name: str
    """Relative to its root, with forward slashes; of a case in a zip file ``file.zip::case``."""
    address: str
    """As the readers take it."""


class Roots:
    """The folders that slides may be taken from.

    Args:
        folders: At least one; links among these themselves are followed, those within them are not.

    Raises:
        ConfigError: where one is no folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        if not folders:
            raise ConfigError("--root", "no folder was named", "Name the folder of the slides.")
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(folder, "is no folder", "Give --root the folder that holds the slides.")
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        self._spelled = tuple(folder.absolute() for folder in folders)

    def find(self, name: str) -> FoundSlide:
        """The slide of a name: relative to a root, or an absolute path under one.

        Raises:
            RequestError: 403 where it leads out of the roots or over a link; 422 where the name is none.
            SlideNotFoundError: where there is no such file.
            SlideFormatError: where it is no single slide.
        """
        file, mark, case = name.partition("::")
        _check_name(name, file)
        found = dict.fromkeys(self._files(name, file))
        if not found:
            raise SlideNotFoundError(name, "is in none of the folders of slides", "Name it relative to one of them.")
        if len(found) > 1:
            why = "is in several of the folders of slides"
            raise RequestError(422, name, why, "Name it by its absolute path.")
        (root, path), *_ = found
        shown = path.relative_to(root).as_posix()
        if mark or is_zipfile(path):
            case = _choose_case(name, path, case)
            return FoundSlide(name=f"{shown}::{case}", address=f"{path}::{case}")
        if path.suffix.lower() == ".txt":
            raise SlideFormatError(name, "is no slide", "Submit each slide of a list by itself.")
        return FoundSlide(name=shown, address=str(path))

    def _files(self, name: str, file: str) -> Iterator[tuple[Path, Path]]:
        """Each root that holds the file, and the file there."""
        given = Path(file)
        if not given.is_absolute():
            relatives = [(root, given) for root in self.folders]
        else:
            roots = dict.fromkeys((*self.folders, *self._spelled))
            relatives = [(root.resolve(), given.relative_to(root)) for root in roots if given.is_relative_to(root)]
            if not relatives:
                raise _outside(name)
        for root, relative in relatives:
            path = _follow(name, root, relative)
            if path is not None:
                yield root, path


def _check_name(name: str, file: str) -> None:
    if not file or len(name) > MAX_NAME or _CONTROL.search(name):
        raise RequestError(422, "slide", f"is no name of a file of at most {MAX_NAME:,} characters", "Name a slide.")
    if "://" in name:
        raise RequestError(422, "slide", "addresses are not taken", "Name a file in one of the folders of slides.")
    if ".." in re.split(r"[\\/]", file):
        raise _outside(name)


def _follow(name: str, root: Path, relative: Path) -> Path | None:
    """The file, step by step so that no link is followed; None where it is not there.

    Raises:
        RequestError: 403 where one is.
        SlideFormatError: where there is something else of that name.
    """
    path = root
    mode = 0
    for part in relative.parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            return None
        if stat.S_ISLNK(mode):
            raise RequestError(403, name, "is a link, or lies behind one", "Name the file itself.")
    if not path.resolve().is_relative_to(root):  # junctions and the like
        raise _outside(name)
    if not stat.S_ISREG(mode):
        raise SlideFormatError(name, "is no file", "Name a slide's file; of patches, put the case into a zip file.")
    _check_companions(name, path, root)
    return path


def _check_companions(name: str, path: Path, root: Path) -> None:
    """Refuse a slide of several files one of which lies outside.

    Raises:
        RequestError: 403.
        SlideFormatError: where they cannot be looked at.
    """
    try:
        part = leads_out(path, root)
    except (OSError, RuntimeError, ValueError) as error:
        raise SlideFormatError(name, f"its files cannot be looked at ({error})", "Copy the slide whole.") from error
    if part is not None:
        why = f"{part.name}, which is read with it, lies outside of the folders that slides are taken from"
        raise RequestError(403, name, why, "Copy the slide whole into the folder.")


def _choose_case(name: str, path: Path, case: str) -> str:
    """The case of a zip file of patches that is meant.

    Raises:
        SlideFormatError: where there is none, or several and none is named.
    """
    if not is_zipfile(path) or (case and not _CASE.fullmatch(case)):
        raise SlideFormatError(name, "names no case of a zip file of patches", "Write file.zip::case.")
    cases = index_patches(path).cases
    if case and case not in cases:
        raise SlideFormatError(name, f"has no case {case}", f"It has {len(cases):,} cases.")
    if not case and len(cases) != 1:
        hint = f"Name one of them: {name}::{min(cases)}." if cases else "It is no slide."
        raise SlideFormatError(name, f"is a zip file of {len(cases):,} cases", hint)
    chosen = case or next(iter(cases))
    if not _CASE.fullmatch(chosen):
        raise SlideFormatError(name, "has a case of an unusual name", "Rename the case.")
    return chosen


def _outside(name: str) -> RequestError:
    why = "lies outside of the folders that slides are taken from"
    return RequestError(403, name, why, "Start the service with --root and its folder.")
