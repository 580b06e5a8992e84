"""All maps of a result as one OME-TIFF: float32, a pixel a cell, a page a channel, coarser levels as SubIFDs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.export.ome_zarr import read_channel
from wsi_pipeline.export.results import Result
from wsi_pipeline.files import atomic_path
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap.layers import Layers

TILE_PX = 256


def write_maps(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.probability.ome.tif``: the classes, then the spread and the unrefined map where there are any.

    A pixel is a cell; NaN is a cell that was not analysed. PhysicalSize is the side of a cell. The position of each
    plane is that of the map's corner on the slide, in µm from the corner of the slide's first pixel.

    Raises:
        OutputError: where the file cannot be written.
    """
    import tifffile

    path = folder / f"{name}.probability.ome.tif"
    heatmap = result.heatmap
    layers, grid = Layers.of(heatmap.attributes), heatmap.grid
    levels = ngff.level_shapes(grid.shape)
    coarser: list[NDArray[np.float32]] = []
    read = read_channel(heatmap)

    def finest() -> Iterator[NDArray[np.float32]]:
        for number in range(layers.count):
            values = read(number)
            coarser.append(ngff.halve_mean(values))
            yield from _tiles(values)

    def reduced() -> Iterator[NDArray[np.float32]]:
        for number, values in enumerate(coarser):
            yield from _tiles(values)
            coarser[number] = ngff.halve_mean(values)

    with atomic_path(path) as part, tifffile.TiffWriter(part, ome=True, bigtiff=_is_big(layers.count, levels)) as tiff:
        for level, shape in enumerate(levels):
            per_cm = 1e4 / (grid.cell_um * 2**level)
            tiff.write(
                reduced() if level else finest(),
                shape=(layers.count, *shape),
                dtype=np.float32,
                tile=(TILE_PX, TILE_PX),
                photometric="minisblack",
                compression="zlib",  # without a predictor: Bio-Formats refuses that of floating point
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software="wsi-pipeline",
                **(
                    {"subfiletype": 1}
                    if level
                    else {"subifds": len(levels) - 1, "metadata": _metadata(result, layers, grid)}
                ),
            )
    return [path]


def _is_big(count: int, levels: list[tuple[int, int]]) -> bool:
    return sum(rows * cols for rows, cols in levels) * count * 4 > 2**31


def _tiles(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Whole tiles, row by row; beyond the edge there is nothing: NaN."""
    rows, cols = values.shape
    for y in range(0, rows, TILE_PX):
        for x in range(0, cols, TILE_PX):
            part = values[y : y + TILE_PX, x : x + TILE_PX]
            tile = np.full((TILE_PX, TILE_PX), np.nan, np.float32)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _metadata(result: Result, layers: Layers, grid: Grid) -> dict[str, Any]:
    """What tifffile makes the OME-XML of."""
    shown = layers.shown()
    summary = result.summary
    left_um, top_um = grid.extent.x * grid.mpp.x, grid.extent.y * grid.mpp.y
    return {
        "axes": "CYX",
        "Name": summary.slide,
        "Description": f"{RESEARCH_USE}. Model {summary.model} ({summary.identity.bundle}) on {summary.slide}.",
        "PhysicalSizeX": grid.cell_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": grid.cell_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": [channel.label for channel in shown]},
        "Plane": {
            "PositionX": [left_um] * len(shown),
            "PositionXUnit": ["µm"] * len(shown),
            "PositionY": [top_um] * len(shown),
            "PositionYUnit": ["µm"] * len(shown),
        },
    }
