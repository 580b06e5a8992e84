"""Cells and regions as CSV: for spreadsheets, R and pandas."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.export.results import Result
from wsi_pipeline.files import write_csv

CELL_COLUMNS = (
    *("row", "col", "x_px", "y_px", "x_um", "y_um", "width_px", "height_px", "area_um2"),
    *("probability", "spread", "probability_before_context", "region"),
)
"""Of the cells' table. x and y are the middle of the cell, from the slide's top left corner."""

REGION_COLUMNS = (
    *("slide", "region", "id", "class", "x_px", "y_px", "x_um", "y_um"),
    *("left_px", "top_px", "right_px", "bottom_px"),
    *("cells", "area_um2", "mean_probability", "max_probability", "mean_spread"),
    *("threshold", "threshold_source", "smooth_um", "min_region_um2", "model", "model_digest", "note"),
)
"""Of the regions' table. x and y are a point inside the region, in the middle of its widest part."""


def write_tables(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.cells.csv`` and ``<name>.regions.csv`` (UTF-8, comma, a heading).

    Pixels are level-0 pixels of the slide file. µm are pixels times the resolution. An empty field is a value that
    is not there.

    Raises:
        OutputError: where a file cannot be written.
    """
    cells, regions = folder / f"{name}.cells.csv", folder / f"{name}.regions.csv"
    rows = range(result.heatmap.grid.shape[0])
    write_csv(cells, CELL_COLUMNS, chain.from_iterable(_cell_rows(result, row) for row in rows))
    write_csv(regions, REGION_COLUMNS, _region_rows(result))
    return [cells, regions]


def _cell_rows(result: Result, row: int) -> Iterator[tuple[object, ...]]:
    """The analysed cells of one row of the map."""
    grid = result.heatmap.grid
    cols = np.flatnonzero(~np.isnan(result.probability[row]))
    top, bottom = int(grid.row_edges[row]), int(grid.row_edges[row + 1])
    left, right = grid.col_edges[:-1][cols], grid.col_edges[1:][cols]
    x, y = (left + right) / 2, (top + bottom) / 2
    columns: tuple[list[Any], ...] = tuple(
        values.tolist()
        for values in (
            cols,
            x,
            np.round(x * grid.mpp.x, 4),
            right - left,
            np.round((right - left) * (bottom - top) * grid.mpp.pixel_um2, 4),
        )
    )
    scores = (_texts(values, row, cols) for values in (result.probability, result.spread, result.unrefined))
    regions = [number or "" for number in result.region_numbers[row, cols].tolist()]
    y_um, height = round(y * grid.mpp.y, 4), bottom - top
    for (col, x_px, x_um, width, area), *values in zip(zip(*columns, strict=True), *scores, regions, strict=True):
        yield row, col, x_px, y, x_um, y_um, width, height, area, *values


def _texts(values: NDArray[np.float32] | None, row: int, cols: NDArray[np.intp]) -> list[str]:
    """Nine digits, which give the same float32 again; empty where there is nothing."""
    if values is None:
        return [""] * len(cols)
    return [f"{value:.9g}" for value in values[row, cols].tolist()]


def _region_rows(result: Result) -> Iterator[tuple[object, ...]]:
    grid, settings, summary = result.heatmap.grid, result.region_settings, result.summary
    made = (result.threshold, result.threshold_source, settings.smooth_um, settings.min_region_um2)
    by = (summary.model, summary.identity.bundle, RESEARCH_USE)
    for region in result.regions:
        inside = region.polygon.representative_point()
        yield (
            *(summary.slide, region.number, region.id, result.class_name),
            *(round(inside.x, 2), round(inside.y, 2)),
            *(round(inside.x * grid.mpp.x, 4), round(inside.y * grid.mpp.y, 4)),
            *region.polygon.bounds,
            *(region.cells, round(region.area_um2, 3)),
            *(round(region.mean_probability, 6), round(region.max_probability, 6)),
            "" if region.mean_spread is None else round(region.mean_spread, 6),
            *made,
            *by,
        )
