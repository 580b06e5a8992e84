"""Regions and cells for QuPath."""

from pathlib import Path

from wsi_pipeline.export.results import Result
from wsi_pipeline.geojson import write_cells, write_regions


def write_region_file(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.geojson``: the regions as locked annotations, in the frame of QuPath's image.

    Raises:
        OutputError: where the file cannot be written.
    """
    path = folder / f"{name}.geojson"
    grid = result.heatmap.grid
    write_regions(path, result.regions, grid, class_name=result.class_name, image_px=_image_px(result))
    return [path]


def write_cell_file(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.cells.geojson.gz``: every analysed cell as a tile with its measurements.

    Raises:
        OutputError: where the file cannot be written.
    """
    path = folder / f"{name}.cells.geojson.gz"
    write_cells(
        path,
        result.probability,
        result.heatmap.grid,
        namespace=result.namespace,
        class_name=result.class_name,
        spread=result.spread,
        image_px=_image_px(result),
    )
    return [path]


def _image_px(result: Result) -> tuple[int, int]:
    """Width and height of the slide as QuPath shows it: inside its bounds."""
    extent = result.heatmap.grid.extent
    return extent.width, extent.height
