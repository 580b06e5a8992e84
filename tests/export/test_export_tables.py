"""CSV by the eyes of pandas."""

from dataclasses import replace

import numpy as np
import pandas as pd

from wsi_pipeline.export import ExportOptions, export
from wsi_pipeline.export.results import Result
from wsi_pipeline.export.tables import CELL_COLUMNS, REGION_COLUMNS, write_tables
from wsi_pipeline.heatmap import Heatmap


def tables(finished, folder, **options):
    record = export(finished.folder, to="csv", out=folder, options=ExportOptions(**options))
    assert not record.failed
    return [pd.read_csv(file) for file in record.files]


def test_a_row_a_cell_with_the_values_of_the_map(finished, tmp_path):
    cells, _ = tables(finished, tmp_path)
    assert tuple(cells.columns) == CELL_COLUMNS
    known = ~np.isnan(finished.probability)
    assert len(cells) == known.sum()
    for column, values in (
        ("probability", finished.probability),
        ("spread", finished.spread),
        ("probability_before_context", Heatmap.open(finished.folder / "heatmap.zarr").unrefined()),
    ):
        again = np.full(finished.grid.shape, np.nan, np.float32)
        again[cells["row"], cells["col"]] = cells[column].astype(np.float32)
        np.testing.assert_array_equal(again, values)


def test_places_are_those_of_the_grid(finished, tmp_path):
    cells, _ = tables(finished, tmp_path)
    for cell in cells.iloc[::11].itertuples():
        box = finished.grid.cell_box(cell.row, cell.col)
        assert (cell.x_px, cell.y_px) == (box.x + box.width / 2, box.y + box.height / 2)
        assert (cell.width_px, cell.height_px) == (box.width, box.height)
        assert (cell.x_um, cell.y_um) == (cell.x_px * 0.25, cell.y_px * 0.25)
    assert np.isclose(cells["area_um2"].sum(), finished.grid.cell_area_um2[~np.isnan(finished.probability)].sum())
    assert cells["width_px"].min() == 10  # the last column, cut by the slide's edge


def test_regions_sum_up_their_cells(finished, tmp_path):
    cells, regions = tables(finished, tmp_path, threshold=0.6)
    assert tuple(regions.columns) == REGION_COLUMNS
    grouped = cells[cells["region"].notna()].groupby("region")
    assert list(regions["region"]) == list(range(1, len(regions) + 1))
    np.testing.assert_array_equal(regions["cells"], grouped.size())
    np.testing.assert_allclose(regions["area_um2"], grouped["area_um2"].sum(), atol=1e-3)
    np.testing.assert_allclose(regions["mean_probability"], grouped["probability"].mean(), atol=1e-6)
    np.testing.assert_allclose(regions["mean_spread"], grouped["spread"].mean(), atol=1e-6)
    assert cells.loc[cells["region"].isna(), "probability"].max() < 0.6
    assert set(regions["threshold"]) == {0.6}
    assert set(regions["note"]) == {"For research use only"}
    # A region's point lies in one of its cells.
    for region in regions.itertuples():
        row = np.searchsorted(finished.grid.row_edges, region.y_px, side="right") - 1
        col = np.searchsorted(finished.grid.col_edges, region.x_px, side="right") - 1
        own = cells[(cells["row"] == row) & (cells["col"] == col)]["region"]
        assert own.tolist() == [region.region]


def test_a_slide_and_a_model_named_like_formulas_are_text(finished, tmp_path):
    result = Result.open(finished.folder, ExportOptions())
    result = replace(result, summary=replace(result.summary, slide="=1+1", model="@SUM(A1)"))
    _, regions = (pd.read_csv(file) for file in write_tables(result, tmp_path, "slide"))
    assert set(regions["slide"]) == {"'=1+1"}
    assert set(regions["model"]) == {"'@SUM(A1)"}
