"""How fast the viewer gives tiles: the first one of a slide, then many at once.

    python -m benchmarks.viewer --json viewer.json

A phantom is run with a stub for a network (or name a finished run with ``--results``), then ``wsi-pipeline view`` is
started in a process of its own, anew for each round, and asked over six connections, in the order of the page.
`opened_to_first_tile_ms` is what a user waits for after a click on a slide: its description, then a tile of the finest
level from its middle. `made` are the tiles of the finest levels when they are asked for the first time, `kept` the same
again.
"""

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from math import ceil
from pathlib import Path
from threading import local
from typing import Any

from benchmarks.bundles import stub_bundle
from benchmarks.measure import Row, interleaved, program, run_child, summarise
from benchmarks.report import Report, parser, print_table
from benchmarks.slides import phantom_slide

CONNECTIONS = 6
"""A browser opens so many to one host."""

MAX_TILES = 2000
"""More tiles than this are not asked for in one round."""


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=5)
    options.add_argument("--results", type=Path, help="a finished run (default: of a phantom, made here)")
    options.add_argument("--slide", help="name of the slide (default: the first that is done)")
    options.add_argument("--cells", type=int, default=20_000, help="of the phantom (default: %(default)s)")
    options.add_argument("--levels", type=int, default=2, help="finest levels that are asked for (default: 2)")
    args = options.parse_args(given)
    report = Report("viewer", args)
    results = args.results or _results(args.work.absolute(), args.cells)
    raw = interleaved({"viewer": lambda: once(results, args.slide, args.levels)}, args.repeat)["viewer"]
    medians = summarise(raw)
    rows = [[name, *(medians[name][word] for word in ("median", "min", "max"))] for name in raw[0]]
    print_table("viewer", ["", "median", "lowest", "highest"], rows)
    report.write({"results": results.name, "medians": medians, "raw": raw})


def _results(work: Path, cells: int) -> Path:
    slide = phantom_slide(work, cells=cells)
    out = work / "viewed" / slide.stem
    if not (out / "run.json").exists():
        run_child([*program(), "run", str(slide), "--out", str(out), "--model", str(stub_bundle(work))])
    return out


def once(results: Path, slide: str | None, levels: int) -> Row:
    """One round: a viewer from its start to its end.

    Args:
        results: A finished run.
        slide: Name of the slide; None for the first that is done.
        levels: How many of the finest levels are asked for.
    """
    with running_viewer(results) as port, closing(Client(port)) as client:
        listing, listing_s = client.get("/api/run")
        done = [row for row in json.loads(listing)["slides"] if row["status"] == "done"]
        chosen = next(row for row in done if slide in {None, row["name"]})
        base = f"/api/slides/{chosen['id']}"
        _, thumbnail_s = client.get(f"{base}/thumbnail.jpg")  # the gallery asks for it before anyone can open the slide
        described, opened_s = client.get(base)
        facts: dict[str, Any] = json.loads(described)
        _, first_s = client.get(f"{base}/{_middle(facts)}")
        paths = [f"{base}/{path}" for path in tiles_of(facts, levels)][:MAX_TILES]
        made, kept = measure(client, paths), measure(client, paths)
    return {
        "list_of_slides_ms": listing_s * 1e3,
        "thumbnail_ms": thumbnail_s * 1e3,
        "opened_to_first_tile_ms": (opened_s + first_s) * 1e3,
        **{f"made_{name}": value for name, value in made.items()},
        **{f"kept_{name}": value for name, value in kept.items()},
    }


@contextmanager
def running_viewer(results: Path) -> Iterator[int]:
    """A viewer in its own process; gives its port."""
    command = [*program(), "view", str(results), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield int(line.rstrip("/ \n").rsplit(":", 1)[1])
        finally:
            process.send_signal(signal.SIGINT)


class Client:
    """Keeps one connection for each thread."""

    def __init__(self, port: int) -> None:
        self._port, self._own = port, local()
        self._all: list[http.client.HTTPConnection] = []

    def get(self, path: str) -> tuple[bytes, float]:
        """The body and the seconds it took."""
        start = time.perf_counter()
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            self._all.append(connection)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return body, time.perf_counter() - start

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._all:
            connection.close()


def _middle(facts: dict[str, int]) -> str:
    """Path of a tile of the finest level in the middle of the slide."""
    col, row = (facts[side] // (2 * facts["tile_size"]) for side in ("width", "height"))
    return f"tiles/{facts['max_level']}/{col}_{row}.jpg"


def tiles_of(facts: dict[str, int], levels: int) -> list[str]:
    """Paths of all tiles of the finest levels, row by row."""
    paths = []
    for level in range(facts["max_level"], facts["max_level"] - levels, -1):
        px = facts["tile_size"] << (facts["max_level"] - level)
        cols, rows = (ceil(facts[side] / px) for side in ("width", "height"))
        paths += [f"tiles/{level}/{col}_{row}.jpg" for row in range(rows) for col in range(cols)]
    return paths


def measure(client: Client, paths: Sequence[str]) -> Row:
    """Ask for all of the paths; rate and latencies."""
    start = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        took = sorted(seconds for _, seconds in pool.map(client.get, paths))
    wall = time.perf_counter() - start
    return {
        "tiles": len(took),
        "tiles_per_s": len(took) / wall,
        "median_ms": took[len(took) // 2] * 1e3,
        "p95_ms": took[int(len(took) * 0.95)] * 1e3,
        "slowest_ms": took[-1] * 1e3,
    }


if __name__ == "__main__":
    main()
