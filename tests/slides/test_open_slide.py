from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiffs import break_tile, picture, write_pyramid

from wsi_pipeline.errors import ResolutionError, SlideFormatError, SlideNotFoundError, SlideReadError, WsiPipelineError
from wsi_pipeline.geometry import Box, Scale
from wsi_pipeline.slides import open_slide


def test_the_reader_is_picked_by_content(tmp_path: Path) -> None:
    for name, options, reader, vendor in [
        ("a.svs", {"aperio": True}, "tiff", "aperio"),
        ("aperio.bin", {"aperio": True}, "tiff", "aperio"),
        ("tiled.dat", {}, "tiff", "generic-tiff"),
        # JPEG 2000 in YCbCr, which is OpenSlide's.
        ("ycc.svs", {"aperio": True, "retag": 33003}, "openslide", "aperio"),
        (
            "strips.svs",
            {"tile": None, "rowsperstrip": 16, "compression": None, "compressionargs": {}},
            "tiff",
            "generic-tiff",
        ),
    ]:
        retag = options.pop("retag", None)
        path = write_pyramid(tmp_path / name, **options)
        if retag:
            with tifffile.TiffFile(path, mode="r+b") as tiff:
                for page in tiff.pages:
                    page.tags["Compression"].overwrite(retag)
        with open_slide(path) as slide:
            assert (slide.info.reader, slide.info.vendor) == (reader, vendor), name
            assert len(slide.info.levels) == 3
            assert slide.info.mpp.x == pytest.approx(0.25)


@pytest.mark.parametrize("reader", ["openslide", "tiff"])
def test_a_reader_can_be_insisted_on(tmp_path: Path, reader: str) -> None:
    with open_slide(write_pyramid(tmp_path / "a.svs", aperio=True), reader=reader) as slide:
        assert slide.info.reader == reader


def test_both_readers_give_one_fingerprint(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.svs", aperio=True)
    with open_slide(path, reader="tiff") as one, open_slide(path, reader="openslide") as two:
        assert one.info.fingerprint == two.info.fingerprint


def test_a_multi_page_pyramid_has_all_its_levels(tmp_path: Path) -> None:
    """OpenSlide sees one level where the pages are not marked as reductions."""
    path = write_pyramid(tmp_path / "pages.tif", factors=(1, 2, 4, 8), reduced=False)
    with open_slide(path, reader="openslide") as slide:
        assert len(slide.info.levels) == 1
    with open_slide(path) as slide:
        assert [level.scale.x for level in slide.info.levels] == [1, 2, 4, 8]
        assert slide.info.reader == "tiff"


def test_ome_levels_in_sub_directories(tmp_path: Path) -> None:
    path = tmp_path / "x.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
        writer.write(picture(), subifds=1, metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options)
        writer.write(picture()[::2, ::2], subfiletype=1, **options)
    with open_slide(path) as slide:
        assert slide.info.slide_id == "x"
        assert len(slide.info.levels) == 2
        assert slide.info.mpp.x == 0.5


def test_the_users_resolution_wins(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.tif", mpp=896)
    with open_slide(path) as slide:
        assert slide.info.mpp is None
        assert "896" in slide.info.warnings[0]
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.info.mpp.x, slide.info.mpp.y, slide.info.mpp_source) == (0.5, 0.5, "user")
    for nonsense in (0.0, -1.0, float("nan"), 896.0):
        with pytest.raises(ResolutionError, match=r"s\.tif"):
            open_slide(path, mpp=nonsense)


def one_line(error: WsiPipelineError, path: Path) -> None:
    assert str(path) in str(error)
    assert "\n" not in str(error)
    assert error.hint


@pytest.mark.parametrize("reader", ["auto", "openslide", "tiff"])
def test_files_that_are_no_slides(tmp_path: Path, reader: str) -> None:
    noise = np.random.default_rng(3).integers(0, 256, 5000).astype(np.uint8).tobytes()
    whole = write_pyramid(tmp_path / "whole.svs", aperio=True).read_bytes()
    contents = {
        "empty": b"", "noise": noise, "tiff noise": b"II*\0" + noise, "bigtiff noise": b"II+\0\x08\0\0\0" + noise,
        "stub": whole[:60], "text": b"hello", "page": b"<!DOCTYPE html>", "dicom": b"\0" * 128 + b"DICM" + noise,
    }  # fmt: skip
    for name, content in contents.items():
        path = tmp_path / f"{name}.svs"
        path.write_bytes(content)
        with pytest.raises(SlideFormatError) as caught:
            open_slide(path, reader=reader)
        one_line(caught.value, path)


def test_a_jpeg_called_svs(tmp_path: Path) -> None:
    path = tmp_path / "photo.svs"
    Image.fromarray(picture()).save(path, format="JPEG")
    with pytest.raises(SlideFormatError, match="JPEG picture") as caught:
        open_slide(path)
    one_line(caught.value, path)


@pytest.mark.parametrize("reader", ["auto", "openslide", "tiff", "kaggle"])
def test_a_missing_file(tmp_path: Path, reader: str) -> None:
    if reader == "kaggle":
        pytest.importorskip("wsi_pipeline.slides.patch_slide")
    with pytest.raises(SlideNotFoundError, match="does not exist") as caught:
        open_slide(tmp_path / "no.svs", reader=reader)
    one_line(caught.value, tmp_path / "no.svs")


def read_all(path: Path) -> None:
    with open_slide(path) as slide:
        for level in slide.info.levels:
            slide.read(Box(0, 0, level.size.width, level.size.height), level.scale)


@pytest.mark.parametrize("aperio", [True, False])
def test_a_truncated_slide_says_so(tmp_path: Path, aperio: bool) -> None:
    """Wherever the file ends, there is one clear error, on opening or on reading."""
    whole = write_pyramid(tmp_path / "whole.svs", aperio=aperio).read_bytes()
    path = tmp_path / "cut.svs"
    for part in (0.02, 0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises((SlideFormatError, SlideReadError)) as caught:
            read_all(path)
        one_line(caught.value, path)


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("wsi_pipeline.slides.patch_slide")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(WsiPipelineError) as caught:
        open_slide(tmp_path)
    one_line(caught.value, tmp_path)


def test_a_zip_without_patches(tmp_path: Path) -> None:
    pytest.importorskip("wsi_pipeline.slides.patch_slide")
    from zipfile import ZipFile

    path = tmp_path / "other.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("readme.md", "x")
    with pytest.raises(WsiPipelineError) as caught:
        open_slide(path)
    one_line(caught.value, path)


def test_a_corrupt_tile_in_the_middle(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "broken.svs", aperio=True)
    break_tile(path, 8)
    with open_slide(path) as slide:
        with pytest.raises(SlideReadError) as caught:
            slide.read(Box(300, 200, 10, 10), Scale(1, 1))
        one_line(caught.value, path)
        assert slide.read(Box(0, 0, 10, 10), Scale(1, 1)).std() > 0
        assert not slide.thumbnail(100).unreadable.any(), "its coarser levels are whole"
