"""Limits of containers, from made-up control groups."""

import math
import os
import platform
from types import SimpleNamespace

import pytest

from wsi_pipeline import machine
from wsi_pipeline.machine import (
    available_cores,
    available_memory,
    compute_threads,
    cpu_quota,
    may_have_gpu,
    share_freed_memory,
)


@pytest.fixture
def group(tmp_path):
    """Writes files of control groups; gives the arguments that name them."""
    own = tmp_path / "own"

    def make(lines: str, **files: str):
        own.write_text(lines)
        for name, text in files.items():
            file = tmp_path / "root" / name.replace("__", "/").replace("_DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return {"root": tmp_path / "root", "own": own}

    return make


def test_the_tightest_limit_of_all_groups_above_holds(group):
    where = group("0::/a/b\n", a__b__cpu_DOT_max="max 100000\n", a__cpu_DOT_max="150000 100000\n")
    assert cpu_quota(**where) == 1.5
    where = group("0::/a/b\n", a__memory_DOT_max="1000000\n", a__b__memory_DOT_max="2000000\n")
    assert available_memory(**where) == 1_000_000


def test_in_a_container_the_root_is_its_own(group):
    where = group("0::/docker/of/the/host\n", cpu_DOT_max="200000 100000\n", memory_DOT_max="max\n")
    assert cpu_quota(**where) == 2
    assert available_memory(**where) > 1 << 28


def test_the_older_version(group):
    where = group(
        "5:memory:/x\n4:cpu,cpuacct:/x\n",
        cpu__x__cpu_DOT_cfs_quota_us="50000\n",
        cpu__x__cpu_DOT_cfs_period_us="100000\n",
        memory__x__memory_DOT_limit_in_bytes="123456789\n",
    )
    assert cpu_quota(**where) == 0.5
    assert available_memory(**where) == 123456789
    unlimited = group("4:cpu:/y\n5:memory:/y\n", cpu__y__cpu_DOT_cfs_quota_us="-1\n")
    assert cpu_quota(**unlimited) == math.inf


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "none") == math.inf
    assert available_memory(tmp_path, tmp_path / "none") > 1 << 28


@pytest.mark.parametrize(("quota", "cores"), [(0.3, 1), (1.5, 2), (2.0, 2), (math.inf, None)])
def test_cores_are_those_of_the_process_within_its_quota(monkeypatch, quota, cores):
    monkeypatch.setattr("wsi_pipeline.machine.cpu_quota", lambda: quota)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert len(available_cores()) == min(allowed, cores or allowed)


def test_threads_are_as_many_as_processor_cores_or_as_asked(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= compute_threads() <= len(available_cores())
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    monkeypatch.setattr(machine, "_allowed_cores", lambda: list(siblings))
    monkeypatch.setattr(machine, "_word", lambda file: siblings[int(file.parts[-3].removeprefix("cpu"))])
    for quota, expected in ((math.inf, 2), (3.0, 2), (1.0, 1)):
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert compute_threads() == expected
    monkeypatch.setattr(machine, "_word", lambda file: "")  # a system that does not say
    monkeypatch.setattr(machine, "cpu_quota", lambda: math.inf)
    assert compute_threads() == 4
    for asked, expected in (("3", 3), ("0", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert compute_threads() == expected


def test_a_gpu_may_be_there_where_a_driver_is(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(machine.Path, "exists", lambda path: False)
    for system in ("linux", "win32"):
        monkeypatch.setattr(machine.sys, "platform", system)
        monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: name)
        assert may_have_gpu()
        monkeypatch.setattr(machine.ctypes, "CDLL", missing)
        assert not may_have_gpu()
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert may_have_gpu()
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.Path, "exists", lambda path: str(path) == "/dev/kfd")
    assert may_have_gpu()


@pytest.mark.parametrize(
    ("system", "variable", "expected"), [("linux", None, [(-8, 2)]), ("linux", "4", []), ("win32", None, [])]
)
def test_threads_share_two_pools_of_memory_unless_told_otherwise(monkeypatch, system, variable, expected):
    calls = []
    library = SimpleNamespace(mallopt=lambda *given: calls.append(given))
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if variable:
        monkeypatch.setenv("MALLOC_ARENA_MAX", variable)
    share_freed_memory()
    assert calls == expected
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())  # a C library without it
    share_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_the_c_library_knows_the_option():
    assert machine.ctypes.CDLL(None).mallopt(machine._M_ARENA_MAX, 0) == 1  # 0: as it is by itself
