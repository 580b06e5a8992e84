"""What this process may use of the machine: cores, threads and memory, as scheduler and container allow; a GPU."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_M_ARENA_MAX, _ARENAS = -8, 2
"""Number of the option in glibc's malloc.h, and its value."""

_FULL = "out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "bad_alloc"
"""What errors of full memory say, in small letters: CUDA's, MPS's, torch's on a CPU, cuBLAS's, C++'s."""

_UNLIMITED = 1 << 60
"""Limits from here on stand for none."""


def available_cores() -> Sequence[int]:
    """Cores that this process may use: those it may run on, but no more than the container's share of time."""
    cores = _allowed_cores()
    return cores[: max(1, math.floor(cpu_quota() + 0.5))] if cpu_quota() < len(cores) else cores


def _allowed_cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def compute_threads() -> int:
    """Threads to compute with: ``OMP_NUM_THREADS``, or one for each processor core that this process may use.

    Two hardware threads of one core count once, where the system tells them (Linux): they share what multiplies.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    siblings = Path("/sys/devices/system/cpu")
    cores = _allowed_cores()
    physical = {_word(siblings / f"cpu{core}/topology/thread_siblings_list") or str(core) for core in cores}
    return min(len(physical), len(available_cores()))


def share_freed_memory() -> None:
    """Have all threads take memory from two pools (glibc; does nothing elsewhere), before the first thread starts.

    Else each thread may have one of its own, which keeps what was freed there: a third of a long run's memory.
    ``MALLOC_ARENA_MAX`` overrides it.
    """
    if sys.platform.startswith("linux") and "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def may_have_gpu() -> bool:
    """Whether there is a driver of a GPU that torch could use; whether it can, only torch knows, after its import."""
    if sys.platform == "darwin" or any(Path(device).exists() for device in ("/dev/kfd", "/dev/dxg")):  # Apple, AMD, WSL
        return True
    libraries = ("nvcuda.dll", "amdhip64.dll", "amdhip64_6.dll") if sys.platform == "win32" else ("libcuda.so.1",)
    for library in libraries:
        with suppress(OSError):
            ctypes.CDLL(library)
            return True
    return False


def cpu_quota(root: Path = _ROOT, own: Path = _OWN) -> float:
    """Cores' worth of time that the container may use (control groups, either version); infinite where none is set.

    Args:
        root: Where control groups are mounted.
        own: The file that names this process's groups.
    """
    quotas = [math.inf]
    for folder in _groups(root, own, "cpu"):
        quota, period = _words(folder / "cpu.max") or (_word(folder / "cpu.cfs_quota_us"), "")
        period = period or _word(folder / "cpu.cfs_period_us") or "100000"
        if quota.isdigit() and int(quota) and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas)


def available_memory(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Bytes of memory that this process may use: the machine's, or the container's limit; arguments as above."""
    limits = [_physical_memory()]
    for folder in _groups(root, own, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = _word(folder / name)
            if limit.isdigit() and 0 < int(limit) < _UNLIMITED:
                limits.append(int(limit))
    return min(limits)


def memory_is_full(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, had no memory left: torch has a type for some of them."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(sign in str(error).lower() for sign in _FULL)


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 << 30


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups and of all above them; a limit on any of these holds."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        # In a container the path may name folders of the host, which are not there: the root's limit is its own then.
        place = base / path.lstrip("/")
        for folder in (place, *place.parents):
            yield folder
            if folder == base:
                break


def _word(file: Path) -> str:
    return (_words(file) or ("", ""))[0]


def _words(file: Path) -> tuple[str, str] | None:
    """The first two words of a file, None where there is no such file."""
    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    first, second, *_ = *words, "", ""
    return first, second
