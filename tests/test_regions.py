"""Regions: which cells, how large, and outlines that are exactly the cells'."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from grids import make_grid
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.grid import Grid
from wsi_pipeline.outlines import FINEST_PX, lines_to_draw, outline_labels
from wsi_pipeline.regions import Region, find_regions, number_regions

ALL = RegionSettings(min_region_um2=0)

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans())


def find(
    probability: np.ndarray, grid: Grid | None = None, *, threshold: float = 0.5, options: RegionSettings = ALL
) -> list[Region]:
    probability = np.asarray(probability, np.float32)
    grid = grid or make_grid(*probability.shape)
    return find_regions(probability, grid, threshold=threshold, settings=options, namespace="result")


def cells_inside(polygon: shapely.Polygon, grid: Grid) -> np.ndarray:
    x = (grid.col_edges[:-1] + grid.col_edges[1:]) / 2
    y = (grid.row_edges[:-1] + grid.row_edges[1:]) / 2
    return shapely.contains_xy(polygon, *np.meshgrid(x, y))


def rebuild(regions: list[Region], grid: Grid) -> np.ndarray:
    """The mask that the outlines enclose; fails where two of them enclose the same cell."""
    counts = sum((cells_inside(region.polygon, grid).astype(int) for region in regions), np.zeros(grid.shape, int))
    assert counts.max() <= 1
    return counts > 0


@given(
    mask=masks,
    mpp=st.tuples(st.floats(0.2, 1.1), st.floats(0.2, 1.1)),
    origin=st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
    overhang=st.sampled_from([0.0, 0.3, 0.8]),
)
@settings(max_examples=150, deadline=None)
def test_outlines_rebuild_the_mask(mask, mpp, origin, overhang):
    grid = make_grid(*mask.shape, mpp=mpp, origin=origin, overhang=overhang)
    probability = np.where(mask, 0.9, np.where(np.indices(mask.shape).sum(axis=0) % 2, 0.1, np.nan))
    regions = find(probability, grid)
    assert (rebuild(regions, grid) == mask).all()
    labels, count = ndimage.label(mask)
    assert len(regions) == count
    for region in regions:
        assert region.polygon.is_valid
        assert region.polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in region.polygon.interiors)
        member = cells_inside(region.polygon, grid)
        assert (labels[member] == labels[member][0]).all()
        assert region.cells == member.sum()
        assert region.area_um2 == pytest.approx(grid.cell_area_um2[member].sum())
        assert region.polygon.area * grid.mpp.pixel_um2 == pytest.approx(region.area_um2)


@given(mask=masks, smooth_um=st.floats(0.1, 60), mpp=st.tuples(st.floats(0.2, 1.1), st.floats(0.2, 1.1)))
@example(mask=np.arange(24).reshape(2, 12) < 23, smooth_um=18.0, mpp=(1.0, 1.0))  # its first vertex can be dropped
@settings(max_examples=150, deadline=None)
def test_smoothing_stays_within_its_bound(mask, smooth_um, mpp):
    check_smoothing_bound(mask, smooth_um, mpp)


@pytest.mark.parametrize("smooth_um", [1, 3, 5, 10, 20, 40])
@pytest.mark.parametrize("seed", range(3))
def test_smoothing_of_large_round_regions_stays_within_its_bound(smooth_um, seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((50, 60)), 3)
    check_smoothing_bound(noise > np.median(noise), smooth_um, (0.25, 0.5))


def check_smoothing_bound(mask, smooth_um, mpp):
    grid = make_grid(*mask.shape, mpp=mpp, overhang=0.4)
    exact = find(mask, grid)
    smooth = find(mask, grid, options=RegionSettings(min_region_um2=0, smooth_um=smooth_um))
    assert [r.area_um2 for r in smooth] == [r.area_um2 for r in exact]
    for before, after in zip(exact, smooth, strict=True):
        assert after.polygon.is_valid
        assert after.polygon.area > 0
        rough, fine = (shapely.transform(r.polygon.boundary, lambda xy: xy * np.array(mpp)) for r in (before, after))
        moved = max(
            shapely.hausdorff_distance(rough, fine, densify=0.2), shapely.hausdorff_distance(fine, rough, densify=0.2)
        )
        assert moved <= smooth_um + 0.01 * max(mpp)
        points = shapely.get_coordinates(after.polygon)
        assert (points == np.round(points, 2)).all()


def test_smoothing_makes_stairs_straight_and_keeps_vertices_few():
    stairs = np.tri(20, dtype=bool)
    (exact,), (smooth,) = find(stairs), find(stairs, options=RegionSettings(min_region_um2=0, smooth_um=6))
    assert len(exact.polygon.exterior.coords) == 43
    assert len(smooth.polygon.exterior.coords) < 10


@given(mask=masks)
@settings(max_examples=50, deadline=None)
def test_cutting_corners_alone_keeps_every_cell(mask):
    grid = make_grid(*mask.shape)
    assert (rebuild(find(mask, grid, options=RegionSettings(min_region_um2=0, smooth_um=4.4)), grid) == mask).all()


def test_rings_are_led_past_each_other_where_a_region_touches_itself():
    # Two holes that meet at a corner, and a hole that meets the outside at a corner.
    mask = np.array(
        [
            [1, 1, 1, 1, 1],
            [1, 0, 1, 1, 1],
            [1, 1, 0, 1, 1],
            [1, 1, 1, 0, 1],
            [1, 1, 1, 1, 0],
        ],
        bool,
    )
    (region,) = find(mask)
    assert region.polygon.is_valid
    assert len(region.polygon.interiors) == 3
    assert region.cells == 21


def test_corner_contact_does_not_join_regions():
    assert [r.cells for r in find(np.eye(3))] == [1, 1, 1]


def test_an_island_in_a_hole_is_a_region_of_its_own():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    ring, island = find(mask)
    assert (ring.cells, island.cells) == (24, 1)
    assert len(ring.polygon.interiors) == 1
    assert not ring.polygon.contains(island.polygon)


def test_no_vertex_lies_on_a_straight_line():
    (region,) = find(np.ones((6, 9)))
    assert list(region.polygon.exterior.coords) == [(0, 0), (450, 0), (450, 300), (0, 300), (0, 0)]


def test_threshold_is_inclusive_and_compared_as_stored():
    probability = np.array([[0.7, np.nextafter(np.float32(0.7), np.float32(0)), np.nan]], np.float32)
    (region,) = find(probability, threshold=0.7)
    assert region.cells == 1


def test_hysteresis_grows_from_seeds_over_sides_only():
    probability = np.array(
        [
            [0.9, 0.5, 0.2, 0.5],
            [0.2, 0.5, 0.2, 0.5],
            [0.2, 0.2, 0.5, 0.2],
        ]
    )
    assert [r.cells for r in find(probability, threshold=0.8)] == [1]
    (grown,) = find(probability, threshold=0.8, options=RegionSettings(min_region_um2=0, low_threshold=0.4))
    assert grown.cells == 3
    assert grown.mean_probability == pytest.approx((0.9 + 0.5 + 0.5) / 3)
    assert grown.max_probability == pytest.approx(0.9)


def test_low_threshold_above_the_threshold_is_refused():
    with pytest.raises(ConfigError, match=r"low_threshold: 0\.6 lies above the threshold 0\.5"):
        find(np.ones((2, 2)), options=RegionSettings(low_threshold=0.6))


def test_minimum_area_counts_the_part_on_the_slide():
    mask = np.array([[1, 0, 1]], bool)
    grid = make_grid(1, 3, overhang=0.5)  # the last row and column are half off the slide
    areas = [r.area_um2 for r in find(mask, grid)]
    assert areas == pytest.approx([78.125, 39.0625])
    assert len(find(mask, grid, options=RegionSettings(min_region_um2=39.0625))) == 2
    assert len(find(mask, grid, options=RegionSettings(min_region_um2=39.07))) == 1
    assert find(mask, grid, options=RegionSettings(min_region_um2=100)) == []


def test_regions_are_numbered_by_area_then_from_the_top():
    mask = np.array([[1, 0, 1, 0, 1], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], bool)
    regions = find(mask)
    assert [(r.number, r.cells) for r in regions] == [(1, 2), (2, 1), (3, 1), (4, 1)]
    assert [r.polygon.bounds[:2] for r in regions] == [(200, 0), (0, 0), (100, 0), (0, 100)]


def test_the_spread_is_averaged_over_each_region_and_changes_none():
    probability = np.array([[0.9, 0.8, 0.1], [0.1, np.nan, 0.1], [0.7, 0.1, 0.6]], np.float32)
    spread = np.array([[0.1, 0.3, 0.9], [0.9, np.nan, 0.9], [0.05, 0.9, 0.25]], np.float32)
    grid = make_grid(3, 3)
    regions = find_regions(probability, grid, threshold=0.5, settings=ALL, namespace="result", spread=spread)
    assert [region.mean_spread for region in regions] == pytest.approx([0.2, 0.05, 0.25])
    plain = find(probability, grid)
    assert [region.mean_spread for region in plain] == [None] * 3
    assert [replace(region, mean_spread=None) for region in regions] == plain


@given(mask=masks)
@settings(max_examples=50, deadline=None)
def test_numbers_say_which_region_a_cell_belongs_to(mask):
    grid = make_grid(*mask.shape)
    numbers = number_regions(mask.astype(np.float32), grid, threshold=0.5, settings=ALL)
    assert ((numbers > 0) == mask).all()
    for region in find(mask, grid):
        assert (cells_inside(region.polygon, grid) == (numbers == region.number)).all()


def test_ids_are_stable_and_depend_on_result_and_outline():
    mask, grid = np.eye(4), make_grid(4, 4)
    ids = [r.id for r in find(mask)]
    assert ids == [r.id for r in find(mask)]
    assert len(set(ids)) == 4
    other = find_regions(mask.astype(np.float32), grid, threshold=0.5, settings=ALL, namespace="another")
    assert not set(ids) & {r.id for r in other}


def test_nothing_visited_and_nothing_found():
    assert find(np.full((4, 5), np.nan)) == []
    assert find(np.zeros((4, 5))) == []
    assert find(np.zeros((4, 5)), options=RegionSettings(smooth_um=5)) == []


def test_a_map_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="the grid"):
        find(np.zeros((3, 3)), make_grid(4, 4))


def test_smoothing_falls_back_to_the_exact_outline(monkeypatch):
    bowtie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    monkeypatch.setattr(shapely, "simplify", lambda shapes, *_, **__: np.array([bowtie for _ in shapes]))
    (smooth,) = find(np.ones((2, 2)), options=RegionSettings(min_region_um2=0, smooth_um=5))
    assert smooth.polygon.equals(find(np.ones((2, 2)))[0].polygon)


def test_lines_to_draw_are_true_to_less_than_half_a_pixel_and_lose_no_ring():
    labels = np.zeros((40, 60), np.int32)
    labels[2:38, 2:58] = 1
    labels[5:35:3, 5:55:2] = 0  # a sieve
    labels[0, 59] = 2  # a cell by itself, far smaller than a pixel below
    cols, rows = np.arange(61) * 10, np.arange(41) * 10
    polygons = outline_labels(labels, cols, rows)
    rings, pixel = shapely.get_rings(polygons), 30.0
    lines = lines_to_draw(polygons, pixel)
    assert len(lines) == len(rings) == 2 + 10 * 25
    assert shapely.hausdorff_distance(lines, rings).max() <= FINEST_PX * pixel
    assert (shapely.get_num_coordinates(lines) >= 4).all()
    assert shapely.get_num_coordinates(lines_to_draw(polygons, 1.0)).sum() == shapely.get_num_coordinates(rings).sum()
    parts = lines_to_draw(shapely.MultiPolygon(list(polygons)), pixel)
    assert shapely.equals_exact(parts, lines).all()
