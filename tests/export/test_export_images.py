"""OME-Zarr 0.4, OME-TIFF and PNG by the eyes of zarr, ome-zarr-models, napari, tifffile, OpenSlide and Pillow."""

import json
import warnings
from xml.etree import ElementTree as ET

import numpy as np
import ome_zarr_models.v04
import openslide
import pytest
import tifffile
import zarr
from finished_results import HEIGHT, WIDTH, make_finished
from PIL import Image

from wsi_pipeline.export import ExportOptions, export
from wsi_pipeline.geometry import Box, Scale
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.slides import open_slide

OME = {"o": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


def export_one(finished, to, folder, **options):
    record = export(finished.folder, to=to, out=folder, options=ExportOptions(**options))
    assert not record.failed, record.failed
    return record.files


@pytest.fixture(scope="module")
def ome_zarr(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zarr")
    (path,) = export_one(finished, "ome-zarr-0.4", folder)
    (again,) = export_one(finished, "ome-zarr-0.4", folder)  # replaces the first
    assert again == path
    assert [file.name for file in folder.iterdir()] == ["slide.ome.zarr"]
    return path


def test_ome_zarr_is_valid_and_holds_the_map(finished, ome_zarr):
    group = zarr.open_group(ome_zarr, mode="r", zarr_format=2)
    assert ome_zarr_models.v04.Image.from_zarr(group).labels is not None
    ome_zarr_models.v04.ImageLabel.from_zarr(group["labels/tissue"])
    source = Heatmap.open(finished.folder / "heatmap.zarr")
    expected = [source.probability("other"), source.probability("IDC"), source.spread(), source.unrefined()]
    np.testing.assert_array_equal(group["0"][...], np.stack(expected))
    attributes = json.loads((ome_zarr / ".zattrs").read_text())
    scale, shift = attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], shift["translation"]) == ([1, 12.5, 12.5], [0, 6.125, 6.125])
    opened = Heatmap.open(ome_zarr)
    np.testing.assert_array_equal(opened.probability("IDC"), finished.probability)
    assert opened.attributes == source.attributes


def test_ome_zarrs_own_reader_reads_the_export(finished, ome_zarr):
    """The reference library of the format, which napari's earlier plugin and others are built on."""
    with warnings.catch_warnings():
        # What it warns of while it is imported is not ours to mend.
        warnings.simplefilter("ignore")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader
    location = parse_url(ome_zarr, mode="r")
    assert location is not None
    image, *others = list(Reader(location)())
    source = Heatmap.open(finished.folder / "heatmap.zarr")
    expected = [source.probability("other"), source.probability("IDC"), source.spread(), source.unrefined()]
    np.testing.assert_array_equal(image.data[0].compute(scheduler="synchronous"), np.stack(expected))
    assert [axis["name"] for axis in image.metadata["axes"]] == ["c", "y", "x"]
    assert image.metadata["channel_names"][1] == "p(IDC)"
    scale, shift = image.metadata["coordinateTransformations"][0]
    assert (scale["scale"], shift["translation"]) == ([1, 12.5, 12.5], [0, 6.125, 6.125])
    labels = [node for node in others if "tissue" in str(node.zarr)]
    np.testing.assert_array_equal(
        np.squeeze(labels[-1].data[0].compute(scheduler="synchronous")), source.tissue.astype(np.uint8)
    )


def test_napari_reads_the_ome_zarr(finished, ome_zarr):
    with warnings.catch_warnings():
        # What napari warns of while it is imported is not ours to mend.
        warnings.simplefilter("ignore")
        from napari_ome_zarr import napari_get_reader

        layers = napari_get_reader(str(ome_zarr))(str(ome_zarr))
    images = {}
    for levels, facts, kind in layers:
        if kind == "image" and isinstance(facts["name"], list):  # some plugins give all channels as one
            images |= {name: levels[0][n] for n, name in enumerate(facts["name"])}
        elif kind == "image":
            images[facts["name"]] = levels[0]
    (shown,) = [values for name, values in images.items() if name.endswith("p(IDC)") and "spread" not in name]
    np.testing.assert_array_equal(
        shown.compute(scheduler="synchronous").reshape(finished.grid.shape), finished.probability
    )


def test_the_float_pyramid_holds_every_channel(finished, tmp_path):
    (path,) = export_one(finished, "ome-tiff-probability", tmp_path)
    source = Heatmap.open(finished.folder / "heatmap.zarr")
    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        assert series.axes == "CYX"
        stored = series.asarray()
        # Bio-Formats, and with it Fiji and QuPath, knows no other forms of these.
        assert {(page.aspage().compression, page.aspage().predictor) for page in tiff.pages} == {(8, 1)}
        image = ET.fromstring(tiff.ome_metadata).find("o:Image", OME)
    assert stored.dtype == np.float32
    expected = [source.probability("other"), source.probability("IDC"), source.spread(), source.unrefined()]
    np.testing.assert_array_equal(stored, np.stack(expected))
    pixels = image.find("o:Pixels", OME)
    assert {pixels.get(f"PhysicalSize{axis}") for axis in "XY"} == {"12.5"}
    assert pixels.get("PhysicalSizeXUnit") == "µm"
    assert [channel.get("Name") for channel in pixels.findall("o:Channel", OME)] == [
        "p(other)",
        "p(IDC)",
        "spread of p(IDC)",
        "p(IDC) before context",
    ]
    assert image.find("o:Description", OME).text.startswith("For research use only")


def test_coarser_levels_are_means_and_the_position_is_the_maps(tmp_path):
    values = np.random.default_rng(0).random((301, 517)).astype(np.float32)
    values[:40, :50] = np.nan
    made = make_finished(
        tmp_path / "x",
        tmp_path / "none.tiff",
        probability=values,
        extent=Box(800, 400, 517 * 4, 301 * 4),
        cell_um=1.0,
        fingerprint="f" * 64,
    )
    (path,) = export_one(made, "ome-tiff-probability", tmp_path)
    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        fine, half, quarter = (level.asarray() for level in series.levels)
        planes = ET.fromstring(tiff.ome_metadata).findall("o:Image/o:Pixels/o:Plane", OME)
        resolutions = [level.keyframe.resolution for level in series.levels]
    np.testing.assert_array_equal(fine[1], values)
    assert (half.shape, quarter.shape) == ((3, 151, 259), (3, 76, 130))
    np.testing.assert_allclose(
        half[1, 100:150, 100:250], values[200:300, 200:500].reshape(50, 2, 150, 2).mean((1, 3)), rtol=1e-6
    )
    assert np.isnan(half[1, :20, :25]).all()
    assert {(plane.get("PositionX"), plane.get("PositionY")) for plane in planes} == {("200.0", "100.0")}
    np.testing.assert_allclose(resolutions, [[1e4] * 2, [5e3] * 2, [2.5e3] * 2])


@pytest.fixture(scope="module")
def overlay(finished, tmp_path_factory):
    # Without smoothing, at the slide's own pixels, two levels.
    (path,) = export_one(finished, "ome-tiff-overlay", tmp_path_factory.mktemp("overlay"), overlay_um=0.25)
    return path


def test_openslide_opens_the_overlay(overlay):
    with openslide.OpenSlide(overlay) as slide:
        assert slide.level_dimensions == ((WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2))
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.25)
        assert "For research use only" in slide.properties["openslide.comment"]
    with tifffile.TiffFile(overlay) as tiff:
        (series,) = tiff.series
        assert [level.shape for level in series.levels] == [(HEIGHT, WIDTH, 3), (HEIGHT // 2, WIDTH // 2, 3)]
        pixels = ET.fromstring(tiff.ome_metadata).find("o:Image/o:Pixels", OME)
        assert float(pixels.get("PhysicalSizeX")) == 0.25
    with open_slide(overlay) as slide:
        assert slide.info.mpp.x == pytest.approx(0.25)


def test_the_overlay_tints_cells_by_their_probability(finished, overlay):
    """Where cells have a high probability, the slide is changed; where there is none, it is as it was."""
    with openslide.OpenSlide(overlay) as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB")).astype(int)
    with open_slide(finished.slide) as slide:
        plain = slide.read(Box(0, 0, WIDTH, HEIGHT), Scale(1, 1)).astype(int)
    change = np.abs(shown - plain).mean(-1)
    means, values, glass = [], [], []
    for row, col in np.ndindex(finished.grid.shape):
        box = finished.grid.cell_box(row, col)
        inner = change[box.y + 8 : box.bottom - 8, box.x + 8 : box.right - 8]  # within the outlines
        if inner.size < 400:
            continue
        means.append(inner.mean())
        values.append(finished.probability[row, col])
        glass.append(plain[box.y : box.bottom, box.x : box.right].min() > 230)
    means, values, glass = np.array(means), np.array(values), np.array(glass)
    assert means[np.isnan(values)].max() < 3  # JPEG
    assert means[values > 0.6].min() > 12
    same_ground = ~np.isnan(values) & glass
    assert same_ground.sum() > 50
    assert np.corrcoef(means[same_ground], values[same_ground])[0, 1] > 0.95


def test_the_overlay_outlines_the_regions(finished, overlay):
    """Dark lines run along the edges between cells above and below the threshold, and along no others."""
    with openslide.OpenSlide(overlay) as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("L")).astype(int)
    above = finished.probability >= 0.5
    between, within = [], []
    for row, col in np.ndindex(above.shape[0], above.shape[1] - 2):
        box = finished.grid.cell_box(row, col)
        middle = shown[box.y + 15 : box.bottom - 15, box.right - 2 : box.right + 2]
        if middle.size:
            (between if above[row, col] != above[row, col + 1] else within).append(middle.min(1).mean())
    assert len(between) > 10
    assert max(between) < 90
    assert min(within) > 100


def test_the_overlay_shows_what_lies_inside_the_bounds(finished, tmp_path):
    extent = Box(100, 60, 700, 600)
    made = make_finished(tmp_path / "x", finished.slide, probability=np.zeros((12, 14), np.float32), extent=extent)
    (path,) = export_one(made, "ome-tiff-overlay", tmp_path, overlay_um=0.5)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (350, 300)
        shown = np.asarray(slide.read_region((0, 0), 0, (350, 300)).convert("RGB")).astype(int)
    with open_slide(finished.slide) as slide:
        plain = slide.read(Box(50, 30, 350, 300), Scale(2, 2)).astype(int)
    assert np.abs(shown - plain).mean() < 3


def test_pictures_have_the_size_that_is_asked_for(finished, tmp_path):
    small, _ = export_one(finished, "png", tmp_path / "small", size_px=300)
    large, uncertainty = export_one(finished, "png", tmp_path / "large", size_px=900, threshold=0.9)
    assert (small.name, uncertainty.name) == ("slide.overlay.png", "slide.uncertainty.png")
    widths = []
    for path in (small, large, uncertainty):
        with Image.open(path) as picture:
            widths.append(picture.size[0])
    # Margins and legend stand beside the slide.
    assert widths[1] == widths[2]
    assert 900 < widths[1] < 900 + 300
    assert 300 < widths[0] < 900
