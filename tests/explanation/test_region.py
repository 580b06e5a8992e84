"""Regions are read, bounded and covered: every place by the same fields, without seams."""

import numpy as np
import pytest
from grids import make_grid
from helpers import VIEW_40X, VIEW_KAGGLE
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.explanation.region import (
    MAX_VIEWS,
    Stitcher,
    as_text,
    check_region,
    covered,
    cut,
    in_parts,
    lattice,
    most_probable,
    parse_region,
    raster_box,
)
from wsi_pipeline.geometry import Box, Mpp, Scale

MPP = Mpp(0.25, 0.5)
boxes = st.builds(Box, st.integers(-70, 200), st.integers(-70, 200), st.integers(1, 60), st.integers(1, 60))
sides = st.integers(1, 33)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10,20,300,400", Box(10, 20, 300, 400)),
        (" 10 , 20,300, 400px", Box(10, 20, 300, 400)),
        ("10um,20um,300um,400um", Box(40, 40, 1200, 800)),
        ("10,20,300,400um", Box(40, 40, 1200, 800)),
        ("0.1mm,0.2mm,1mm,500µm", Box(400, 400, 4000, 1000)),
        ("8,8,100um,100um", Box(8, 8, 400, 200)),
        ("-5,0,20,20", Box(-5, 0, 20, 20)),
        ("0.4,0.6,10,10", Box(0, 1, 10, 10)),
    ],
)
def test_regions_in_pixels_and_in_lengths(text, expected):
    assert parse_region(text, MPP) == expected


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,4in", "1;2;3;4", "nan,0,1,1", "1e3,0,1,1"]
)
def test_what_is_no_region_is_refused_with_the_form(text):
    with pytest.raises(ConfigError, match=r"is no region\. Write X,Y,WIDTH,HEIGHT in level-0 pixels, or 1\.5mm"):
        parse_region(text, MPP)


@pytest.mark.parametrize("text", ["1,2,0,4", "1,2,3,-4", "1,1,0.1um,1um"])
def test_a_region_without_area_is_refused(text):
    with pytest.raises(ConfigError, match="without area"):
        parse_region(text, MPP)


@settings(deadline=None, max_examples=40)
@given(boxes)
def test_a_region_reads_back(box):
    assert parse_region(as_text(box), MPP) == box


def test_a_region_is_cut_to_the_slide_and_bounded():
    bounds, mpp = Box(100, 100, 50_000, 50_000), Mpp(0.25, 0.25)
    assert check_region(Box(0, 0, 300, 400), bounds, mpp, VIEW_KAGGLE) == Box(100, 100, 200, 300)
    with pytest.raises(ConfigError, match=r"lies outside the slide\. Its pixels are x 100 to 50100, y 100 to 50100"):
        check_region(Box(0, 0, 100, 400), bounds, mpp, VIEW_KAGGLE)
    most = int(MAX_VIEWS * VIEW_KAGGLE.size_um / 0.25)
    assert check_region(Box(100, 100, most, most), bounds, mpp, VIEW_KAGGLE).width == most
    with pytest.raises(ConfigError, match=rf"a side may have 5 mm, here {most} px"):
        check_region(Box(100, 100, most + 4, 20), bounds, mpp, VIEW_KAGGLE)
    with pytest.raises(ConfigError, match=r"fields of view of 12\.5 µm, a side may have 0\.312 mm"):
        check_region(Box(100, 100, 5000, 20), bounds, mpp, VIEW_40X)


@settings(deadline=None, max_examples=40)
@given(boxes, sides)
def test_every_place_is_covered_by_the_same_fields_whatever_the_region(box, side):
    found = {tuple(corner) for corner in lattice(box, side).tolist()}
    assert len(found) == len(lattice(box, side))
    wide = Box(box.x - 40, box.y - 40, box.width + 80, box.height + 80)
    everywhere = lattice(wide, side).tolist()
    for px, py in {(box.x, box.y), (box.right - 1, box.bottom - 1), (box.x + box.width // 2, box.y)}:
        expected = {(x, y) for x, y in everywhere if x <= px < x + side and y <= py < y + side}
        assert expected
        assert expected <= found
    assert all(x < box.right and x + side > box.x and y < box.bottom and y + side > box.y for x, y in found)


@settings(deadline=None, max_examples=40)
@given(boxes, sides, st.integers(0, 10**6))
def test_stitching_weighs_every_field_by_its_window(box, side, seed):
    corners = lattice(box, side)
    maps = np.random.default_rng(seed).random((len(corners), side, side)).astype(np.float32)
    stitcher = Stitcher(box, side)
    for part in in_parts(np.arange(len(corners))[:, None], side, max_bytes=9 * side * side):
        stitcher.add(maps[part[:, 0]], corners[part[:, 0]])
    ramp = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total, weight = np.zeros((2, box.height + 2 * side, box.width + 2 * side))
    for values, (x, y) in zip(maps, corners - (box.x - side, box.y - side), strict=True):
        total[y : y + side, x : x + side] += values * np.outer(ramp, ramp)
        weight[y : y + side, x : x + side] += np.outer(ramp, ramp)
    inside = np.s_[side : side + box.height, side : side + box.width]
    np.testing.assert_allclose(stitcher.mean(), total[inside] / weight[inside], rtol=2e-4, atol=1e-5)


def test_equal_maps_have_no_seams_and_places_without_fields_are_nan():
    box = Box(10, 10, 120, 90)
    stitcher, corners = Stitcher(box, 50), lattice(box, 50)
    left = corners[corners[:, 0] < 60]
    stitcher.add(np.full((len(left), 50, 50), 3, np.float32), left)
    found = stitcher.mean()
    edge = left[:, 0].max() + 50 - box.x
    np.testing.assert_allclose(found[:, :edge], 3, rtol=1e-4)
    assert np.isnan(found[:, edge:]).all()


@settings(deadline=None, max_examples=40)
@given(boxes, sides, st.integers(0, 10**6))
def test_covered_counts_pixels(box, side, seed):
    rng = np.random.default_rng(seed)
    mask, corners = rng.random((box.height, box.width)) < 0.5, rng.integers(-90, 260, (20, 2))
    for (x, y), count in zip(corners, covered(corners, side, mask, box), strict=True):
        rows, cols = (
            slice(max(0, y - box.y), max(0, y - box.y + side)),
            slice(max(0, x - box.x), max(0, x - box.x + side)),
        )
        assert mask[rows, cols].sum() == count


def test_fields_are_cut_where_their_corners_are():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    corners = np.array([(0, 0), (50, 30), (7, 11)])
    for (x, y), field in zip(corners, cut(pixels, corners, 10), strict=True):
        np.testing.assert_array_equal(field, pixels[y : y + 10, x : x + 10])


@settings(deadline=None, max_examples=40)
@given(boxes, st.floats(0.3, 20), st.floats(0.3, 20))
def test_the_raster_s_box_holds_the_region_and_no_more(region, across, down):
    scale = Scale(across, down)
    box = raster_box(region, scale)
    assert box.x * across <= region.x + 1e-4 * across
    assert box.right * across >= region.right - 1e-4 * across
    assert (box.x + 1) * across > region.x - 1e-4 * across
    assert (box.right - 1) * across < region.right + 1e-4 * across


def test_the_most_probable_square_is_full_of_high_cells():
    grid = make_grid(60, 80, mpp=(4.0, 4.0), cell_um=200)
    rng = np.random.default_rng(0)
    probability = rng.random(grid.shape).astype(np.float32) * 0.3
    probability[20:26, 30:36] = 0.8
    probability[5:8, 5:8] = 1.0  # higher, but alone
    probability[:, 60:] = np.nan
    assert most_probable(probability, grid) == Box(30 * 50, 20 * 50, 300, 300)
    sums = {
        (row, col): np.nansum(probability[row : row + 6, col : col + 6])
        for row in range(grid.shape[0] - 5)
        for col in range(grid.shape[1] - 5)
    }
    assert max(sums, key=lambda place: sums[place]) == (20, 30)


def test_a_slide_smaller_than_the_square_is_taken_whole():
    grid = make_grid(3, 5, mpp=(4.0, 4.0), cell_um=200, origin=(7, 9), overhang=0.2)
    probability = np.full(grid.shape, 0.5, np.float32)
    assert most_probable(probability, grid) == Box(7, 9, 240, 140)
