"""Where the slide of a result is: where the run found it, or in a folder that the user names."""

import os
import time
from pathlib import Path, PurePosixPath, PureWindowsPath
from threading import Lock
from typing import get_args

from wsi_pipeline.config import Reader
from wsi_pipeline.errors import SlideFormatError, SlideNotFoundError, WsiPipelineError
from wsi_pipeline.slides.files import is_remote
from wsi_pipeline.viewer.pool import SlideFile, SlidePool, stamp_of
from wsi_pipeline.viewer.results import SlideEntry

MAX_FILES = 500_000
"""Files looked at in the folders of slides."""

_KEEP_S = 5.0
"""For so long the answer that a slide is not there holds."""

_LISTING_S = 30.0
"""For so long the listing of the folders of slides holds."""


class SlideFinder:
    """Finds slides by name, and makes sure of them by their fingerprint.

    Args:
        folders: Where else to look.
        pool: Opens the slides.
        remote: Whether slides on other machines are opened, where a result names one: whoever wrote the result then
            learns that it is looked at.
    """

    def __init__(self, folders: tuple[Path, ...], pool: SlidePool, *, remote: bool = False) -> None:
        self._folders, self._pool, self._remote = folders, pool, remote
        self._found: dict[tuple[str, str], SlideFile] = {}
        self._missing: dict[tuple[str, str], tuple[float, WsiPipelineError]] = {}
        self._names: dict[str, list[str]] = {}
        self._listed = 0.0
        self._lock = Lock()

    def find(self, entry: SlideEntry) -> SlideFile:
        """The slide that a result is of.

        Raises:
            SlideNotFoundError: where it is nowhere.
            SlideFormatError: where what is there is another slide, or cannot be opened.
        """
        key = entry.id, entry.fingerprint
        known = self._found.get(key)
        if known is not None and stamp_of(known.address) == known.stamp:
            return known
        missing = self._missing.get(key)
        if missing is not None and time.monotonic() - missing[0] < _KEEP_S:
            raise missing[1]
        try:
            file = self._search(entry)
        except WsiPipelineError as error:
            self._missing[key] = time.monotonic(), error
            raise
        self._found[key] = file
        self._missing.pop(key, None)
        return file

    def _search(self, entry: SlideEntry) -> SlideFile:
        address = str(entry.summary.get("path", ""))
        reader: Reader = next((r for r in get_args(Reader) if r == entry.summary.get("reader")), "auto")
        refused: WsiPipelineError | None = None
        if is_elsewhere(address) and not self._remote:
            why = "is on another machine, which is not asked for it, and no copy was found here"
            hint = "Start the viewer with --remote-slides, or name the folder of a copy with --slides."
            refused = SlideNotFoundError(address, why, hint)
        own = [] if refused else [address]
        for candidate in [*own, *self._elsewhere(address)]:
            if not candidate or not (is_remote(candidate) or stamp_of(candidate)):
                continue
            file = SlideFile(address=candidate, reader=reader, stamp=stamp_of(candidate))
            try:
                with self._pool.borrow(file) as slide:
                    if slide.info.fingerprint == entry.fingerprint:
                        return file
                why = "is not the slide that was run: it was replaced or altered"
                refused = refused or SlideFormatError(candidate, why, "Run it again, or name its folder with --slides.")
            except WsiPipelineError as error:
                refused = refused or error
        if refused is not None:
            raise refused
        hint = "Name the folder it was moved to with --slides."
        raise SlideNotFoundError(address or entry.name, "the slide is no longer there", hint)

    def _elsewhere(self, address: str) -> list[str]:
        """Addresses of the same name in the folders of slides."""
        file, mark, case = address.partition("::")
        name = PurePosixPath(file.replace("\\", "/")).name
        return [f"{path}{mark}{case}" for path in self._listing().get(name, [])]

    def _listing(self) -> dict[str, list[str]]:
        """Files and folders by name."""
        with self._lock:
            if not self._folders or (self._listed and time.monotonic() - self._listed < _LISTING_S):
                return self._names
            names: dict[str, list[str]] = {}
            left = MAX_FILES
            for root in self._folders:
                for folder, folders, files in os.walk(root):
                    for name in (*folders, *files):
                        names.setdefault(name, []).append(str(Path(folder, name)))
                    left -= len(folders) + len(files)
                    # Slides and patches lie in none of these, and they hold very many files.
                    folders[:] = [name for name in folders if not name.endswith((".zarr", ".partial"))]
                    if left < 0:
                        break
            self._names, self._listed = names, time.monotonic()
            return names


def is_elsewhere(address: str, *, windows: bool = os.name == "nt") -> bool:
    r"""Whether opening an address asks another machine: ``s3://…``, or on Windows ``\\machine\share\…``."""
    return is_remote(address) or (windows and PureWindowsPath(address).drive.startswith("\\\\"))
