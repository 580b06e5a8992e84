"""GeoJSON: QuPath's rules, QuPath's frame, and bytes that do not change."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from grids import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from qupath_rules import check_geojson, read_geojson
from shapely.geometry import shape

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.errors import OutputError
from wsi_pipeline.geojson import region_features, write_cells, write_regions
from wsi_pipeline.grid import Grid
from wsi_pipeline.regions import Region, find_regions


def regions_of(probability: np.ndarray, grid: Grid, smooth_um: float = 0) -> list[Region]:
    return find_regions(
        probability.astype(np.float32),
        grid,
        threshold=0.5,
        settings=RegionSettings(min_region_um2=0, smooth_um=smooth_um),
        namespace="digest",
    )


@given(
    mask=arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10)), elements=st.booleans()),
    smooth_um=st.sampled_from([0, 2, 6, 30]),
)
@settings(max_examples=60, deadline=None)
def test_every_file_keeps_qupaths_rules(tmp_path_factory, mask, smooth_um):
    folder = tmp_path_factory.mktemp("rules")
    grid = make_grid(*mask.shape, mpp=(0.2519, 0.4013), origin=(13, 7))
    regions = regions_of(mask, grid, smooth_um)
    write_regions(folder / "regions.geojson", regions, grid)
    written = read_geojson(folder / "regions.geojson")
    check_geojson(written)
    assert len(written["features"]) == len(regions)


def test_a_region_is_written_as_qupath_reads_it(tmp_path):
    grid = make_grid(3, 4, origin=(1000, 2000))
    probability = np.array([[0.9, 0.8, 0, 0], [0, 0, 0, 0], [0, 0, 0, np.nan]])
    regions = regions_of(probability, grid)
    write_regions(tmp_path / "a.geojson", regions, grid)
    (feature,) = read_geojson(tmp_path / "a.geojson")["features"]
    assert feature == {
        "type": "Feature",
        "id": regions[0].id,
        # QuPath's image starts at the bounds' corner, so the region does at 0, 0.
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 50], [0, 50], [0, 0]]]},
        "properties": {
            "objectType": "annotation",
            "name": "IDC region 1",
            "isLocked": True,
            "classification": {"name": "IDC", "color": [200, 0, 0]},
            "measurements": {"Mean p(IDC)": 0.85, "Max p(IDC)": 0.9, "Area um2": 312.5, "Cells": 2},
        },
    }
    assert regions[0].polygon.bounds == (1000, 2000, 1100, 2050)


def test_holes_are_kept(tmp_path):
    mask = np.ones((5, 5))
    mask[1, 1] = mask[2, 2] = 0
    grid = make_grid(5, 5)
    write_regions(tmp_path / "a.geojson", regions_of(mask, grid), grid)
    written = read_geojson(tmp_path / "a.geojson")
    check_geojson(written)
    assert len(written["features"][0]["geometry"]["coordinates"]) == 3


def test_the_same_result_gives_the_same_bytes(tmp_path):
    grid = make_grid(30, 30, mpp=(0.2519, 0.2519))
    mask = np.random.default_rng(3).random((30, 30))
    for name in ("a", "b"):
        write_regions(tmp_path / f"{name}.geojson", regions_of(mask, grid, smooth_um=5), grid)
        write_cells(tmp_path / f"{name}.geojson.gz", mask.astype(np.float32), grid, namespace="digest")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.geojson", "a.geojson.gz", "b.geojson", "b.geojson.gz"]


def test_no_regions_give_an_empty_collection(tmp_path):
    write_regions(tmp_path / "a.geojson", [], make_grid(2, 2))
    assert read_geojson(tmp_path / "a.geojson") == {"type": "FeatureCollection", "features": []}


def test_other_classes_and_a_colon_in_a_name(tmp_path):
    grid = make_grid(1, 1)
    features = list(
        region_features(regions_of(np.ones((1, 1)), grid), grid, class_name="Tumor: in situ", color=(1, 2, 3))
    )
    check_geojson({"type": "FeatureCollection", "features": features})
    assert features[0]["properties"]["classification"] == {"name": "Tumor- in situ", "color": [1, 2, 3]}
    assert "Mean p(Tumor- in situ)" in features[0]["properties"]["measurements"]


def test_invalid_outlines_are_mended_and_empty_ones_left_out(tmp_path):
    grid = make_grid(2, 2)
    (region,) = regions_of(np.ones((2, 2)), grid)
    bowtie = replace(region, polygon=shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))
    sliver = replace(region, polygon=shapely.Polygon([(0, 0), (9, 0.001), (4, 0.002)]))
    spike = replace(region, polygon=shapely.Polygon([(0, 0), (10, 0), (30, 0), (10, 0), (10, 10), (0, 10)]))
    features = list(region_features([bowtie, sliver], grid)) + list(region_features([spike], grid))
    assert [f["geometry"]["type"] for f in features] == ["MultiPolygon", "Polygon"]
    assert shape(features[0]["geometry"]).area == pytest.approx(50)
    features[1]["id"] = "00000000-0000-4000-8000-000000000000"
    check_geojson({"type": "FeatureCollection", "features": features})
    assert shape(features[1]["geometry"]).area == pytest.approx(100)


def test_cells_are_tiles_with_their_probability(tmp_path):
    grid = make_grid(3, 4, mpp=(0.2519, 0.4013), origin=(40, 60), overhang=0.3)
    probability = np.random.default_rng(1).random((3, 4)).astype(np.float32)
    probability[0, 1] = probability[2] = np.nan
    write_cells(tmp_path / "cells.geojson.gz", probability, grid, namespace="digest", class_name="50% IDC")
    written = read_geojson(tmp_path / "cells.geojson.gz")
    check_geojson(written)
    visited = np.argwhere(~np.isnan(probability))
    assert len(written["features"]) == len(visited) == 7
    for feature, (row, col) in zip(written["features"], visited, strict=True):
        box = grid.cell_box(row, col)
        left, top = box.x - 40, box.y - 60
        assert shape(feature["geometry"]).bounds == (left, top, left + box.width, top + box.height)
        assert feature["properties"]["objectType"] == "tile"
        measured = feature["properties"]["measurements"]["p(50% IDC)"]
        assert measured == pytest.approx(probability[row, col], abs=1e-6)


def test_a_spread_is_one_measurement_more(tmp_path):
    grid = make_grid(1, 3)
    probability = np.array([[0.9, np.nan, 0.2]], np.float32)
    spread = np.array([[0.125, np.nan, 0.25]], np.float32)
    write_cells(tmp_path / "cells.geojson.gz", probability, grid, namespace="digest", spread=spread)
    written = read_geojson(tmp_path / "cells.geojson.gz")
    check_geojson(written)
    measured = [feature["properties"]["measurements"] for feature in written["features"]]
    assert measured == [{"p(IDC)": 0.9, "spread of p(IDC)": 0.125}, {"p(IDC)": 0.2, "spread of p(IDC)": 0.25}]
    regions = find_regions(
        probability, grid, threshold=0.5, settings=RegionSettings(min_region_um2=0), namespace="x", spread=spread
    )
    features = list(region_features(regions, grid))
    check_geojson({"type": "FeatureCollection", "features": features})
    assert features[0]["properties"]["measurements"]["Mean spread of p(IDC)"] == 0.125


def test_cell_ids_depend_on_the_result(tmp_path):
    grid, probability = make_grid(2, 2), np.ones((2, 2), np.float32)
    ids = []
    for namespace in ("one", "two"):
        write_cells(tmp_path / "a.geojson.gz", probability, grid, namespace=namespace)
        ids += [feature["id"] for feature in read_geojson(tmp_path / "a.geojson.gz")["features"]]
    assert len(set(ids)) == 8


def test_no_visited_cell_gives_an_empty_collection(tmp_path):
    write_cells(tmp_path / "a.geojson.gz", np.full((2, 2), np.nan, np.float32), make_grid(2, 2), namespace="x")
    assert json.loads(gzip.decompress((tmp_path / "a.geojson.gz").read_bytes())) == {
        "type": "FeatureCollection",
        "features": [],
    }


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_regions(tmp_path / "missing" / "a.geojson", [], make_grid(2, 2))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("id", "region-1"),
        ("geometry", {"type": "GeometryCollection", "geometries": []}),
        ("geometry", {"type": "MultiPolygon", "coordinates": [[[[0, 0], [9, 0], [9, 9], [0, 0]]]]}),
        ("geometry", {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9]]]}),
        ("geometry", {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 0]]]}),
        ("geometry", {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9.001, 9], [0, 0]]]}),
        ("geometry", {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [4, 0], [0, 0]]]}),
        ("classification", {"name": "IDC"}),
        ("classification", {"name": "IDC", "color": -3670016}),
        ("classification", {"name": "IDC: a", "color": [1, 2, 3]}),
        ("measurements", {"Area um2": None}),
        ("measurements", [{"name": "Area um2", "value": 1.0}]),
        ("objectType", "region"),
        ("isLocked", "true"),
    ],
)
def test_the_rules_can_fail(part, value):
    grid = make_grid(1, 1)
    (feature,) = region_features(regions_of(np.ones((1, 1)), grid), grid)
    check_geojson({"type": "FeatureCollection", "features": [feature]})
    place = feature if part in feature else feature["properties"]
    place[part] = value
    with pytest.raises(AssertionError):
        check_geojson({"type": "FeatureCollection", "features": [feature]})
