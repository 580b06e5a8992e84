"""How fast the viewer gives tiles: the first one of a slide, then many at once.

    python -m benchmarks.tiles --json tiles.json

A phantom is run with a stub for a network, then ``wsi-pipeline view`` is started anew for each round and asked over
six connections, as a browser does (`benchmarks.viewer`). `first tile` is one of the finest level in the middle of the
slide, right after the slide was opened; `made` are the tiles of the finest levels when they are asked for the first
time, `kept` the same again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bundles import stub_bundle
from benchmarks.measure import Row, interleaved, program, run_child, summarise
from benchmarks.report import Report, parser, print_table
from benchmarks.slides import phantom_slide
from benchmarks.viewer import Client, measure, running_viewer, tiles_of

MAX_TILES = 2000
"""More tiles than this are not asked for in one round."""


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=5)
    options.add_argument("--results", type=Path, help="a finished run (default: of a phantom, made here)")
    options.add_argument("--cells", type=int, default=20_000, help="of the phantom (default: %(default)s)")
    options.add_argument("--levels", type=int, default=2, help="finest levels that are asked for (default: 2)")
    args = options.parse_args(given)
    report = Report("tiles", args)
    results = args.results or _results(args.work.absolute(), args.cells)
    raw = interleaved({"viewer": lambda: once(results, args.levels)}, args.repeat)
    medians = summarise(raw["viewer"])
    rows = [[name, *(medians[name][word] for word in ("median", "min", "max"))] for name in medians]
    print_table("viewer", ["", "median", "lowest", "highest"], rows)
    report.write({"results": results.name, "medians": medians, "raw": raw})


def _results(work: Path, cells: int) -> Path:
    slide = phantom_slide(work, cells=cells)
    out = work / "viewed" / slide.stem
    if not (out / "run.json").exists():
        run_child([*program(), "run", str(slide), "--out", str(out), "--model", str(stub_bundle(work))])
    return out


def once(results: Path, levels: int) -> Row:
    """One round: a viewer from its start to its end."""
    with running_viewer(str(results)) as port:
        client = Client(port)
        listing, listing_s = client.get("/api/run")
        chosen = next(row for row in json.loads(listing)["slides"] if row["status"] == "done")
        base = f"/api/slides/{chosen['id']}"
        described, opened_s = client.get(base)
        facts: dict[str, Any] = json.loads(described)
        tile = 2 * facts["tile_size"]
        middle = f"{base}/tiles/{facts['max_level']}/{facts['width'] // tile}_{facts['height'] // tile}.jpg"
        _, first_s = client.get(middle)
        paths = [f"{base}/{path}" for path in tiles_of(facts, levels)][:MAX_TILES]
        made, kept = measure(client, paths), measure(client, paths)
    return {
        "list_of_slides_ms": listing_s * 1e3,
        "slide_opened_ms": opened_s * 1e3,
        "first_tile_ms": first_s * 1e3,
        **{f"made_{name}": value for name, value in made.items()},
        **{f"kept_{name}": value for name, value in kept.items()},
    }


if __name__ == "__main__":
    main()
