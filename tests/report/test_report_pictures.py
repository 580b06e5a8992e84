"""Pictures fit the page, however many slides there are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from wsi_pipeline.render.page import area, duration
from wsi_pipeline.report import pictures
from wsi_pipeline.report.pictures import LADDER, PICTURE_BYTES, slide_pictures


@pytest.fixture
def folder(tmp_path):
    """A slide's folder whose pictures are noise, which JPEG cannot make small."""
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), np.uint8)
    for name in ("overlay.png", "tissue.png"):
        places = PngImagePlugin.PngInfo()
        found = {"picture": [100, 50, 1200, 800], "legend": [1300, 50, 100, 300], "um_per_px": 2.0}
        places.add_text("wsi-pipeline places", json.dumps(found))
        Image.fromarray(pixels).save(tmp_path / name, pnginfo=places)
    return tmp_path


def test_a_few_slides_are_shown_large_and_many_small(folder):
    few, many = slide_pictures(folder, 3), slide_pictures(folder, 100_000)
    assert (few.overlay.width, few.tissue.width) == (LADDER[0].large, LADDER[0].small)
    assert few.overlay.width / few.overlay.height == pytest.approx(1200 / 800, rel=0.01)
    assert many.overlay.width == LADDER[-1].large
    assert (few.legend.width, few.legend.height) == (100, 300)
    assert few.uncertainty is None


@pytest.mark.parametrize("slides", [1, 20, 100, 400, 700])
def test_all_pictures_of_a_page_keep_to_their_size(folder, slides):
    shown = slide_pictures(folder, slides)
    room = PICTURE_BYTES * 4 / 3 / slides
    assert shown.bytes <= room or shown.overlay.width == LADDER[-1].large
    sizes = [pictures._at({n: pictures._open(folder / n) for n in ("overlay.png", "tissue.png")}
                          | {"uncertainty.png": None}, rung).bytes for rung in LADDER]  # fmt: skip
    assert sizes == sorted(sizes, reverse=True)
    best = next((rung for rung, size in zip(LADDER, sizes, strict=True) if size <= room), LADDER[-1])
    assert shown.overlay.width == best.large


def test_a_picture_that_does_not_say_its_places_is_shown_whole(folder):
    Image.new("RGB", (300, 200)).save(folder / "overlay.png")
    shown = slide_pictures(folder, 1)
    assert (shown.overlay.width, shown.overlay.height, shown.overlay.bar) == (300, 200, None)
    assert shown.legend is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"picture": [1, 2]}', '{"picture": "x", "legend": null}'])
def test_odd_places_are_no_places(folder, text):
    places = PngImagePlugin.PngInfo()
    places.add_text("wsi-pipeline places", text)
    Image.new("RGB", (300, 200)).save(folder / "overlay.png", pnginfo=places)
    assert slide_pictures(folder, 1).overlay.width == 300


def test_a_tall_picture_is_shown_narrower(folder):
    Image.new("RGB", (100, 800)).save(folder / "overlay.png")
    shown = slide_pictures(folder, 1).overlay
    assert shown.share == 10.0  # then it is as high as 80 % of the room's width


@given(st.floats(0, 1e6))
def test_an_area_is_written_to_three_digits_and_never_as_a_power(value):
    text = area(value)
    assert "e" not in text
    if 0 < value < 0.0005:
        assert text == "<\N{NO-BREAK SPACE}0.001"
    else:
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006, abs=0.0005)
    assert area(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2\N{NO-BREAK SPACE}s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (None, "–")]
)
def test_a_time_is_written_for_people(seconds, text):
    assert duration(seconds) == text
