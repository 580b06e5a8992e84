"""This machine's two ceilings: decoding alone, and the network alone, for each engine.

    python -m benchmarks.ceilings --json ceilings.json

* `decode`: every native JPEG tile that a run of the phantom needs, read and decoded once with imagecodecs, by as many
  threads as cores. In cells/s, one cell being 50 x 50 px of tissue.
* `network ENGINE`: batches of uint8 fields of view that lie on the device already, normalisation included, through a
  ResNet-18 at 50 px. The engine is made and warm before the clock starts.

Bursts of all ceilings take turns. With ``--model A B`` the networks of several bundles do, too:

    python -m benchmarks.ceilings --model idc-resnet18 idc-efficientnet --engine openvino
"""

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import resnet18_bundle
from benchmarks.measure import Row, cores, interleaved, summarise
from benchmarks.native import decode_burst, open_native
from benchmarks.report import ENGINES, Report, add_device, no_device, parser, print_table
from benchmarks.slides import CELL_PX, phantom_slide
from wsi_pipeline.config import Settings
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.grid import Grid
from wsi_pipeline.inference.devices import kind_of
from wsi_pipeline.inference.network import DEFAULT_BATCH, BatchNetwork
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.slides import open_slide

_RESIDENT = 4
"""Different batches that take turns, so that no cache holds the one that comes next."""

_WAIT_EVERY = 16
"""Batches between two waits for the device."""


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=7)
    add_device(options)
    options.add_argument("--engine", nargs="*", choices=ENGINES, help="engines (default: all that run here)")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="see wsi-pipeline run")
    options.add_argument(
        "--model", nargs="+", help="bundles, the first decides the cells (default: ResNet-18 of random weights, 50 px)"
    )
    options.add_argument("--cells", type=int, default=20_000, help="of the phantom to decode (default: %(default)s)")
    options.add_argument("--slide", type=Path, help="another slide to decode, a JPEG TIFF")
    options.add_argument("--batch", type=int, help="fields of view in a batch (default: as in a run)")
    options.add_argument("--burst", type=float, default=4.0, help="seconds of network at a time (default: %(default)s)")
    args = options.parse_args(given)
    report = Report("ceilings", args)
    if why := no_device(args.device):
        report.skip(why)
        return
    report.write(_measure(args))


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    bundles = [load_bundle(path) for path in args.model or [resnet18_bundle(args.work)]]
    slide = args.slide or phantom_slide(args.work, cells=args.cells)
    grid = grid_of(slide, bundles[0])
    tiles = open_native(slide, grid)
    print(f"{slide.name}: {len(grid.cells):,} cells in {len(tiles):,} native tiles; {cores()} cores")
    bursts: dict[str, Callable[[], Row]] = {"decode": decode_burst(tiles, len(grid.cells), cores())}
    left_out: dict[str, str] = {}
    for bundle, engine in product(bundles, args.engine or ENGINES[1:]):
        name = f"network {engine}" if len(bundles) == 1 else f"{bundle.card.name} {engine}"
        try:
            burst = network_burst(
                bundle, args.device, engine, precision=args.precision, seconds=args.burst, batch=args.batch
            )
        except WsiPipelineError as error:
            left_out[name] = str(error)
            print(f"  {name} is left out: {error}")
        else:
            bursts[name] = burst
    raw = interleaved(bursts, args.repeat)
    tiles.close()
    medians = {name: summarise(rows) for name, rows in raw.items()}
    rows = [
        [name, found["cells_per_s"]["median"], found["cells_per_s"]["min"], found["cells_per_s"]["max"]]
        for name, found in medians.items()
    ]
    print_table(f"ceilings, {args.device}", ["ceiling", "cells/s", "lowest", "highest"], rows)
    return {
        "slide": slide.name,
        "cells": len(grid.cells),
        "native_tiles": len(tiles),
        "medians": medians,
        "left_out": left_out,
        "raw": raw,
    }


def grid_of(slide: Path, bundle: ModelBundle, settings: Settings | None = None) -> Grid:
    """The cells that a run visits."""
    with open_slide(slide) as opened:
        return plan_slide(opened, bundle.view, settings or Settings()).grid


def network_burst(
    bundle: ModelBundle, device: str, engine: Any, *, precision: Any, seconds: float, batch: int | None = None
) -> Callable[[], Row]:
    """One repetition: resident batches for some seconds. The engine is made and run once here.

    Raises:
        WsiPipelineError: where the engine does not run here.
    """
    batch = batch or DEFAULT_BATCH[kind_of(device)]
    network = BatchNetwork(bundle, device, batch_size=batch, engine=engine, precision=precision)
    side = bundle.card.patch_size_px
    made = np.random.default_rng(0)
    shape = (batch, side, side, 3)
    resident = [network.arrays.take(made.integers(0, 256, shape, np.uint8)) for _ in range(_RESIDENT)]
    for fields in resident:
        network.fetch(network.submit(fields))

    def once() -> Row:
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            answers = network.submit(resident[done // batch % _RESIDENT])
            done += batch
            if done // batch % _WAIT_EVERY == 0:
                network.fetch(
                    answers
                )  # a GPU would be asked for more and more, and the clock stopped before it is done
        network.fetch(answers)
        taken = time.perf_counter() - started
        cells = done / taken
        return {"cells_per_s": cells, "mpx_per_s": cells * CELL_PX**2 / 1e6, "seconds": taken}

    return once


if __name__ == "__main__":
    main()
