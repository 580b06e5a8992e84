"""Finished result folders made by the tests, with maps that any test can compute again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import tissue_picture
from numpy.typing import NDArray
from tiffs import write_pyramid

from wsi_pipeline.geometry import Box, FieldOfView, Mpp
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.manifest import Identity, Summary
from wsi_pipeline.slides import open_slide

WIDTH, HEIGHT = 1010, 805
"""Size of the slide: the last cells reach over its edge."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A result folder, and what was put into it."""

    folder: Path
    slide: Path
    grid: Grid
    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    summary: Summary


def make_finished(
    folder: Path,
    slide: Path,
    *,
    probability: NDArray[np.float32] | None = None,
    extent: Box | None = None,
    mpp: tuple[float, float] = (0.25, 0.25),
    mpp_source: str = "file",
    cell_um: float = 12.5,
    refined: bool = False,
    fingerprint: str | None = None,
    reader: str = "openslide",
    class_name: str = "IDC",
) -> Finished:
    """Write a slide's folder as a run leaves it, but for the pictures."""
    grid = grid_of(extent or Box(0, 0, WIDTH, HEIGHT), mpp, cell_um)
    values = wave(grid.shape) if probability is None else probability
    grid = grid_of(grid.extent, mpp, cell_um, np.argwhere(~np.isnan(values)).astype(np.int32))
    spread = np.where(np.isnan(values), np.nan, (1 - values) / 4).astype(np.float32)
    if fingerprint is None:
        with open_slide(slide) as opened:
            fingerprint = opened.info.fingerprint
    identity = Identity(slide=fingerprint, bundle="b" * 64, settings="c" * 64)
    heatmap = Heatmap.create(
        folder / "heatmap.zarr",
        grid,
        class_names=("other", class_name),
        identity=identity,
        provenance={},
        name=folder.name,
        tissue=np.zeros(grid.shape, bool),
        spread=True,
    )
    for block in heatmap.pending():
        row, col = block.cells.T
        scores = np.stack([1 - values[row, col], values[row, col]], axis=1)
        heatmap.write(block, scores, spread[row, col])
    heatmap.finish(refine=(lambda p: (p / 2 + 0.25).astype(np.float32)) if refined else None)
    summary = summary_of(folder.name, slide, identity, grid, mpp_source, reader)
    summary.write(folder / "summary.json")
    return Finished(
        folder=folder,
        slide=slide,
        grid=grid,
        probability=heatmap.probability(class_name),
        spread=spread,
        summary=summary,
    )


def grid_of(extent: Box, mpp: tuple[float, float], cell_um: float, cells: NDArray[np.int32] | None = None) -> Grid:
    return Grid(
        mpp=Mpp(*mpp),
        view=FieldOfView(size_px=50, mpp=4.0),
        cell_um=cell_um,
        extent=extent,
        block_side=64,
        cells=np.empty((0, 2), np.int32) if cells is None else cells,
    )


def wave(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Hills and valleys from 0 to 1, no two cells alike, with a corner that was not analysed."""
    row, col = np.mgrid[: shape[0], : shape[1]]
    values = (np.sin(row / 2.3) * np.cos(col / 3.1) + 1) / 2.1 + row * 1e-3 + col * 1e-5
    values[:3, :4] = np.nan
    return values.clip(0, 1).astype(np.float32)


def summary_of(name: str, slide: Path, identity: Identity, grid: Grid, mpp_source: str, reader: str) -> Summary:
    return Summary(
        slide=name,
        path=str(slide),
        identity=identity,
        tissue_mm2=0.0,
        analysed_mm2=0.0,
        idc_mm2=0.0,
        idc_fraction=None,
        regions=0,
        largest_region_mm2=0.0,
        mean_probability=None,
        threshold=0.5,
        threshold_source="model: a test",
        tta=True,
        context=False,
        spread_over="8 symmetries",
        mean_spread=None,
        mean_spread_regions=None,
        mean_spread_near_regions=None,
        cells=len(grid.cells),
        unreadable_cells=0,
        padded_cells=0,
        cell_um=grid.cell_um,
        mpp=(grid.mpp.x, grid.mpp.y),
        mpp_source=mpp_source,
        model="a-model",
        reader=reader,
        seconds={"total": 1.0},
    )


def write_run(run: Path, regions: dict[str, Any] | None = None) -> None:
    """A run's record that names every finished slide in the folder."""
    settings = {"regions": {"min_region_um2": 0.0, "smooth_um": 0.0} | (regions or {})}
    results = [
        {"slide": child.name, "path": "", "folder": child.name, "status": "done", "error": None}
        for child in sorted(run.iterdir())
        if (child / "summary.json").exists()
    ]
    (run / "run.json").write_text(json.dumps({"settings": settings, "results": results}))


def make_slide(path: Path, *, seed: int = 0) -> Path:
    return write_pyramid(path, base=tissue_picture(WIDTH, HEIGHT, seed))


def same_summary(summary: Summary, **changes: object) -> Summary:
    values = asdict(summary) | changes
    values["identity"] = Identity(**values["identity"])
    return Summary(**values)
