"""Time and memory from small slides to the largest, and with more and more reading processes.

    python -m benchmarks.scaling --json scaling.json

The slides are made of a few tiles (`benchmarks.slides.repeated_slide`), 30 % tissue, so that only their size differs.
The network is a stub that does no more than touch its input: this is about reading, stitching and memory, not about a
model's speed. Each run is the whole ``wsi-pipeline run`` in a process of its own; `peak_mb` is the largest memory of it
and its reading processes together (PSS: shared pages count once), `peak_main_mb` that of the main process. Tissue and
grid, `plan_s`, are timed by themselves in the benchmark's own process: a run finds them while it still starts.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bundles import stub_bundle
from benchmarks.measure import Row, cores, interleaved, program, run_child, scratch, summarise
from benchmarks.report import Report, add_device, no_device, parser, print_table
from benchmarks.slides import parse_size, repeated_slide
from wsi_pipeline.config import load_settings
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.slides import open_slide

SIZES = ("4000", "10000", "20000", "50000", "100000")


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=3)
    add_device(options)
    options.add_argument("--sizes", nargs="*", default=list(SIZES), help="sides in px (default: 4,000 to 100,000)")
    options.add_argument("--workers", type=int, nargs="*", help="reading processes (default: 0, 1, 2, 4 … the cores)")
    options.add_argument("--workers-size", default="20000", help="side of the slide for these (default: %(default)s)")
    args = options.parse_args(given)
    report = Report("scaling", args)
    if why := no_device(args.device):
        report.skip(why)
        return
    report.write(_measure(args))


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    work = args.work.absolute()
    model = stub_bundle(work)

    def run(slide: Path, workers: int | None) -> Callable[[], Row]:
        return lambda: run_stub(slide, model, work, workers=workers, device=args.device)

    sizes = {f"{side} px": run(repeated_slide(work, parse_size(side)), None) for side in args.sizes}
    by_size = interleaved(sizes, args.repeat) if sizes else {}
    _print("by size of the slide's side, workers as a run chooses", by_size)
    counts = args.workers if args.workers is not None else worker_counts()
    slide = repeated_slide(work, parse_size(args.workers_size))
    by_workers = interleaved({f"{n} workers": run(slide, n) for n in counts}, args.repeat) if counts else {}
    _print(f"by reading processes, {args.workers_size} px", by_workers)
    return {
        "network": "stub: touches its input, computes nothing",
        "by_size": {"medians": {name: summarise(rows) for name, rows in by_size.items()}, "raw": by_size},
        "by_workers": {"medians": {name: summarise(rows) for name, rows in by_workers.items()}, "raw": by_workers},
    }


def worker_counts() -> list[int]:
    """0, 1, 2, 4 … and the cores."""
    counts, count = [0], 1
    while count < cores():
        counts.append(count)
        count *= 2
    return [*counts, cores()]


def run_stub(slide: Path, model: Path, work: Path, *, workers: int | None, device: str) -> Row:
    """A whole run with the stub."""
    out = scratch(work) / "scaling"
    shutil.rmtree(out, ignore_errors=True)
    command = [*program(), "run", str(slide), "--out", str(out), "--model", str(model.absolute()), "--device", device]
    command += ["--workers", str(workers)] if workers is not None else []
    child = run_child(command)
    summary = json.loads((out / slide.stem / "summary.json").read_text())
    shutil.rmtree(out, ignore_errors=True)
    seconds = summary["seconds"]
    return {
        "cells": summary["cells"],
        "cells_per_s": summary["cells"] / seconds["total"],
        "seconds": child.seconds,
        "steady_s": seconds["total"],
        "plan_s": _plan_alone(slide, model),
        "peak_mb": child.peak_mb,
        "peak_main_mb": child.peak_main_mb,
    }


def _plan_alone(slide: Path, model: Path) -> float:
    """Seconds to find the tissue and lay the cells."""
    view, settings = load_bundle(model).view, load_settings(None, {})
    with open_slide(slide) as opened:
        started = time.perf_counter()
        plan_slide(opened, view, settings)
        return time.perf_counter() - started


def _print(title: str, raw: dict[str, list[Row]]) -> None:
    if not raw:
        return
    names = ("cells", "seconds", "steady_s", "plan_s", "cells_per_s", "peak_mb", "peak_main_mb")
    rows = [[name, *(summarise(found)[figure]["median"] for figure in names)] for name, found in raw.items()]
    heads = ["", "cells", "s", "s without start", "s tissue+grid", "cells/s", "peak MB", "main MB"]
    print_table(title, heads, rows)


if __name__ == "__main__":
    main()
