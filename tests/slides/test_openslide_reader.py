import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conformance import SlideConformance, off_by
from tiffs import HEIGHT, TILE, WIDTH, break_tile, picture, write_pyramid

from wsi_pipeline.errors import ResolutionError, SlideFormatError, SlideNotFoundError, SlideReadError
from wsi_pipeline.geometry import Box, Scale, Size
from wsi_pipeline.slides.openslide_reader import OpenSlideReader, _band_rows, _bounds, _other_parts

FULL = Scale(1, 1)


class TestAperio(SlideConformance):
    tolerance = 5  # JPEG

    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[OpenSlideReader]:
        with OpenSlideReader(write_pyramid(tmp_path / "slide ü.svs", aperio=True)) as slide:
            assert slide.info.vendor == "aperio"
            assert len(slide.info.levels) == 3
            yield slide

    @pytest.fixture
    def level0(self):
        return picture()


class TestFractionalLevels(SlideConformance):
    """Levels whose downsample is no whole number: OpenSlide interpolates there."""

    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[OpenSlideReader]:
        noise = np.random.default_rng(1).integers(0, 255, (999, 1201, 3)).astype(np.uint8)
        path = write_pyramid(tmp_path / "odd.tif", base=noise, factors=(1, 2, 4), compression="lzw", compressionargs={})
        with OpenSlideReader(path) as slide:
            assert [level.scale.x for level in slide.info.levels] == [1, 2, 4]
            assert not float(slide._downsamples[1]).is_integer()
            yield slide


def test_one_corrupt_tile_costs_only_itself(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "broken.svs", aperio=True, factors=(1,))
    break_tile(path, 8)  # the third tile of the second row
    with OpenSlideReader(path) as slide:
        on_it = Box(2 * TILE + 10, TILE + 10, 20, 20)
        elsewhere = Box(10, 10, 100, 100)
        before = slide.read(elsewhere, FULL)
        for _ in range(2):
            with pytest.raises(SlideReadError, match=r"broken\.svs.*20 x 20 px at \(266, 138\)"):
                slide.read(on_it, FULL)
            assert off_by(slide.read(elsewhere, FULL), before) == 0


def test_the_thumbnail_marks_what_cannot_be_read(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "broken.svs", base=picture(1400, 1060), aperio=True, factors=(1,))
    break_tile(path, 24)  # row 2, column 2 of eleven
    with OpenSlideReader(path) as slide:
        thumbnail = slide.thumbnail(350)
    assert thumbnail.unreadable[64 + 16, 64 + 16]
    assert 0 < thumbnail.unreadable.mean() < 0.12
    assert (thumbnail.pixels[thumbnail.unreadable] == 255).all()
    assert (thumbnail.pixels[~thumbnail.unreadable] < 255).any(axis=1).all()


def test_pixels_that_are_not_there_are_white(tmp_path: Path) -> None:
    import tifffile

    tiles = iter([np.full((TILE, TILE, 3), 100, np.uint8), None, None, np.full((TILE, TILE, 3), 50, np.uint8)])
    tifffile.imwrite(
        tmp_path / "sparse.tif", tiles, shape=(256, 256, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
        compression="zlib", metadata=None,
    )  # fmt: skip
    with OpenSlideReader(tmp_path / "sparse.tif") as slide:
        pixels = slide.read(Box(0, 0, 256, 256), FULL)
    assert pixels[10, 10].tolist() == [100] * 3
    assert pixels[200, 200].tolist() == [50] * 3
    assert pixels[10, 200].tolist() == pixels[200, 10].tolist() == [255] * 3


def test_missing_resolution_is_none_and_the_users_is_taken(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.tif", mpp=None)
    with OpenSlideReader(path) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (None, "missing")
        with pytest.raises(ResolutionError, match="--mpp"):
            slide.info.require_mpp()
    with pytest.raises(ResolutionError, match=r"s\.tif: 90 µm/px"):
        OpenSlideReader(path, mpp=90)


def test_nonsense_resolution_is_a_warning(tmp_path: Path) -> None:
    with OpenSlideReader(write_pyramid(tmp_path / "s.tif", mpp=896)) as slide:
        assert slide.info.mpp is None
        assert "896 µm/px" in slide.info.warnings[0]


def test_fingerprint_tells_content_and_not_place(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif")
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copyfile(path, tmp_path / "elsewhere" / "b.tif")
    with OpenSlideReader(path) as one, OpenSlideReader(copy) as two:
        assert one.info.fingerprint == two.info.fingerprint
    break_tile(copy, 3)
    with OpenSlideReader(copy) as two:
        assert one.info.fingerprint != two.info.fingerprint


def test_bounds_are_kept_within_the_slide() -> None:
    def properties(x: str, y: str, width: str, height: str) -> dict[str, str]:
        return {
            f"openslide.bounds-{k}": v
            for k, v in zip(("x", "y", "width", "height"), (x, y, width, height), strict=True)
        }

    size, warnings = Size(1000, 800), []
    assert _bounds(properties("100", "50", "600", "700"), size, warnings) == Box(100, 50, 600, 700)
    assert _bounds(properties("100", "50", "6000", "7000"), size, warnings) == Box(100, 50, 900, 750)
    assert _bounds({}, size, warnings) == Box(0, 0, 1000, 800)
    assert not warnings
    assert _bounds(properties("5000", "0", "10", "10"), size, warnings) == Box(0, 0, 1000, 800)
    assert _bounds(properties("a", "0", "10", "10"), size, warnings) == Box(0, 0, 1000, 800)
    assert len(warnings) == 2


@pytest.mark.parametrize(("tile", "rows"), [("128", 256), ("240", 480), ("256", 256), ("700", 700), ("5000", 1024)])
def test_bands_are_whole_tiles(tile: str, rows: int) -> None:
    assert _band_rows({"openslide.level[1].tile-height": tile}, 1) == rows
    assert _band_rows({"openslide.level[1].tile-height": tile}, 0) == 256


def test_the_data_files_of_mrxs_count(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "Data0000.dat").write_bytes(b"12345")
    one = _other_parts(tmp_path / "s.mrxs", {})
    (folder / "Data0000.dat").write_bytes(b"1234567")
    assert one != _other_parts(tmp_path / "s.mrxs", {})


def test_a_missing_file_and_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(SlideNotFoundError, match="does not exist"):
        OpenSlideReader(tmp_path / "no.svs")
    (tmp_path / "text.svs").write_text("not a slide")
    with pytest.raises(SlideFormatError, match=r"text\.svs"):
        OpenSlideReader(tmp_path / "text.svs")


def test_size(tmp_path: Path) -> None:
    with OpenSlideReader(write_pyramid(tmp_path / "s.tif")) as slide:
        assert slide.info.size == Size(WIDTH, HEIGHT)
        assert (slide.info.mpp.x, slide.info.mpp_source) == (pytest.approx(0.25), "file")
