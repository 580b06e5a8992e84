"""Open slides for many threads: a slide is read by one thread at a time, and only so many are open at once."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition

from wsi_pipeline.config import Reader
from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.slides import Slide, open_slide
from wsi_pipeline.slides.files import is_remote
from wsi_pipeline.viewer.problems import RequestError

_PATIENCE_S = 30.0
"""A request waits so long for its turn at a slide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideFile:
    """A slide's file as it was found."""

    address: str
    reader: Reader
    stamp: str
    """Changes when the file does."""


def stamp_of(address: str) -> str:
    """What tells that a local file has been replaced; empty for one that is not there, or is remote."""
    if is_remote(address):
        return ""
    path = Path(address)
    if not path.exists():
        path = Path(address.rpartition("::")[0] or address)
    try:
        state = path.stat()
    except (OSError, ValueError):  # ValueError: what can be no path
        return ""
    return f"{state.st_mtime_ns}-{state.st_size}"


class SlidePool:
    """Slides that are open.

    Args:
        limit: How many in all.
        per_slide: How many of one slide, which is how many threads read it at once.
    """

    def __init__(self, limit: int = 8, per_slide: int = 4) -> None:
        self._limit, self._per_slide = limit, min(limit, per_slide)
        self._turn = Condition()
        self._idle: OrderedDict[int, tuple[SlideFile, Slide]] = OrderedDict()
        self._count: Counter[SlideFile] = Counter()
        """Open ones and those being opened."""
        self._closed = False

    @property
    def open(self) -> int:
        """How many are open."""
        with self._turn:
            return self._count.total()

    @contextmanager
    def borrow(self, file: SlideFile) -> Iterator[Slide]:
        """An open slide for this thread alone.

        Raises:
            WsiPipelineError: where it cannot be opened.
            RequestError: 503 where there is no turn in reasonable time.
        """
        slide = self._take(file)
        try:
            if slide is None:
                slide = open_slide(file.address, reader=file.reader)
            yield slide
        except SlideReadError:
            self._put_back(file, slide)  # it stays usable
            raise
        except BaseException:
            self._drop(file, slide)
            raise
        self._put_back(file, slide)

    def close(self) -> None:
        """Close all that nobody is reading; the others are closed when they are given back."""
        with self._turn:
            self._closed = True
            slides = [slide for _, slide in self._idle.values()]
            self._idle.clear()
            self._count.clear()
        for slide in slides:
            slide.close()

    def _take(self, file: SlideFile) -> Slide | None:
        """An idle slide of the file, or None with a place kept for one that the caller opens."""
        superfluous: Slide | None = None
        with self._turn:
            if not self._turn.wait_for(lambda: self._has_turn(file), _PATIENCE_S):
                raise RequestError(
                    503, file.address, "is being read by too many at once", "Try again.", {"Retry-After": "2"}
                )
            key = next((key for key in reversed(self._idle) if self._idle[key][0] == file), None)
            if key is not None:
                return self._idle.pop(key)[1]
            if self._count.total() >= self._limit:
                _, (other, superfluous) = self._idle.popitem(last=False)
                self._forget(other)
            self._count[file] += 1
        if superfluous is not None:
            superfluous.close()
        return None

    def _has_turn(self, file: SlideFile) -> bool:
        if any(other == file for other, _ in self._idle.values()):
            return True
        room = self._count.total() < self._limit or bool(self._idle)
        return room and self._count[file] < self._per_slide

    def _put_back(self, file: SlideFile, slide: Slide | None) -> None:
        if slide is None or self._closed:
            self._drop(file, slide)
            return
        with self._turn:
            self._idle[id(slide)] = file, slide
            self._turn.notify_all()

    def _drop(self, file: SlideFile, slide: Slide | None) -> None:
        if slide is not None:
            slide.close()
        with self._turn:
            self._forget(file)
            self._turn.notify_all()

    def _forget(self, file: SlideFile) -> None:
        self._count[file] -= 1
        if self._count[file] <= 0:
            del self._count[file]
