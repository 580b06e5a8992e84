import pytest
from helpers import slide_info
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.errors import ResolutionError
from wsi_pipeline.geometry import Box, FieldOfView, Mpp, Scale, Size

SIDE = st.integers(0, 500)
PLACE = st.integers(-500, 500)
BOXES = st.builds(Box, PLACE, PLACE, SIDE, SIDE)


@pytest.mark.parametrize("value", [0, -0.25, 0.049, 20.1, 896, float("nan"), float("inf")])
def test_nonsense_resolutions_are_refused_with_the_value_and_a_way_out(value):
    with pytest.raises(ResolutionError, match="µm/px") as caught:
        Mpp(value, 0.25)
    assert f"{value:g}" in str(caught.value)
    assert "--mpp" in caught.value.hint


@given(BOXES, BOXES)
def test_an_intersection_holds_the_pixels_that_both_boxes_hold(a, b):
    both = a.intersection(b)
    columns = set(range(a.x, a.right)) & set(range(b.x, b.right))
    rows = set(range(a.y, a.bottom)) & set(range(b.y, b.bottom))
    assert both.width * both.height == len(columns) * len(rows)
    if columns and rows:
        assert (both.x, both.y) == (min(columns), min(rows))


def test_sizes_and_scales_are_checked():
    with pytest.raises(ValueError, match="negative"):
        Size(-1, 3)
    with pytest.raises(ValueError, match="negative"):
        Box(0, 0, 1, -1)
    with pytest.raises(ValueError, match="positive"):
        Scale(0, 1)


def test_the_scale_to_a_resolution_keeps_each_axis():
    assert Scale.to_mpp(Mpp(0.25, 0.5), 4.0) == Scale(16, 8)
    assert FieldOfView(size_px=50, mpp=4.0).size_um == 200


@pytest.mark.parametrize(
    ("wanted", "level"), [(1, 0), (3.9, 0), (4, 1), (15.5, 1), (16, 2), (15.9, 2), (100, 2), (0.5, 0)]
)
def test_the_level_is_the_coarsest_that_has_every_pixel(wanted, level):
    assert slide_info(1000, 1000, downsamples=(1, 4, 16)).level_for(Scale(wanted, wanted)) == level


def test_a_missing_resolution_is_an_error_with_a_way_out():
    from dataclasses import replace

    with pytest.raises(ResolutionError, match=r"paper.tiff.*--mpp 0.25.*--mpp-csv"):
        replace(slide_info(10, 10), mpp=None).require_mpp()
