"""Tiles against the picture they are of: in register at every level, on slides with bounds and with damage."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiffs import break_tile, picture, write_pyramid

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.geometry import Box, Level, Mpp, Scale, Size, SlideInfo
from wsi_pipeline.slides.raster import RasterSlide
from wsi_pipeline.viewer import pool as pool_module
from wsi_pipeline.viewer import tiles as tiles_module
from wsi_pipeline.viewer.deepzoom import TILE, DeepZoom
from wsi_pipeline.viewer.pool import SlideFile, SlidePool, stamp_of
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.tiles import Tiles, encode

FILE = SlideFile(address="array", reader="auto", stamp="1")


class ArraySlide(RasterSlide):
    """A slide of one level in memory."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        size = Size(pixels.shape[1], pixels.shape[0])
        self.pixels = pixels
        self.info = SlideInfo(
            slide_id="array", path="array", size=size, mpp=Mpp(0.25, 0.25), mpp_source="file",
            levels=(Level(size, Scale(1, 1)),), bounds=Box(0, 0, size.width, size.height), vendor="test",
            reader="test", fingerprint="0" * 64,
        )  # fmt: skip

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        return self.pixels[box.y : box.bottom, box.x : box.right]

    def close(self) -> None:
        pass


@pytest.fixture
def pool() -> Iterator[SlidePool]:
    opened = SlidePool()
    yield opened
    opened.close()


def decode(jpeg: bytes) -> NDArray[np.float64]:
    with Image.open(BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        return np.asarray(image).astype(np.float64)


def level_of(tiles: Tiles, file: SlideFile, extent: Box, level: int) -> NDArray[np.float64]:
    """A whole level, put together from its tiles as OpenSeadragon does."""
    image = DeepZoom(extent.size)
    size = image.level_size(level)
    out = np.zeros((size.height, size.width, 3))
    for row in range(-(-size.height // TILE)):
        for col in range(-(-size.width // TILE)):
            pixels = decode(tiles.tile(file, extent, level, col, row))
            x, y = max(0, col * TILE - 1), max(0, row * TILE - 1)
            out[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return out


def test_every_level_is_the_slide_averaged(monkeypatch, pool):
    base = picture(1300, 700)
    monkeypatch.setattr(pool_module, "open_slide", lambda *_, **__: ArraySlide(base))
    tiles, extent = Tiles(pool, 1 << 20), Box(0, 0, 1300, 700)
    image = DeepZoom(extent.size)
    for level in range(image.max_level, 7, -1):
        factor = image.factor(level)
        height, width = 700 // factor, 1300 // factor
        whole = base[: height * factor, : width * factor].astype(np.float64)
        mean = whole.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
        expected = decode(encode(mean.round().astype(np.uint8)))  # JPEG is hard on waves of a few pixels
        assert np.abs(level_of(tiles, FILE, extent, level)[:height, :width] - expected).mean() < 1.5
    assert decode(tiles.tile(FILE, extent, 0, 0, 0)).shape == (1, 1, 3)


@pytest.mark.parametrize("overview_px", [64, 1024])
def test_a_slide_with_bounds_is_shown_cut_to_them(monkeypatch, pool, overview_px):
    monkeypatch.setattr(tiles_module, "OVERVIEW_PX", overview_px)
    base = picture(1300, 900)
    monkeypatch.setattr(pool_module, "open_slide", lambda *_, **__: ArraySlide(base))
    extent = Box(333, 201, 640, 512)
    tiles, image = Tiles(pool, 1 << 20), DeepZoom(extent.size)
    cut = base[extent.y : extent.bottom, extent.x : extent.right].astype(np.float64)
    assert np.abs(level_of(tiles, FILE, extent, image.max_level) - cut).mean() < 2
    mean = cut.reshape(64, 8, 80, 8, 3).mean(axis=(1, 3))
    # Half a pixel of the level at most.
    assert np.abs(level_of(tiles, FILE, extent, image.max_level - 3) - mean).mean() < 8


def test_a_tile_is_made_once_and_what_is_kept_is_bounded(monkeypatch, pool):
    base = picture(1300, 1300)
    reads = []

    class Reading(ArraySlide):
        def read(self, box, scale):
            reads.append(box)
            return super().read(box, scale)

    monkeypatch.setattr(pool_module, "open_slide", lambda *_, **__: Reading(base))
    tiles, extent = Tiles(pool, 60_000), Box(0, 0, 1300, 1300)
    first = tiles.tile(FILE, extent, 11, 1, 1)
    assert tiles.tile(FILE, extent, 11, 1, 1) == first
    assert len(reads) == 1
    level_of(tiles, FILE, extent, 11)
    assert 0 < tiles.kept_bytes <= 60_000
    before = len(reads)
    for level in range(9):
        level_of(tiles, FILE, extent, level)
    tiles.thumbnail(FILE, extent)
    assert len(reads) == before + 1, "the coarse levels come from one picture"


def test_damage_spoils_its_tile_and_not_the_small_picture(tmp_path, pool):
    path = write_pyramid(tmp_path / "a.tiff", base=picture(1400, 1100), factors=(1,))
    break_tile(path, 0)
    file = SlideFile(address=str(path), reader="auto", stamp=stamp_of(str(path)))
    tiles, extent = Tiles(pool, 1 << 20), Box(0, 0, 1400, 1100)
    with pytest.raises(SlideReadError):
        tiles.tile(file, extent, 11, 0, 0)
    assert decode(tiles.tile(file, extent, 11, 3, 2)).shape == (256, 256, 3)
    small = decode(tiles.thumbnail(file, extent))
    base = picture(1400, 1100)[::3, ::3].astype(np.float64)
    assert max(small.shape) == 512
    assert np.abs(small[-100:, -100:].mean(axis=(0, 1)) - base[-91:, -91:].mean(axis=(0, 1))).max() < 6


@pytest.mark.parametrize("place", [(12, 0, 0), (11, 6, 0), (11, 0, 6), (0, 1, 0), (-1, 0, 0)])
def test_there_are_no_other_tiles(pool, place):
    with pytest.raises(RequestError) as refused:
        Tiles(pool, 1 << 20).tile(FILE, Box(0, 0, 1300, 1300), *place)
    assert refused.value.status == 404
