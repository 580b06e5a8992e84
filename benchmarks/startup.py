"""How long the command line takes to answer, and a run to its first cells.

    python -m benchmarks.startup --json startup.json

`help` is ``wsi-pipeline --help``; `python` is Python starting and ending, which is part of it. `first cells` is a run
of a small phantom from the start of its process to the first cells that the network has answered; the run then ends on
its own. A network in OpenVINO's form is kept from one run to the next; `network new` is a run, by the first engine,
that finds none. `import torch` is Python with PyTorch alone, which that run and the engines of torch wait for. The
model is a ResNet-18 of random weights at 50 px, or a bundle's with ``--model``.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.bundles import resnet18_bundle
from benchmarks.first_cells import MARK
from benchmarks.measure import Row, interleaved, program, run_child, scratch, summarise
from benchmarks.report import ENGINES, Report, add_device, no_device, parser, print_table
from benchmarks.slides import phantom_slide
from wsi_pipeline.inference.engines.conversions import FOLDER_VARIABLE


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=9)
    add_device(options)
    options.add_argument("--model", default="random", help="random, or a bundle by name or folder (default: random)")
    options.add_argument("--engine", nargs="*", choices=ENGINES, default=["auto", "torch"], help="engines to try")
    options.add_argument("--cells", type=int, default=2_000, help="of the phantom (default: %(default)s)")
    args = options.parse_args(given)
    report = Report("startup", args)
    if why := no_device(args.device):
        report.skip(why)
        return
    report.write(_measure(args))


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    work = args.work.absolute()
    slide = phantom_slide(work, cells=args.cells)
    model = str(resnet18_bundle(work)) if args.model == "random" else args.model

    def run(engine: str, *, new: bool = False) -> Callable[[], Row]:
        out, kept = scratch(work) / "startup", scratch(work) / ("new" if new else "kept")
        command = [sys.executable, "-m", "benchmarks.first_cells", str(slide), str(out), model, engine, args.device]

        def once() -> Row:
            for folder in (out, kept) if new else (out,):
                shutil.rmtree(folder, ignore_errors=True)
            child = run_child(command, env={FOLDER_VARIABLE: str(kept)})
            line = next(line for line in child.output.splitlines() if MARK in line)
            return {"seconds": float(line.split(MARK)[1])}

        return once

    turns: dict[str, Callable[[], Row]] = {
        "python": lambda: {"seconds": run_child([sys.executable, "-c", "pass"]).seconds},
        "import torch": lambda: {"seconds": run_child([sys.executable, "-c", "import torch"]).seconds},
        "help": lambda: {"seconds": run_child([*program(), "--help"]).seconds},
        "run --help": lambda: {"seconds": run_child([*program(), "run", "--help"]).seconds},
    }
    turns |= {f"first cells, engine {engine}": run(engine) for engine in args.engine}
    turns |= {f"first cells, engine {engine}, network new": run(engine, new=True) for engine in args.engine[:1]}
    raw = interleaved(turns, args.repeat, warm_up=int(args.repeat > 1))
    medians = {name: summarise(rows) for name, rows in raw.items()}
    rows = [[name, *(found["seconds"][word] for word in ("median", "min", "max"))] for name, found in medians.items()]
    print_table("start-up, seconds", ["", "median", "lowest", "highest"], rows)
    return {"medians": medians, "raw": raw}


if __name__ == "__main__":
    main()
