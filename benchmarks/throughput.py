"""The whole ``wsi-pipeline run`` against the ceilings of the machine, on a drawn slide and on real tissue at 40x.

    python -m benchmarks.throughput --slide phantom --json throughput.json
    python -m benchmarks.throughput --slide tissue --case CASE.zip --cells 20000

Each round is a burst of decoding alone, two of the network alone (`benchmarks.ceilings`: same engine, batch, cores;
the faster counts) and a whole run in a process of its own, in turns. A ratio above 1 cannot be: the result then says
that it is not sound. The model is a ResNet-18 of random weights that sees 50 px at
0.25 µm/px, the literal 40x patch. The binding ceiling is the lower of the two.

* `ratio`: cells/s of the whole command, from the process's start to its end, to the binding ceiling of the same round:
  imports, opening the slide, finding tissue, the model, writing the map, outlines and pictures are all counted;
* `ratio_steady`: the same without starting Python: the seconds of the slide's own summary;
* `ratio_map`: the map alone: without tissue, outlines and pictures too (`read`, `network` and `write` in a run's
  words), where the summary tells them apart.

The start takes seconds whatever the slide: give it enough cells.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bundles import resnet18_bundle
from benchmarks.ceilings import grid_of, network_burst
from benchmarks.decodes import decodes_per_tile
from benchmarks.measure import Row, cores, interleaved, number, program, ratios, run_child, scratch, summarise
from benchmarks.native import decode_burst, open_native
from benchmarks.report import ENGINES, Report, add_device, no_device, parser, print_table
from benchmarks.slides import CELL_PX, parse_size, phantom_slide
from benchmarks.tissue import tissue_slide
from wsi_pipeline.models.bundle import load_bundle

MOST = 1.03
"""A ratio above this is no measurement: the rest is what two measurements of one thing differ by."""

DEFAULT_CASE = Path(__file__).parents[2] / "shared" / "data" / "idc" / "complete" / "8975.zip"


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=5)
    add_device(options)
    options.add_argument("--slide", default="phantom", help="phantom, tissue, or a file (default: %(default)s)")
    options.add_argument("--case", type=Path, default=DEFAULT_CASE, help="IDC patches of a whole case, for tissue")
    options.add_argument("--cells", type=int, default=20_000, help="about so many; 0: the whole case")
    options.add_argument("--size", help="of the phantom instead, WIDTHxHEIGHT in px")
    options.add_argument("--engine", choices=ENGINES, default="auto", help="see wsi-pipeline run")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="see wsi-pipeline run")
    options.add_argument("--model", type=Path, help="a bundle (default: ResNet-18 of random weights, 50 px)")
    options.add_argument("--burst", type=float, default=5.0, help="seconds of network at a time (default: %(default)s)")
    options.add_argument("--batch", type=int, help="fields of view in a batch (default: as a run chooses)")
    options.add_argument("--workers", type=int, help="reading processes (default: as a run chooses)")
    args = options.parse_args(given)
    report = Report("throughput", args)
    if why := no_device(args.device):
        report.skip(why)
        return
    report.write(_measure(args))


def the_slide(args: argparse.Namespace) -> Path:
    """The slide that was asked for, made where it is not there yet."""
    work = args.work.absolute()
    if args.slide == "phantom":
        return phantom_slide(work, size=parse_size(args.size) if args.size else None, cells=args.cells)
    if args.slide == "tissue":
        return tissue_slide(work, args.case, cells=args.cells or None)
    return Path(args.slide).absolute()


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    slide = the_slide(args)
    model = (args.model or resnet18_bundle(args.work)).absolute()
    bundle = load_bundle(model)
    grid = grid_of(slide, bundle)
    tiles = open_native(slide, grid)
    print(f"{slide.name}: {len(grid.cells):,} cells in {len(tiles):,} native tiles; {cores()} cores, {args.device}")
    network = network_burst(
        bundle, args.device, args.engine, precision=args.precision, seconds=args.burst, batch=args.batch
    )
    turns: dict[str, Callable[[], Row]] = {
        "decode": decode_burst(tiles, len(grid.cells), cores()),
        "network": network,
        "run": lambda: run_once(slide, model, args),
        "network again": network,
    }
    raw = interleaved(turns, args.repeat)
    tiles.close()
    binding = binding_ceilings(raw)
    found = {
        name: ratios([{"cells_per_s": row[figure]} for row in raw["run"]], binding, "cells_per_s")
        for name, figure in RATIOS.items()
        if all(figure in row for row in raw["run"])
    }
    medians = {name: summarise(rows) for name, rows in raw.items()}
    problem = unsound(found)
    _print(medians, found, problem)
    return {
        "slide": slide.name,
        "cells": len(grid.cells),
        "native_tiles": len(tiles),
        "decodes_per_tile": decodes_per_tile(slide, grid, len(tiles)),
        "ratio": found["ratio"]["median"],
        "sound": problem is None,
        "problem": problem,
        "ratios": found,
        "medians": medians,
        "raw": raw,
    }


RATIOS = {"ratio": "cells_per_s", "ratio_steady": "steady_cells_per_s", "ratio_map": "map_cells_per_s"}
"""Each ratio, and the figure of a run that it is made of."""


def binding_ceilings(raw: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The lower of the two ceilings, round by round.

    Of a round's two bursts of the network the faster is the ceiling: a ceiling is what the machine can do, and other
    work can only hide that.
    """
    rounds = zip(raw["decode"], raw["network"], raw["network again"], strict=True)
    return [
        {"cells_per_s": min(decode["cells_per_s"], max(first["cells_per_s"], second["cells_per_s"]))}
        for decode, first, second in rounds
    ]


def unsound(found: Mapping[str, Row]) -> str | None:
    """Why the ratios must not be used, None where they may be: nothing can be faster than its ceiling."""
    highest = max(ratio["median"] for ratio in found.values())
    if highest <= MOST:
        return None
    return f"a run was {highest:.2f} times as fast as its ceiling: its ratios are too high"


def run_once(slide: Path, model: Path, args: argparse.Namespace) -> Row:
    """A whole run in a process of its own."""
    out = scratch(args.work) / "throughput"
    shutil.rmtree(out, ignore_errors=True)
    command = [*program(), "run", str(slide), "--out", str(out), "--model", str(model), "--device", args.device]
    for option in ("engine", "precision"):
        value = getattr(args, option, "auto")
        command += [f"--{option}", value] if value != "auto" else []
    command += ["--batch-size", str(args.batch)] if getattr(args, "batch", None) else []
    command += ["--workers", str(args.workers)] if getattr(args, "workers", None) is not None else []
    child = run_child(command)
    summary = json.loads((out / slide.stem / "summary.json").read_text())
    seconds, cells = summary["seconds"], summary["cells"]
    row = {
        "cells_per_s": cells / child.seconds,
        "steady_cells_per_s": cells / seconds["total"],
        "mpx_per_s": cells * CELL_PX**2 / seconds["total"] / 1e6,
        "seconds": child.seconds,
        "steady_s": seconds["total"],
        "start_s": child.seconds - seconds["total"],
        "peak_mb": child.peak_mb,
    }
    # The network and the waits for pixels follow each other in one thread; reading happens beside them.
    main_thread = [seconds[stage] for stage in ("wait", "network") if stage in seconds]
    if len(main_thread) == 2 and sum(main_thread) > 0:
        row["map_cells_per_s"] = cells / sum(main_thread)
    row |= {f"stage_{name}_s": value for name, value in seconds.items() if name != "total"}
    shutil.rmtree(out, ignore_errors=True)
    return row


def _print(medians: dict[str, dict[str, dict[str, float]]], found: dict[str, Row], problem: str | None) -> None:
    rows: list[list[Any]] = [
        [
            name,
            medians[name]["cells_per_s"]["median"],
            medians[name]["mpx_per_s"]["median"],
            medians[name]["seconds"]["median"],
        ]
        for name in ("decode", "network", "network again", "run")
    ]
    run = medians["run"]
    steady = run["steady_cells_per_s"]["median"]
    rows.append(["run, start-up not counted", steady, run["mpx_per_s"]["median"], run["steady_s"]["median"]])
    print_table("throughput", ["", "cells/s", "Mpx/s", "s"], rows)
    for name, ratio in found.items():
        span = f"{number(ratio['min'])}–{number(ratio['max'])}"
        print(f"  {name} to the binding ceiling: {number(ratio['median'])} ({span})")
    if problem:
        print(f"  NOT TO BE USED: {problem}. Measure again on a quiet machine.")
    print(f"  peak memory {run['peak_mb']['median']:,.0f} MB")


if __name__ == "__main__":
    main()
