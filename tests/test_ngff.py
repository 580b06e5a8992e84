"""The metadata and the levels, as plain numbers."""

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsi_pipeline import ngff
from wsi_pipeline.geometry import Box, FieldOfView, Mpp
from wsi_pipeline.grid import Grid


def grid(mpp: Mpp, extent: Box, cell_um: float = 12.5) -> Grid:
    return Grid(
        mpp=mpp,
        view=FieldOfView(size_px=50, mpp=4.0),
        cell_um=cell_um,
        extent=extent,
        block_side=64,
        cells=np.empty((0, 2), np.int32),
    )


def transforms(of: Grid, level: int) -> tuple[list[float], list[float]]:
    """(scale, translation) of a level, each (c, y, x)."""
    multiscale = ngff.image_attributes("0.5", "s", of, [ngff.Channel(label="a")])["ome"]["multiscales"][0]
    scale, translation = multiscale["datasets"][level]["coordinateTransformations"]
    return scale["scale"], translation["translation"]


def test_the_first_cell_of_a_plain_40x_slide_stands_at_the_centre_of_its_50_pixels() -> None:
    scale, translation = transforms(grid(Mpp(0.25, 0.25), Box(0, 0, 5000, 5000)), 0)
    assert scale == [1, 12.5, 12.5]
    assert translation == [0, 6.125, 6.125]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_pixel_stands_at_the_mean_position_of_the_slide_pixels_it_is_made_of(level: int) -> None:
    of = grid(Mpp(0.25, 0.5), Box(1000, 2000, 40_000, 20_000))
    scale, translation = transforms(of, level)
    row, col, factor = 7, 11, 2**level
    rows, cols = of.row_edges[row * factor :: factor][:2], of.col_edges[col * factor :: factor][:2]
    y_um, x_um = np.arange(*rows).mean() * 0.5, np.arange(*cols).mean() * 0.25
    assert row * scale[1] + translation[1] == pytest.approx(y_um)
    assert col * scale[2] + translation[2] == pytest.approx(x_um)


def test_levels_go_down_to_256() -> None:
    assert ngff.level_shapes((256, 3)) == [(256, 3)]
    assert ngff.level_shapes((1, 1)) == [(1, 1)]
    assert ngff.level_shapes((1025, 300)) == [(1025, 300), (513, 150), (257, 75), (129, 38)]


maps = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(0, 1, width=32) | st.just(float("nan")),
)


@given(maps)
def test_halving_is_the_mean_of_the_known(values: np.ndarray) -> None:
    halved = ngff.halve_mean(values)
    assert halved.dtype == np.float32
    assert halved.shape == ((values.shape[0] + 1) // 2, (values.shape[1] + 1) // 2)
    for row, col in np.ndindex(halved.shape):
        square = values[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
        known = square[~np.isnan(square)]
        expected = known.astype(np.float64).mean() if known.size else np.nan
        np.testing.assert_allclose(halved[row, col], expected, rtol=1e-5, atol=1e-30)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 255])))
def test_a_halved_label_keeps_what_is_highest(label: np.ndarray) -> None:
    halved = ngff.halve_max(label)
    assert halved.dtype == np.uint8
    for row, col in np.ndindex(halved.shape):
        assert halved[row, col] == label[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].max()


def test_the_ome_xml_carries_the_pixel_size_and_the_channels() -> None:
    shown = ngff.map_channels(["non-IDC", "IDC"], "IDC", spread=False, unrefined=False)
    text = ngff.ome_xml("a <b> & ü", grid(Mpp(0.25, 0.25), Box(0, 0, 500, 1000)), shown)
    space = {"o": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
    root = ET.fromstring(text)
    image, pixels = root.find("o:Image", space), root.find("o:Image/o:Pixels", space)
    assert image is not None
    assert pixels is not None
    assert image.get("Name") == "a <b> & ü"
    assert [pixels.get(f"Size{axis}") for axis in "XYCTZ"] == ["10", "20", "2", "1", "1"]
    assert pixels.get("PhysicalSizeX") == pixels.get("PhysicalSizeY") == "12.5"
    assert pixels.get("PhysicalSizeXUnit") == "µm"
    channels = pixels.findall("o:Channel", space)
    assert [channel.get("Name") for channel in channels] == ["p(non-IDC)", "p(IDC)"]
    assert channels[1].get("Color") == str(0xFF0000FF - 2**32)


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("unrefined", [False, True])
@pytest.mark.parametrize("positive", ["a", "b", "c"])
def test_channels_are_the_classes_then_the_layers_and_one_is_shown(
    *, spread: bool, unrefined: bool, positive: str
) -> None:
    channels = ngff.map_channels(["a", "b", "c"], positive, spread=spread, unrefined=unrefined)
    layers = [f"spread of p({positive})"] * spread + [f"p({positive}) before context"] * unrefined
    assert [channel.label for channel in channels] == ["p(a)", "p(b)", "p(c)", *layers]
    assert [channel.label for channel in channels if channel.active] == [f"p({positive})"]
    of = grid(Mpp(0.25, 0.25), Box(0, 0, 500, 500))
    written = ngff.image_attributes("0.4", "s", of, channels)["omero"]["channels"]
    assert [channel["window"]["end"] for channel in written] == [1] * 3 + [0.2] * spread + [1] * unrefined
