"""GeoJSON by the eyes of geopandas and by QuPath's rules, at many thresholds and smoothings."""

import gzip

import geopandas
import numpy as np
import pytest
from finished_results import HEIGHT, WIDTH, make_finished, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from qupath_rules import check_geojson, read_geojson
from shapely.geometry import shape

from wsi_pipeline.export import ExportOptions, export
from wsi_pipeline.geometry import Box


@pytest.mark.parametrize("threshold", [0, 0.2, 0.5, 0.8, 0.97, 1])
@pytest.mark.parametrize("smooth_um", [0, 2, 20])
def test_regions_keep_qupaths_rules_and_hold_the_cells_above_the_threshold(finished, tmp_path, threshold, smooth_um):
    options = ExportOptions(threshold=threshold, smooth_um=smooth_um)
    (file,) = export(finished.folder, to="geojson", out=tmp_path, options=options).files
    check_geojson(read_geojson(file), size=(WIDTH, HEIGHT))
    # Readers of maps take GeoJSON for degrees on the globe, as its standard says; these are pixels.
    frame = geopandas.read_file(file).set_crs(None, allow_override=True)
    above = finished.probability >= threshold
    features = read_geojson(file)["features"]
    assert sum(feature["properties"]["measurements"]["Cells"] for feature in features) == above.sum()
    area_um2 = finished.grid.cell_area_um2[above].sum()
    assert sum(f["properties"]["measurements"]["Area um2"] for f in features) == pytest.approx(area_um2, abs=0.01)
    if smooth_um == 0:
        assert frame.geometry.area.sum() * 0.25**2 == pytest.approx(area_um2)
        inside = frame.geometry.union_all()
        x = (finished.grid.col_edges[:-1] + finished.grid.col_edges[1:]) / 2
        y = (finished.grid.row_edges[:-1] + finished.grid.row_edges[1:]) / 2
        for row, col in np.argwhere(~np.isnan(finished.probability))[::7]:
            assert inside.contains(geopandas.points_from_xy([x[col]], [y[row]])[0]) == above[row, col]


@given(
    mask=arrays(bool, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.booleans()),
    smooth_um=st.sampled_from([0.0, 3.0, 12.0]),
)
@settings(max_examples=15, deadline=None)
def test_cells_that_touch_at_corners_make_no_invalid_outline(tmp_path_factory, mask, smooth_um):
    folder = tmp_path_factory.mktemp("corners")
    rows, cols = mask.shape
    made = make_finished(
        folder / "x",
        folder / "no slide.tiff",
        probability=mask.astype(np.float32),
        extent=Box(13, 7, cols * 31, rows * 50),
        mpp=(0.4032258064516129, 0.25),
        fingerprint="f" * 64,
    )
    record = export(
        made.folder, to=["geojson", "geojson-cells"], out=folder / "out", options=ExportOptions(smooth_um=smooth_um)
    )
    assert not record.failed
    for file in record.files:
        check_geojson(read_geojson(file), size=(cols * 31, rows * 50))


def test_the_run_keeps_its_ids_and_another_threshold_gets_others(finished, tmp_path):
    def ids(**options: float) -> list[str]:
        (file,) = export(finished.folder, to="geojson", out=tmp_path, options=ExportOptions(**options)).files
        return [feature["id"] for feature in read_geojson(file)["features"]]

    own = ids()
    assert own
    assert ids(threshold=0.5) == own
    assert not set(ids(threshold=0.7)) & set(own)


def test_qupaths_image_begins_at_the_bounds(tmp_path):
    whole = np.ones((4, 5), np.float32)
    made = make_finished(
        tmp_path / "x", tmp_path / "none.tiff", probability=whole, extent=Box(300, 200, 250, 200), fingerprint="f" * 64
    )
    write_run(tmp_path)
    record = export(made.folder, to=["geojson", "geojson-cells"], out=tmp_path / "out")
    for file in record.files:
        check_geojson(read_geojson(file), size=(250, 200))
    region, cells = (read_geojson(file)["features"] for file in record.files)
    assert shape(region[0]["geometry"]).bounds == (0, 0, 250, 200)
    assert shape(cells[0]["geometry"]).bounds == (0, 0, 50, 50)
    assert shape(cells[-1]["geometry"]).bounds == (200, 150, 250, 200)


def test_cells_carry_the_values_of_the_map(finished, tmp_path):
    (file,) = export(finished.folder, to="geojson-cells", out=tmp_path).files
    collection = read_geojson(file)
    check_geojson(collection)
    values = finished.probability[~np.isnan(finished.probability)]
    measured = [feature["properties"]["measurements"] for feature in collection["features"]]
    np.testing.assert_allclose([m["p(IDC)"] for m in measured], values, rtol=1e-5)
    spread = finished.spread[~np.isnan(finished.spread)]
    np.testing.assert_allclose([m["spread of p(IDC)"] for m in measured], spread, rtol=1e-5)


def test_a_file_states_the_size_of_its_image_in_its_first_line(finished, tmp_path):
    record = export(finished.folder, to=["geojson", "geojson-cells"], out=tmp_path)
    for file in record.files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        first = content.partition(b"\n")[0].decode()
        assert first == f'{{"type":"FeatureCollection","image_px":[{WIDTH},{HEIGHT}],"features":['
