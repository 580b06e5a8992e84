"""How all benchmarks measure: interleaved repetitions, medians with their spread, child processes with their memory.

A machine's speed wanders from minute to minute, so what is compared is run in turns (A B C, B C A, …), and what counts
is the ratio of what was measured side by side.
"""

import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from wsi_pipeline.files import make_folder

_SAMPLE_S = 0.1
"""Between two looks at a child's memory."""

_FAMILY_EVERY = 20
"""After its first seconds, looks at the process alone for one at it and all its children, which takes the machine from
what is measured: at every tenth of a second it slowed a run by an eighth."""

Row = dict[str, float]
"""What one repetition of one candidate gave, by name."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A finished child process."""

    seconds: float
    """From its start to its end."""
    peak_mb: float
    """Most resident memory of itself and all its children together, shared pages counted once (PSS), in MB of 10⁶."""
    peak_main_mb: float
    """Most resident memory (RSS) of the process itself."""
    output: str
    """What it printed."""


class ChildError(RuntimeError):
    """A child process failed; the end of what it said is in the message."""


def run_child(
    command: Sequence[str], *, threads: int | None = None, env: Mapping[str, str] | None = None, timeout: float = 3600
) -> Child:
    """Run a program to its end and watch the memory of it and its children.

    Args:
        command: The program and its arguments.
        threads: Of the usual libraries for arithmetic; None leaves them as they are.
        env: Further variables.
        timeout: Seconds.

    Raises:
        ChildError: where it ends with a status other than 0, or not in time.
    """
    variables = dict(os.environ) | dict(env or {})
    if threads is not None:
        variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    started = time.perf_counter()
    with subprocess.Popen(
        list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    ) as process:
        memory = _Memory(process.pid)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ChildError(f"{' '.join(command)} took more than {timeout:.0f} s") from error
        finally:
            seconds = time.perf_counter() - started
            memory.stop()
    if process.returncode:
        raise ChildError(f"{' '.join(command)} ended with status {process.returncode}: {output[-2000:]}")
    return Child(seconds=seconds, peak_mb=memory.peak / 1e6, peak_main_mb=memory.peak_main / 1e6, output=output)


class _Memory:
    """Looks at the memory of a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.peak = self.peak_main = 0.0
        self._pid, self._end = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            main = psutil.Process(self._pid)
            for look in count():
                if self._end.wait(_SAMPLE_S):
                    return
                self.peak_main = max(self.peak_main, main.memory_info().rss)
                self.peak = max(self.peak, self.peak_main)
                if (look < _FAMILY_EVERY or look % _FAMILY_EVERY == 0) and (children := main.children(recursive=True)):
                    self.peak = max(self.peak, sum(_resident(process) for process in (main, *children)))
        except psutil.Error:
            return


def _resident(process: psutil.Process) -> float:
    """Bytes; a page that n processes share counts as its nth part, where the system says so."""
    try:
        full = process.memory_full_info()
        return float(getattr(full, "pss", full.rss))
    except psutil.Error:  # it has just ended
        return 0.0


def interleaved(candidates: Mapping[str, Callable[[], Row]], repeat: int, *, warm_up: int = 0) -> dict[str, list[Row]]:
    """Run all candidates in turns; each round starts with another one.

    Args:
        candidates: What is compared: each call is one repetition.
        repeat: Rounds that count.
        warm_up: Rounds before, that do not.
    """
    names = list(candidates)
    found: dict[str, list[Row]] = {name: [] for name in names}
    for n in range(warm_up + repeat):
        shift = n % len(names)
        for name in names[shift:] + names[:shift]:
            row = candidates[name]()
            if n >= warm_up:
                found[name].append(row)
                print(f"  round {n - warm_up + 1}/{repeat}, {name}: " + words(row), flush=True)
    return found


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Median, lowest, highest of each figure."""
    names = sorted({name for row in rows for name in row})
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {
        name: {"median": statistics.median(column), "min": min(column), "max": max(column)}
        for name, column in columns.items()
    }


def ratios(above: Sequence[Row], below: Sequence[Row], figure: str) -> Row:
    """Median, lowest and highest ratio of a figure, round by round."""
    each = [a[figure] / b[figure] for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def words(row: Mapping[str, float]) -> str:
    """Figures in a line."""
    return ", ".join(f"{name} {number(value)}" for name, value in row.items())


def number(value: float) -> str:
    """As many digits as a person reads."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Processes that wanted to run, mean of the last minute: what else the machine was doing."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Commit of the source, with a + where files differ from it; empty where there is no git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def program() -> list[str]:
    """How the command line is started: ``wsi-pipeline``."""
    return [sys.executable, "-m", "wsi_pipeline.cli"]


def scratch(work: Path) -> Path:
    """A folder for results that are thrown away."""
    folder = work / "scratch"
    make_folder(folder)
    return folder
