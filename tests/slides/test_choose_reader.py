"""Where the fast reader is taken, and that it sees what OpenSlide sees."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conformance import off_by
from encoded_tiffs import (
    YCBCR_422,
    jpeg,
    jpeg_2000,
    jpeg_2000_ycbcr,
    jpeg_rgb,
    textured,
    write_encoded,
    write_philips,
)  # fmt: skip
from tiffs import break_tile, write_pyramid

from wsi_pipeline.geometry import Box, Scale
from wsi_pipeline.slides import Slide, open_slide

RGB = 2
JPEG = {"compression": "jpeg", "photometric": "ycbcr"}


def all_levels(slide: Slide) -> list[np.ndarray]:
    return [slide.read_level(n, Box(0, 0, *level_size(slide, n))) for n in range(len(slide.info.levels))]


def level_size(slide: Slide, level: int) -> tuple[int, int]:
    size = slide.info.levels[level].size
    return size.width, size.height


def assert_readers_agree(path: Path, *, tolerance: int = 2, chosen: str = "tiff") -> None:
    """Both readers see the same slide, with the same pixels in every level, and `chosen` is taken."""
    with open_slide(path, reader="openslide") as one, open_slide(path, reader="tiff") as two:
        assert replace(one.info, reader="") == replace(two.info, reader="")
        for there, here in zip(all_levels(one), all_levels(two), strict=True):
            assert here.std() > 5
            assert off_by(here, there) <= tolerance
    with open_slide(path) as slide:
        assert slide.info.reader == chosen


@pytest.mark.parametrize("aperio", [True, False], ids=["svs", "tiff"])
@pytest.mark.parametrize("shared_tables", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["444", "422", "420"])
def test_jpeg_in_ycbcr(tmp_path: Path, aperio: bool, shared_tables: bool, subsampling: int) -> None:
    across, down = ((1, 1), (2, 1), (2, 2))[subsampling]
    path = write_encoded(
        tmp_path / "s.tif", jpeg(subsampling), aperio=aperio, shared_tables=shared_tables,
        subsampling=(across, down), **JPEG,
    )  # fmt: skip
    assert_readers_agree(path)


@pytest.mark.parametrize("aperio", [True, False], ids=["svs", "tiff"])
@pytest.mark.parametrize("shared_tables", [True, False], ids=["shared", "own"])
def test_jpeg_in_rgb(tmp_path: Path, aperio: bool, shared_tables: bool) -> None:
    path = write_encoded(
        tmp_path / "s.tif", jpeg_rgb, aperio=aperio, shared_tables=shared_tables, retag=RGB, **JPEG
    )  # fmt: skip
    assert_readers_agree(path)
    with open_slide(path) as slide:
        assert np.abs(slide.read(Box(0, 0, 700, 530), Scale(1, 1)).astype(int) - textured()).mean() < 8


@pytest.mark.parametrize("tile", [16, 240, 256, 512, 1024])
def test_sizes_of_tiles(tmp_path: Path, tile: int) -> None:
    assert_readers_agree(write_encoded(tmp_path / "s.svs", jpeg(1), tile=tile, aperio=True, **YCBCR_422))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "deflate", "zstd", "packbits"])
@pytest.mark.parametrize("options", [{}, {"predictor": True}, {"bigtiff": True}], ids=str)
def test_lossless_compressions(tmp_path: Path, compression: str | None, options: dict[str, Any]) -> None:
    if compression in (None, "packbits") and "predictor" in options:
        pytest.skip("takes no predictor")
    bigtiff = options.get("bigtiff", False)
    options = {key: value for key, value in options.items() if key != "bigtiff"}
    base = textured()
    with tifffile.TiffWriter(tmp_path / "s.tif", bigtiff=bigtiff) as writer:
        for factor in (1, 2):
            level = base[::factor, ::factor]
            writer.write(
                level, tile=(64, 128), photometric="rgb", compression=compression, subfiletype=int(factor > 1),
                metadata=None, resolution=(39572.6, 39572.6), resolutionunit="CENTIMETER", **options,
            )  # fmt: skip
    assert_readers_agree(tmp_path / "s.tif", tolerance=0)


def test_jpeg_2000(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "rgb.svs", jpeg_2000, aperio=True, compression=33005, photometric="rgb")
    assert_readers_agree(path)
    # Colours may be stored at half resolution there.
    path = write_encoded(tmp_path / "ycc.svs", jpeg_2000_ycbcr, aperio=True, compression=33003, photometric="rgb")
    assert_readers_agree(path, chosen="openslide")


@pytest.mark.parametrize("compression", ["jpeg", "zlib", None])
def test_grey(tmp_path: Path, compression: str | None) -> None:
    grey = textured()[..., 1]
    tifffile.imwrite(
        tmp_path / "s.tif", grey, photometric="minisblack", compression=compression, tile=(64, 64), metadata=None
    )
    assert_readers_agree(tmp_path / "s.tif")


def test_channels_stored_apart(tmp_path: Path) -> None:
    planes = np.moveaxis(textured(), 2, 0).copy()
    tifffile.imwrite(
        tmp_path / "s.tif", planes, photometric="rgb", planarconfig="separate", compression="zlib", tile=(64, 64),
        metadata=None,
    )  # fmt: skip
    assert_readers_agree(tmp_path / "s.tif", tolerance=0)


@pytest.mark.parametrize("missing", [(), ((0, 2), (0, 3), (1, 0))], ids=["whole", "sparse"])
@pytest.mark.parametrize(("width", "height"), [(512, 384), (700, 530)])
def test_philips(tmp_path: Path, width: int, height: int, missing: tuple[tuple[int, int], ...]) -> None:
    path = write_philips(tmp_path / "s.tiff", textured(width, height), missing)
    assert_readers_agree(path)
    with open_slide(path) as slide:
        assert (slide.info.vendor, len(slide.info.levels)) == ("philips", 3)
        assert slide.info.mpp.x == pytest.approx(0.227 * 1.01)
        assert slide.info.mpp.y == pytest.approx(0.227)


def test_tiles_left_out_of_a_plain_tiff(tmp_path: Path) -> None:
    missing = [(0, 2), (0, 3), (1, 0)]
    path = write_encoded(tmp_path / "s.tif", jpeg(1), missing=missing, **YCBCR_422)
    assert_readers_agree(path)
    with open_slide(path) as slide:
        assert slide.read(Box(256, 0, 256, 128), Scale(1, 1)).min() == 255


def test_tiles_left_out_of_an_aperio_pyramid_are_drawn_from_finer_ones(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "s.svs", jpeg(1), aperio=True, missing=[(1, 0)], **YCBCR_422)
    with open_slide(path) as slide:
        assert slide.info.reader == "openslide"
        assert slide.read_level(1, Box(10, 10, 90, 90)).std() > 5
    path = write_encoded(tmp_path / "one.svs", jpeg(1), aperio=True, factors=(1,), missing=[(0, 3)], **YCBCR_422)
    assert_readers_agree(path)


def test_a_whole_svs_with_thumbnail_label_and_macro(tmp_path: Path) -> None:
    from tiffs import APERIO

    base, options = textured(), {"metadata": None, "software": False, "photometric": "rgb", "compression": "lzw"}
    strips = {"rowsperstrip": 16, **options}
    with tifffile.TiffWriter(tmp_path / "s.svs") as writer:
        writer.write(base, tile=(128, 128), description=APERIO, **options)
        writer.write(base[::5, ::5], description=APERIO, **strips)
        writer.write(base[::2, ::2], tile=(128, 128), description=APERIO, **options)
        writer.write(base[::4, ::4], tile=(128, 128), description=APERIO, **options)
        writer.write(base[::6, ::6], subfiletype=1, description="Aperio\r\nlabel 1x1", **strips)
        writer.write(base[::7, ::7], subfiletype=9, description="Aperio\r\nmacro 1x1", **strips)
    assert_readers_agree(tmp_path / "s.svs", tolerance=0)
    with open_slide(tmp_path / "s.svs") as slide:
        assert [level.scale.x for level in slide.info.levels] == [1, 2, 4]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (textured().astype(np.uint16) * 200, {"photometric": "rgb"}),
        (
            np.dstack([textured(), np.full((530, 700), 90, np.uint8)]),
            {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        ),
        (textured()[..., 0], {"photometric": "miniswhite"}),
        (textured(), {"photometric": "rgb", "extratags": [(274, 3, 1, 3, True)]}),
    ],
    ids=["16 bits", "alpha", "white is zero", "turned round"],
)
def test_what_the_two_see_differently_is_left_to_openslide(
    tmp_path: Path, data: np.ndarray, options: dict[str, Any]
) -> None:
    tifffile.imwrite(tmp_path / "s.tif", data, tile=(64, 64), compression="zlib", metadata=None, **options)
    with open_slide(tmp_path / "s.tif") as slide:
        assert slide.info.reader == "openslide"


def test_a_colour_space_that_the_tag_denies_is_left_to_openslide(tmp_path: Path) -> None:
    """The bytes say YCbCr, the tag says RGB: tifffile believes the bytes, OpenSlide the tag."""
    path = write_encoded(tmp_path / "s.svs", jpeg(2), aperio=True, retag=RGB, subsampling=(2, 2), **JPEG)
    with open_slide(path) as slide:
        assert slide.info.reader == "openslide"


@pytest.mark.parametrize("compression", ["webp", "lzma", 34712])
def test_what_openslide_cannot_decode_is_read_with_tifffile(tmp_path: Path, compression: str | int) -> None:
    encode = jpeg_2000 if compression == 34712 else None
    path = write_encoded(tmp_path / "s.tif", encode, compression=compression, photometric="rgb")
    with open_slide(path) as slide:
        assert slide.info.reader == "tiff"
        assert np.abs(slide.read(Box(0, 0, 700, 530), Scale(1, 1)).astype(int) - textured()).mean() < 8


def test_a_slide_whose_fullest_tile_is_damaged_opens(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.svs", aperio=True, factors=(1,))
    with tifffile.TiffFile(path) as tiff:
        fullest = int(np.argmax(tiff.pages.first.databytecounts))
    break_tile(path, fullest)
    with open_slide(path) as slide:
        assert slide.info.reader == "tiff"
        assert slide.thumbnail(175).unreadable.any()
