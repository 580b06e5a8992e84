"""Where the time goes: seconds by stage of a slide, and spans of a whole run where they are asked for.

Spans are noted by any thread of this process; reading processes send when they began and ended along with their
pixels. All use `time.perf_counter`, which is one clock for all processes of a machine.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took time."""

    name: str
    start: float
    """Seconds of `time.perf_counter`."""
    end: float
    process: int
    """Its number at the operating system."""
    thread: str
    """Name of the thread."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is known, such as the slide."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class _Recorder:
    """The spans of this process; off, it costs a comparison a span."""

    def __init__(self) -> None:
        self.spans: list[Span] | None = None


_recorder = _Recorder()


@contextmanager
def recording() -> Iterator[list[Span]]:
    """Note all spans within, from whatever thread. They are in the list as they end; recordings do not nest."""
    spans: list[Span] = []
    _recorder.spans = spans
    try:
        yield spans
    finally:
        _recorder.spans = None


def note(
    name: str, start: float, end: float, *, process: int | None = None, thread: str | None = None, **facts: Any
) -> None:
    """Note a span, where spans are recorded.

    Args:
        name: What was done.
        start: `time.perf_counter` when it began, of whichever process.
        end: The same when it ended.
        process: Number of the process that did it; None for this one.
        thread: Name of its thread; None for this one.
        facts: What else is known.
    """
    spans = _recorder.spans
    if spans is not None:
        process, thread = process or os.getpid(), thread or threading.current_thread().name
        spans.append(Span(name=name, start=start, end=end, process=process, thread=thread, facts=facts))


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Note the time of the block."""
    started = time.perf_counter()
    try:
        yield
    finally:
        note(name, started, time.perf_counter())


def spanned(name: str, items: Iterable[T]) -> Iterator[T]:
    """The same items; the time that each takes to come is noted."""
    source = iter(items)
    while True:
        started = time.perf_counter()
        try:
            item = next(source)
        except StopIteration:
            return
        finally:
            note(name, started, time.perf_counter())
        yield item


@dataclass(slots=True)
class Stopwatch:
    """Seconds by stage, summed over the threads that use it."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    _paused: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self) -> dict[str, float]:
        """All stages and the ``total`` since the watch was made, rounded to milliseconds."""
        stages = {**self.seconds, "total": time.perf_counter() - self.started}
        return {stage: round(seconds, 3) for stage, seconds in stages.items()}

    def pause(self) -> None:
        """Stop counting towards the total, while the slide waits for its turn."""
        self._paused = time.perf_counter()

    def go_on(self) -> None:
        """Count again."""
        if self._paused is not None:
            self.started += time.perf_counter() - self._paused
            self._paused = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            note(name, started, ended)
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + ended - started
