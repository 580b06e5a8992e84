"""The results in a folder: runs and their slides, each under an id. Nothing is reached but through this table."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.manifest import RUN_FILE, SUMMARY_FILE
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.records import fault_of, read_record

log = logging.getLogger(__name__)

HEATMAP, OVERLAY, ANNOTATIONS = "heatmap.zarr", "overlay.png", "annotations.geojson"
"""What lies in a slide's folder beside its summary, as far as the viewer reads or writes it."""

_FRESH_S = 1.0
"""For so long the folders are not looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunEntry:
    """A run: a folder with a record, or with finished slides."""

    id: str
    name: str
    folder: Path
    record: Mapping[str, Any]
    """``run.json``, empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideEntry:
    """A slide's result, or how it failed."""

    id: str
    run: RunEntry
    name: str
    root: Path
    """Folder of all results; nothing outside of it is opened for this entry but the slide itself."""
    folder: Path
    status: Literal["done", "failed"]
    summary: Mapping[str, Any]
    """``summary.json``, empty for a failed slide."""
    error: dict[str, str] | None = None
    stamp: str = ""
    """Changes when the result does."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) that the slide must have; empty where it is not known."""
        return str(_mapping(self.summary.get("identity")).get("slide", ""))

    def file(self, name: str) -> Path:
        """A file or folder of the result by its name, which is one of this package's.

        Raises:
            RequestError: 404 where it is not there, or leads out of the results.
        """
        path = self.folder / name
        if not path.exists() or not is_inside(path, self.root):
            raise RequestError(404, self.name, f"has no {name}", "Run the slide again.")
        return path

    def require_done(self) -> None:
        """Refuse what only a finished slide has.

        Raises:
            RequestError: 409 for a slide that failed.
        """
        if self.status == "failed":
            why = f"failed in the run: {(self.error or {}).get('why', 'no reason is on record')}"
            raise RequestError(409, self.name, why, (self.error or {}).get("hint", ""))


class Results:
    """The runs and slides in a folder, looked up anew as the folder changes.

    Args:
        folder: The folder of one run, of several runs, or of one slide's result.

    Raises:
        ConfigError: where it is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(folder, "is no folder of results", "Name the folder that was given to `run --out`.")
        self.root = folder.resolve()
        self.title = self.root.name
        self._lock = Lock()
        self._json: dict[Path, tuple[str, Mapping[str, Any]]] = {}
        self._looked = 0.0
        self._runs: dict[str, RunEntry] = {}
        self._slides: dict[str, SlideEntry] = {}

    def runs(self) -> list[RunEntry]:
        """All runs, by name."""
        self._refresh()
        return list(self._runs.values())

    def slides(self) -> list[SlideEntry]:
        """All slides, by run and name."""
        self._refresh()
        return list(self._slides.values())

    def slide(self, slide_id: str) -> SlideEntry:
        """The slide of an id.

        Raises:
            RequestError: 404 where there is none.
        """
        self._refresh()
        entry = self._slides.get(slide_id)
        if entry is None:
            raise RequestError(404, "slide", "is not in these results", "Go back to the list of slides.")
        return entry

    def look_again(self) -> None:
        """Look at the folders with the next question, however fresh the last look is."""
        self._looked = 0.0

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked < _FRESH_S and self._looked:
                return
            runs = {run.id: run for run in self._find_runs()}
            slides = {slide.id: slide for run in runs.values() for slide in self._find_slides(run)}
            self._runs, self._slides, self._looked = runs, slides, time.monotonic()

    def _find_runs(self) -> Iterator[RunEntry]:
        for folder in (self.root, *self._folders(self.root)):
            single = folder == self.root and _has(folder, SUMMARY_FILE)
            if not single and _has(folder, SUMMARY_FILE):
                continue  # a slide
            if single or _has(folder, RUN_FILE) or any(self._results_in(folder)):
                name = folder.name
                _, record = self._read(folder / RUN_FILE)
                yield RunEntry(id=self._id(folder), name=name, folder=folder, record=record)

    def _find_slides(self, run: RunEntry) -> Iterator[SlideEntry]:
        recorded = {str(result.get("folder")): result for result in _results(run.record)}
        single = run.folder == self.root and _has(run.folder, SUMMARY_FILE)
        found = {folder.name: folder for folder in ([run.folder] if single else self._results_in(run.folder))}
        for name in sorted(recorded.keys() | found.keys(), key=lambda name: (name.casefold(), name)):
            yield self._entry(run, name, recorded.get(name), found.get(name))

    def _entry(self, run: RunEntry, name: str, result: Mapping[str, Any] | None, folder: Path | None) -> SlideEntry:
        stamp, summary = self._read(folder / SUMMARY_FILE) if folder else ("", {})
        error = _error(result)
        fault = fault_of(summary)
        if error is None and fault is not None:
            where = str((result or {}).get("path") or name)
            hint = "Run the slide again into the same folder."
            error = {"where": where, "why": fault, "hint": hint}
        return SlideEntry(
            id=self._id(run.folder, name),
            run=run,
            name=str(summary.get("slide") or (result or {}).get("slide") or name),
            root=self.root,
            # The folder of a failed slide is never opened.
            folder=folder or run.folder,
            status="failed" if error else "done",
            summary={} if error else summary,
            error=error,
            stamp=stamp,
        )

    def _folders(self, folder: Path) -> list[Path]:
        """The folders in one that do not lead out of the results, by name."""
        try:
            found = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
        except OSError:
            return []
        outside = [path for path in found if path.is_symlink() and not is_inside(path, self.root)]
        for path in outside:
            log.debug("%s leads out of the results and is passed over", path)
        return [path for path in found if path not in outside]

    def _results_in(self, folder: Path) -> list[Path]:
        return [path for path in self._folders(folder) if _has(path, SUMMARY_FILE)]

    def _read(self, file: Path) -> tuple[str, Mapping[str, Any]]:
        """The stamp and the content of a JSON file; empty where it cannot be read or leads out of the results."""
        try:
            state = file.stat()
            if not is_inside(file, self.root):
                return "", {}
            stamp = f"{state.st_mtime_ns}-{state.st_size}"
            known = self._json.get(file)
            if known is None or known[0] != stamp:
                known = stamp, read_record(file)
                self._json[file] = known
        except (OSError, ValueError, RecursionError):
            return "", {}
        return known

    def _id(self, run: Path, slide: str = "") -> str:
        """Opaque, and the same as long as the results stay where they are in the folder."""
        place = f"{run.relative_to(self.root).as_posix()}\0{slide}"
        return sha256(place.encode(errors="surrogatepass")).hexdigest()[:16]


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies in `root`, which is resolved."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False


def _has(folder: Path, name: str) -> bool:
    """Whether a file is there, and can be seen by us."""
    try:
        return (folder / name).is_file()
    except OSError:  # another user's folder
        return False


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _results(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    results = record.get("results")
    for result in results if isinstance(results, list) else ():
        if isinstance(result, dict) and isinstance(result.get("folder"), str):
            yield result


def _error(result: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Why a slide failed, without the traceback; None where it did not."""
    if result is None or result.get("status") != "failed":
        return None
    given = _mapping(result.get("error"))
    return {key: str(given.get(key, "")) for key in ("type", "where", "why", "hint")}
