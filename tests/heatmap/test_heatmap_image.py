"""What others make of the image: OME-Zarr of both versions, dask, napari."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from maps import IDENTITY, begin, expected_map, run, torn_scores_of

from wsi_pipeline.errors import ResultsMismatchError
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap


def test_levels_are_means_of_the_finer_ones(large: Heatmap) -> None:
    group = zarr.open_group(large.path, mode="r")
    shapes = [group[str(level)].shape for level in range(3)]
    assert shapes == [(2, 601, 333), (2, 301, 167), (2, 151, 84)]
    fine = group["0"][1]
    for coarse in (group["1"][1], group["2"][1]):
        padded = np.pad(fine, [(0, n % 2) for n in fine.shape], constant_values=np.nan).astype(np.float64)
        squares = padded.reshape(coarse.shape[0], 2, coarse.shape[1], 2)
        known = (~np.isnan(squares)).sum((1, 3))
        mean = np.divide(np.nansum(squares, (1, 3)), known, out=np.full(known.shape, np.nan), where=known > 0)
        np.testing.assert_allclose(coarse, mean, rtol=1e-5)
        fine = coarse


def test_it_is_valid_ome_zarr_05(large: Heatmap) -> None:
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(large.path, mode="r"))
    assert image.labels is not None
    assert image.labels.label_paths == ["tissue"]
    label = zarr.open_group(large.path, mode="r", path="labels/tissue")
    ome_zarr_models.v05.ImageLabel.from_zarr(label)
    raw = json.loads((large.path / "zarr.json").read_text())["attributes"]["ome"]
    assert raw["version"] == "0.5"
    assert [channel["label"] for channel in raw["omero"]["channels"]] == ["p(non-IDC)", "p(IDC)"]
    first = raw["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    # 1 µm cells of 4 px of 0.25 µm, on a slide whose scanned part begins at (200, 100).
    assert first == [
        {"type": "scale", "scale": [1, 1, 1]},
        {"type": "translation", "translation": [0, 25.375, 50.375]},
    ]


def test_dask_reads_it(large: Heatmap) -> None:
    array = dask.array.from_zarr(large.path, component="0")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[1].compute(scheduler="synchronous"), expected_map(large.grid, torn_scores_of))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_napari_reads_it(large: Heatmap, large_04: Heatmap, version: str) -> None:
    with warnings.catch_warnings():
        # What napari warns of while it is imported is not ours to mend.
        warnings.simplefilter("ignore")
        from napari_ome_zarr import napari_get_reader

    path = (large_04 if version == "0.4" else large).path
    read = napari_get_reader(str(path))
    assert read is not None
    images, labels = {}, {}
    for levels, facts, kind in read(str(path)):
        assert len(levels) == 3
        assert list(facts["scale"])[-2:] == [1, 1]
        if kind == "labels":
            labels[facts["name"].rsplit("/", maxsplit=1)[-1]] = levels[0], facts
        elif "channel_axis" in facts:  # older plugins give all channels as one
            images |= {name: levels[0][n] for n, name in enumerate(facts["name"])}
        else:
            images[facts["name"]] = levels[0]
    assert list(images) == ["made-up: p(non-IDC)", "made-up: p(IDC)"]
    np.testing.assert_array_equal(
        images["made-up: p(IDC)"].compute(scheduler="synchronous"), expected_map(large.grid, torn_scores_of)
    )
    label, label_facts = labels["tissue"]
    colors = getattr(label_facts["colormap"], "color_dict", label_facts["colormap"])
    assert {0, 1, 255} <= set(colors)
    values = label.compute(scheduler="synchronous").reshape(large.grid.shape)
    np.testing.assert_array_equal(values == 255, large.unread())
    np.testing.assert_array_equal(values != 0, large.tissue)


def test_the_older_form_holds_the_same(large: Heatmap, large_04: Heatmap) -> None:
    path = large_04.path
    group = zarr.open_group(path, mode="r", zarr_format=2)
    image = ome_zarr_models.v04.Image.from_zarr(group)
    assert image.labels is not None
    ome_zarr_models.v04.ImageLabel.from_zarr(group["labels/tissue"])
    assert json.loads((path / ".zattrs").read_text())["multiscales"][0]["version"] == "0.4"
    assert json.loads((path / "0" / ".zarray").read_text())["dimension_separator"] == "/"
    assert (path / "0" / "1" / "0" / "0").is_file()
    assert 'PhysicalSizeX="1.0"' in (path / "OME" / "METADATA.ome.xml").read_text(encoding="utf-8")
    opened, newer = Heatmap.open(path), zarr.open_group(large.path, mode="r")
    for level in range(3):
        np.testing.assert_array_equal(group[str(level)][...], newer[str(level)][...])
        np.testing.assert_array_equal(group[f"labels/tissue/{level}"][...], newer[f"labels/tissue/{level}"][...])
    assert opened.attributes == large.attributes
    np.testing.assert_array_equal(opened.grid.cells, large.grid.cells)


def test_a_run_can_end_in_the_older_form(tmp_path: Path, grid: Grid) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = run(path, grid, version="0.4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["heatmap.zarr"]
    np.testing.assert_array_equal(heatmap.probability("IDC"), expected_map(grid))
    assert begin(path, grid).complete
    ome_zarr_models.v04.Image.from_zarr(zarr.open_group(path, mode="r"))
    with pytest.raises(ResultsMismatchError, match="model"):
        begin(path, grid, identity=replace(IDENTITY, bundle="x"))
