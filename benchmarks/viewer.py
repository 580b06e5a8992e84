"""How fast the viewer gives tiles: the first one, then all of the finest levels, as a browser asks for them.

``python -m benchmarks.viewer RESULTS`` starts ``wsi-pipeline view`` in a process of its own, asks over six connections,
as browsers do, and prints latencies and rates, first of tiles that must be made, then of those that are kept.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from threading import local

CONNECTIONS = 6
"""A browser opens so many to one host."""


@contextmanager
def running_viewer(results: str) -> Iterator[int]:
    """A viewer in its own process; gives its port."""
    command = [sys.executable, "-m", "wsi_pipeline.cli", "view", results, "--no-browser", "--port", "0"]
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

    def get(self, path: str) -> tuple[bytes, float]:
        """The body and the seconds it took."""
        start = time.perf_counter()
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return body, time.perf_counter() - start


def tiles_of(slide: dict[str, int], levels: int) -> list[str]:
    """Paths of all tiles of the finest levels, row by row."""
    paths = []
    for level in range(slide["max_level"], slide["max_level"] - levels, -1):
        px = slide["tile_size"] << (slide["max_level"] - level)
        cols, rows = (ceil(slide[side] / px) for side in ("width", "height"))
        paths += [f"tiles/{level}/{col}_{row}.jpg" for row in range(rows) for col in range(cols)]
    return paths


def measure(client: Client, paths: Sequence[str]) -> dict[str, float]:
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    parser.add_argument("--slide", help="name of the slide; default: the first that is done")
    parser.add_argument("--levels", type=int, default=2)
    args = parser.parse_args()
    with running_viewer(args.results) as port:
        client = Client(port)
        rows, listing = client.get("/api/run")
        done = [row for row in json.loads(rows)["slides"] if row["status"] == "done"]
        chosen = next(row for row in done if args.slide in {None, row["name"]})
        base = f"/api/slides/{chosen['id']}"
        _, picture = client.get(f"{base}/thumbnail.jpg")  # the gallery asks for it before anyone can open the slide
        slide, description = client.get(base)
        facts = json.loads(slide)
        middle = f"{base}/tiles/{facts['max_level']}/{facts['width'] // 508}_{facts['height'] // 508}.jpg"
        _, first = client.get(middle)
        paths = [f"{base}/{path}" for path in tiles_of(facts, args.levels)]
        found = {
            "slide": chosen["name"],
            "cores": len(os.sched_getaffinity(0)),
            "list_of_slides_ms": listing * 1e3,
            "thumbnail_ms": picture * 1e3,
            "slide_opened_ms": description * 1e3,
            "first_tile_ms": first * 1e3,
            "made": measure(client, paths),
            "kept": measure(client, paths),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
