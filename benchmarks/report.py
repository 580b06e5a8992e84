"""What a benchmark is told and what it says: options in common, the table, the JSON."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.measure import commit, cores, load, number, processor
from wsi_pipeline.environment import hardware, versions
from wsi_pipeline.files import write_json

DEFAULT_WORK = Path("build") / "benchmarks"
"""Slides, environments and scratch results; git does not look at ``build``."""

ENGINES = ("auto", "torch", "compile", "openvino", "openvino-int8")


def parser(doc: str | None, *, repeat: int) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=(doc or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured here")
    made.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, metavar="DIR", help="slides, environments (default: %(default)s)"
    )
    made.add_argument("--repeat", type=int, default=repeat, metavar="N", help="rounds (default: %(default)s)")
    return made


def add_device(made: argparse.ArgumentParser) -> None:
    """The option --device."""
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where networks run (default: cpu)")


class Report:
    """One benchmark's results: what it ran on, what it was asked, what it found."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.args = name, args
        self.started, self.load = datetime.now(UTC), load()

    def write(self, results: Mapping[str, Any]) -> None:
        """Write the JSON where it was asked for."""
        if self.args.json is None:
            return
        asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self.args).items()}
        whole = {
            "benchmark": self.name,
            "date": self.started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 1),
            "commit": commit(),
            "hardware": machine(),
            "load_before": self.load,
            "load_after": load(),
            "versions": _versions(),
            "command": ["python", "-m", f"benchmarks.{self.name}", *sys.argv[1:]],
            "options": asked,
            **results,
        }
        write_json(self.args.json, json.loads(json.dumps(whole, default=float)))
        print(f"\nwritten: {self.args.json}")

    def skip(self, why: str) -> None:
        """Say why nothing was measured; that is no failure."""
        print(f"{self.name}: skipped, {why}")
        self.write({"skipped": why})


def no_device(device: str) -> str | None:
    """Why this machine cannot run networks there, None where it can."""
    if device == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device that torch can use"
    return None


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {**hardware(), "processor": processor(), "cores": cores(), "memory_gb": psutil.virtual_memory().total / 1e9}


def _versions() -> dict[str, str]:
    found = versions()
    for name in ("imagecodecs", "openvino", "nncf", "torch", "torchvision"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table for people; numbers to the right."""
    cells = [[number(cell) if isinstance(cell, int | float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[n]) for line in [list(columns), *cells]) for n in range(len(columns))]
    print(f"\n{title}")
    for line in [list(columns), *cells]:
        first = line[0].ljust(widths[0])
        print("  ".join([first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]))
