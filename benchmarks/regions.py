"""Outlines and GeoJSON for a map of a million cells: seconds and memory.

    python -m benchmarks.regions --json regions.json

The maps are smooth random fields, so that regions are of all sizes, some with holes: `few` is blurred widely, `many`
little, and `speckled` keeps every region, however small, tens of thousands of them. Each repetition is a process of its
own; `peak MB` is all of it, with Python and the map. With ``--all-cells``, ``cells.geojson.gz`` (``run --cells``: every
cell a tile) is written as well.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from benchmarks.measure import Row, interleaved, run_child, scratch, summarise
from benchmarks.report import Report, parser, print_table

MAPS = {"few": (12.0, 10_000), "many": (2.0, 10_000), "speckled": (1.0, 0)}
"""Sigma of each map's blur in cells, and the smallest region that is kept, µm²."""


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=5)
    options.add_argument("--cells", type=int, default=1_000_000, help="of the map (default: %(default)s)")
    options.add_argument("--smooth-um", type=float, default=0.0, help="smoothing of outlines (default: none)")
    options.add_argument("--all-cells", action="store_true", help="write every cell as well")
    args = options.parse_args(given)
    report = Report("regions", args)
    report.write(_measure(args))


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    folder = scratch(args.work.absolute())

    def run(kind: str) -> Callable[[], Row]:
        file, (blur, least) = folder / f"{kind}.npy", MAPS[kind]
        np.save(file, make_map(args.cells, blur))
        command = [sys.executable, "-m", "benchmarks.regions_once", str(file), str(folder), str(least)]
        command += [str(args.smooth_um), "yes" if args.all_cells else "no"]
        return lambda: dict(json.loads(run_child(command).output.splitlines()[-1]))

    raw = interleaved({kind: run(kind) for kind in MAPS}, args.repeat)
    medians = {kind: summarise(rows) for kind, rows in raw.items()}
    figures = {"regions": "regions", "outlines_s": "outlines s", "geojson_s": "GeoJSON s", "both_s": "both s"}
    figures |= {"peak_mb": "peak MB"} | ({"cells_s": "all cells s"} if args.all_cells else {})
    rows = [[kind, *(found[figure]["median"] for figure in figures)] for kind, found in medians.items()]
    print_table(f"{args.cells:,} cells", ["map", *figures.values()], rows)
    return {"medians": medians, "raw": raw}


def make_map(cells: int, blur: float) -> NDArray[np.float32]:
    """A smooth random map, square, of about so many cells, evenly spread over 0 to 1."""
    side = round(np.sqrt(cells))
    field = gaussian_filter(np.random.default_rng(0).standard_normal((side, side)), blur, mode="wrap")
    probability: NDArray[np.float32] = norm.cdf(field / field.std()).astype(np.float32)
    return probability


if __name__ == "__main__":
    main()
