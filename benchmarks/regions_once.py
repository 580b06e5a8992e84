"""Outlines and GeoJSON of one map, measured: ``python -m benchmarks.regions_once MAP FOLDER MIN_UM2 SMOOTH_UM CELLS``.

It imports no more than that takes, so that the memory is that of the work.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.geojson import write_cells, write_regions
from wsi_pipeline.geometry import Box, FieldOfView, Mpp
from wsi_pipeline.grid import Grid
from wsi_pipeline.regions import find_regions

THRESHOLD = 0.6


def square_grid(side: int) -> Grid:
    """So many cells of 12.5 µm each way, at 0.25 µm/px."""
    rows, cols = np.indices((side, side), dtype=np.int32)
    return Grid(
        mpp=Mpp(0.25, 0.25),
        view=FieldOfView(size_px=50, mpp=0.25),
        cell_um=12.5,
        extent=Box(0, 0, side * 50, side * 50),
        block_side=64,
        cells=np.stack([rows.ravel(), cols.ravel()], axis=1),
    )


def main(file: str, folder: str, min_um2: str, smooth_um: str, cells: str) -> None:
    """Measure, and print the figures as JSON."""
    probability = np.load(file)
    grid, settings = square_grid(len(probability)), RegionSettings(min_region_um2=min_um2, smooth_um=smooth_um)
    # What is loaded late is loaded before the clock starts.
    find_regions(probability[:8, :8], square_grid(8), threshold=THRESHOLD, settings=settings, namespace="")
    before, started = peak_mb(), time.perf_counter()
    regions = find_regions(probability, grid, threshold=THRESHOLD, settings=settings, namespace="benchmark")
    outlined = time.perf_counter()
    write_regions(Path(folder) / "regions.geojson", regions, grid)
    written, peak = time.perf_counter(), peak_mb()
    found = {
        "regions": len(regions),
        "outlines_s": outlined - started,
        "geojson_s": written - outlined,
        "both_s": written - started,
        "extra_mb": peak - before,
        "peak_mb": peak,
    }
    if cells == "yes":
        write_cells(Path(folder) / "cells.geojson.gz", probability, grid, namespace="benchmark")
        found |= {"cells_s": time.perf_counter() - written, "cells_peak_mb": peak_mb()}
    print(json.dumps(found))


def peak_mb() -> float:
    """Most memory that this program has had so far, MB of 10⁶."""
    status = Path("/proc/self/status")
    if status.exists():  # what the system counts of a process includes what its parent was before it became this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
