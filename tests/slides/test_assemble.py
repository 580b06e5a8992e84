from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
from patches import HEIGHT, WIDTH, case_files, name, picture, small_case, write_folder, write_zip

from wsi_pipeline import files
from wsi_pipeline.errors import OutputError, SlideReadError
from wsi_pipeline.geometry import Box, Mpp, Scale, Size
from wsi_pipeline.slides import assemble, open_slide
from wsi_pipeline.slides.assemble import assemble_case
from wsi_pipeline.slides.patch_slide import PatchSlide


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "case.zip", case_files())


@pytest.fixture
def written(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(assemble, "COARSEST_PX", 150)
    return assemble_case(case, tmp_path / "neu er Ordner")


def test_names_and_nothing_else(written: tuple[Path, Path]) -> None:
    folder = written[0].parent
    assert folder.name == "neu er Ordner"
    assert written == (folder / "8863.ome.tif", folder / "8863.labels.ome.tif")
    assert sorted(folder.iterdir()) == sorted(written)


def test_openslide_sees_the_pyramid_and_the_same_pixels(written: tuple[Path, Path], case: Path) -> None:
    with openslide.OpenSlide(written[0]) as slide:
        assert slide.level_dimensions == ((WIDTH, HEIGHT), (265, 200), (132, 100))
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == 4.0
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == 4.0
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
        np.testing.assert_array_equal(pixels[..., :3], picture())
        assert pixels[..., 3].min() == 255
        coarse = np.asarray(slide.read_region((0, 0), 2, (132, 100)))[..., :3]
    with PatchSlide(case) as source:
        np.testing.assert_array_equal(coarse, source.read(Box(0, 0, 132, 100), Scale(4, 4)))


def test_tifffile_sees_one_picture_with_levels(written: tuple[Path, Path]) -> None:
    for path, samples in zip(written, ((3,), ()), strict=True):
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_ome
            assert len(tiff.series) == 1
            sizes = [level.shape for level in tiff.series[0].levels]
            assert sizes == [(HEIGHT, WIDTH, *samples), (200, 265, *samples), (100, 132, *samples)]
            assert all(level.keyframe.is_tiled for level in tiff.series[0].levels)
    np.testing.assert_array_equal(tifffile.imread(written[0]), picture())


def test_subifds_and_pages_are_the_same_levels(written: tuple[Path, Path]) -> None:
    for path in written:
        with tifffile.TiffFile(path) as tiff:
            first, *others = tiff.pages
            assert tuple(page.offset for page in others) == first.subifds
            assert len(others) == 2
            assert [page.tags["NewSubfileType"].value for page in tiff.pages] == [0, 1, 1]
            assert [page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] for page in tiff.pages] == [
                2500, 1250, 625,
            ]  # fmt: skip


def test_the_mask_has_the_labels_in_the_same_frame(written: tuple[Path, Path], case: Path) -> None:
    with PatchSlide(case) as source:
        expected = source.label_pixels(source.info.bounds)
    with tifffile.TiffFile(written[1]) as tiff:
        mask = tiff.asarray()
        np.testing.assert_array_equal(mask, expected)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(tiff.series[0].levels[1].asarray(), expected[:400:2, :530:2])
    with openslide.OpenSlide(written[1]) as slide:
        assert slide.level_count == 3
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == 4.0
        np.testing.assert_array_equal(np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., 0], expected)


def test_ome_xml_tells_size_and_resolution(written: tuple[Path, Path]) -> None:
    identities = set()
    for path, samples in zip(written, "31", strict=True):
        with tifffile.TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata)
        identities.add(root.attrib["UUID"])
        pixels = root.find(".//{*}Pixels")
        assert pixels is not None
        sizes = {key: pixels.attrib[key] for key in ("SizeX", "SizeY", "SizeC", "PhysicalSizeX", "PhysicalSizeY")}
        assert sizes == {
            "SizeX": str(WIDTH), "SizeY": str(HEIGHT), "SizeC": samples, "PhysicalSizeX": "4", "PhysicalSizeY": "4",
        }  # fmt: skip
        assert pixels.attrib["PhysicalSizeXUnit"] == "µm"
    assert len(identities) == 2


def test_our_own_readers_open_it(written: tuple[Path, Path], case: Path) -> None:
    with PatchSlide(case) as source:
        box, scale = Box(-3, 10, 60, 50), Scale(3.3, 3.3)
        expected = source.read(box, scale)
    for reader in ("auto", "openslide", "tiff"):
        with open_slide(written[0], reader=reader) as slide:
            assert slide.info.size == Size(WIDTH, HEIGHT)
            assert slide.info.mpp == Mpp(4, 4)
            assert slide.info.slide_id == "8863"
            np.testing.assert_array_equal(slide.read(slide.info.bounds, Scale(1, 1)), picture())
            assert np.abs(slide.read(box, scale).astype(int) - expected).mean() < 2


def test_the_same_case_gives_the_same_bytes(written: tuple[Path, Path], tmp_path: Path) -> None:
    again = assemble_case(write_folder(tmp_path / "folder", case_files()), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_a_small_case_has_one_level(tmp_path: Path) -> None:
    picture_path, labels = assemble_case(write_zip(tmp_path / "case.zip", small_case()), tmp_path)
    with openslide.OpenSlide(picture_path) as slide:
        assert slide.level_dimensions == ((150, 50),)
    assert tifffile.imread(labels)[0, ::50].tolist() == [0, 1, 0]


def test_nothing_is_overwritten_unasked(case: Path, tmp_path: Path) -> None:
    (tmp_path / "8863.labels.ome.tif").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"8863\.labels\.ome\.tif: is there already"):
        assemble_case(case, tmp_path)
    assert not (tmp_path / "8863.ome.tif").exists()
    assert (tmp_path / "8863.labels.ome.tif").read_bytes() == b"mine"
    assemble_case(case, tmp_path, overwrite=True)
    assert tifffile.imread(tmp_path / "8863.labels.ome.tif").shape == (HEIGHT, WIDTH)


def test_a_broken_patch_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "case.zip", case_files() | {name(6, 3, 1): b"garbage"})
    with pytest.raises(SlideReadError, match=r"8863_idx5_x301_y151_class1\.png"):
        assemble_case(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_keeps_what_was_there(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    before = [path.read_bytes() for path in assemble_case(case, out)]

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OutputError, match="No space left"):
        assemble_case(case, out, overwrite=True)
    assert [path.read_bytes() for path in (out / "8863.ome.tif", out / "8863.labels.ome.tif")] == before
    assert len(list(out.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_named(case: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        assemble_case(case, tmp_path / "file" / "out")


@pytest.mark.data
def test_a_real_case(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "idc" / "complete" / "8863.zip"
    picture_path, labels = assemble_case(source, tmp_path)
    with PatchSlide(source) as slide, openslide.OpenSlide(picture_path) as written:
        assert written.level_dimensions == ((2791, 2335), (1395, 1167), (697, 583), (348, 291))
        pixels = np.asarray(written.read_region((0, 0), 0, written.dimensions))[..., :3]
        assert np.array_equal(pixels, slide.read(slide.info.bounds, Scale(1, 1)))
        assert np.array_equal(tifffile.imread(labels), slide.label_pixels(slide.info.bounds))
        assert (slide.labels == 1).sum() == 207
