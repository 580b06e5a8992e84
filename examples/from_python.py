"""Run a slide from Python and measure its map.

    python examples/from_python.py SLIDE RESULTS [--cell native]

What this prints is for research use only.
"""

import argparse
from pathlib import Path

import numpy as np

from wsi_pipeline import pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.heatmap import Heatmap


def main() -> None:
    """Run one slide, open its heatmap, and ask it a question that no summary answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide")
    parser.add_argument("results", type=Path)
    parser.add_argument("--cell", default="50px@40x", help="50px@40x, 12.5um or native")
    args = parser.parse_args()

    record = pipeline.run([args.slide], args.results, load_settings(None, {"cell": args.cell}))
    (result,) = record.results
    if result.summary is None:
        raise SystemExit(f"{result.slide} failed: {result.error}")

    heatmap = Heatmap.open(args.results / result.folder / "heatmap.zarr")
    probability = heatmap.probability("IDC")  # float32 [rows, cols], NaN where not visited
    area_mm2 = heatmap.grid.cell_area_um2 * 1e-6
    print(f"IDC: {result.summary.idc_mm2:.3f} mm² at threshold {result.summary.threshold}")
    for threshold in (0.25, 0.5, 0.75):
        above = np.nan_to_num(probability) >= threshold
        print(f"cells with p(IDC) >= {threshold}: {area_mm2[above].sum():.3f} mm²")


if __name__ == "__main__":
    main()
