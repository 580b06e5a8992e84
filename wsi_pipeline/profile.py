"""The spans of a run as a table for people and as a trace for viewers of traces."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_pipeline.files import write_json
from wsi_pipeline.timing import Span, note, recording

PROFILE = "profile.json"
"""Name of the trace in the run's folder; https://ui.perfetto.dev and chrome://tracing open it."""


@dataclass(kw_only=True)
class Profile:
    """What was recorded of a run, complete once its recording has ended."""

    began: float
    """Clock (`time.perf_counter`) when the run began."""
    ended: float = 0.0
    spans: list[Span] = field(default_factory=list)

    def table(self, cells: int) -> str:
        """Where the time went, as lines of text; `cells` is how many the network saw."""
        return profile_table(self.spans, began=self.began, ended=self.ended, cells=cells)

    def write(self, folder: Path) -> None:
        """Write the trace, `PROFILE`, into a folder.

        Raises:
            OutputError: where it cannot be written.
        """
        write_trace(folder / PROFILE, self.spans, began=self.began)


@contextmanager
def profiled() -> Iterator[Profile]:
    """Record a run of this process, from the start of the process on."""
    began = process_start()
    profile = Profile(began=began)
    with recording() as profile.spans:
        note("start-up", began, time.perf_counter())
        try:
            yield profile
        finally:
            profile.ended = time.perf_counter()


def process_start() -> float:
    """When this process began, by `time.perf_counter`; where the system does not say, now."""
    now = time.perf_counter()
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8")
        ticks = int(stat.rpartition(")")[2].split()[19])
        return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError, IndexError):
        return now


def main_thread() -> tuple[int, str]:
    """Process and thread that a run goes through from start to end."""
    return os.getpid(), threading.main_thread().name


def exclusive_seconds(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds by name of spans of one thread; what lies within another span counts for the inner one alone."""
    found: dict[str, float] = defaultdict(float)
    open_spans: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        while open_spans and open_spans[-1].end <= span.start:
            open_spans.pop()
        found[span.name] += span.seconds
        if open_spans:
            found[open_spans[-1].name] -= min(span.end, open_spans[-1].end) - span.start
        open_spans.append(span)
    return dict(found)


def profile_table(spans: Sequence[Span], *, began: float, ended: float, cells: int) -> str:
    """Where the time went, as lines of text.

    Args:
        spans: Those of the run.
        began: Clock when the run began (`time.perf_counter`).
        ended: Clock when it ended.
        cells: How many cells the network saw.
    """
    whole = max(ended - began, 1e-9)
    here = main_thread()
    own = exclusive_seconds(span for span in spans if (span.process, span.thread) == here)
    own["other"] = max(0.0, whole - sum(own.values()))
    lines = [f"{'where the time went':<28}{'seconds':>10}{'%':>8}"]
    lines += [_line(name, seconds, whole) for name, seconds in _sorted(own)]
    lines.append(_line("total", whole, whole))
    if beside := _beside(spans, here):
        lines.append("beside that, at the same time")
        lines += [_line(name, seconds, whole) for name, seconds in _sorted(beside)]
    lines.append(f"{cells:,} cells, {cells / whole:,.0f} cells/s")
    return "\n".join(lines)


def _beside(spans: Sequence[Span], here: tuple[int, str]) -> dict[str, float]:
    """Seconds by name in other threads and processes, summed over them; of reading, what the decoders took."""
    by_place: dict[tuple[int, str], list[Span]] = defaultdict(list)
    decode = 0.0
    for span in spans:
        decode += span.facts.get("decode_seconds", 0.0)
        if (span.process, span.thread) != here:
            by_place[span.process, span.thread].append(span)
    total: dict[str, float] = defaultdict(float)
    for part in by_place.values():
        for name, seconds in exclusive_seconds(part).items():
            total[name] += seconds
    if decode:
        total["read: of that, decoding"] = decode
    return dict(total)


def _sorted(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _line(name: str, seconds: float, whole: float) -> str:
    return f"  {name:<26}{seconds:>10.2f}{100 * seconds / whole:>8.1f}"


def write_trace(path: Path, spans: Sequence[Span], *, began: float) -> None:
    """Write the spans in the trace event format of Chrome: complete events, a row for each thread and process.

    Args:
        path: The ``.json`` file.
        spans: Those of the run.
        began: Clock when the run began: time 0 of the trace.

    Raises:
        OutputError: where it cannot be written.
    """
    write_json(path, {"traceEvents": list(_events(spans, began)), "displayTimeUnit": "ms"})


def _events(spans: Sequence[Span], began: float) -> Iterator[dict[str, Any]]:
    own, _ = main_thread()
    rows: dict[tuple[int, str], int] = {}
    for span in spans:
        place = span.process, span.thread
        if place not in rows:
            rows[place] = len(rows) + 1
            name = "run" if span.process == own else f"reader {span.process}"
            yield _name("process_name", place, rows, name)
            yield _name("thread_name", place, rows, span.thread)
        yield {
            "name": span.name,
            "cat": "wsi-pipeline",
            "ph": "X",
            "ts": round(1e6 * (span.start - began), 1),
            "dur": round(1e6 * span.seconds, 1),
            "pid": span.process,
            "tid": rows[place],
            "args": span.facts,
        }


def _name(what: str, place: tuple[int, str], rows: Mapping[tuple[int, str], int], name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "ts": 0, "pid": place[0], "tid": rows[place], "args": {"name": name}}
