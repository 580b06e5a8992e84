"""What lies beside the classes: the spread of the probability, and what a second stage made of it."""

from pathlib import Path

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from maps import (
    begin,
    blurred,
    expected_map,
    fill_layered,
    make_grid,
    number_of,
    run_layered,
    scores_of,
    spread_of,
    torn_scores_of,
)

from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.heatmap.layers import Layers


@pytest.fixture(scope="module", params=["0.5", "0.4"])
def layered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Heatmap:
    """A map of two levels with all layers, some cells of which could not be read."""
    path = tmp_path_factory.mktemp("layered") / "heatmap.zarr"
    run_layered(path, make_grid(301, 283), torn_scores_of, version=request.param)
    return Heatmap.open(path)


def expected_spread(grid: Grid) -> np.ndarray:
    whole = np.full(grid.shape, np.nan, np.float32)
    for block in grid.blocks():
        whole[block.cells[:, 0], block.cells[:, 1]] = spread_of(block)
    return np.where(np.isnan(expected_map(grid, torn_scores_of)), np.float32(np.nan), whole)


def test_a_map_holds_the_refined_the_unrefined_and_the_spread(layered: Heatmap) -> None:
    network = expected_map(layered.grid, torn_scores_of)
    np.testing.assert_array_equal(layered.probability("IDC"), blurred(network))
    np.testing.assert_array_equal(layered.probability("non-IDC"), 1 - blurred(network))
    np.testing.assert_array_equal(layered.unrefined(), network)
    np.testing.assert_array_equal(layered.spread(), expected_spread(layered.grid))
    np.testing.assert_array_equal(layered.unread(), layered.grid.cell_mask() & np.isnan(network))
    assert layered.unread().sum() > 10
    assert layered.class_names == ("non-IDC", "IDC")
    assert layered.spread().dtype == layered.unrefined().dtype == np.float32
    assert (layered.attributes["spread"], layered.attributes["refined"]) == (True, True)


def test_a_map_without_layers_has_none(finished: Path) -> None:
    plain = Heatmap.open(finished)
    assert plain.spread() is None
    assert plain.unrefined() is None
    assert zarr.open_group(finished, mode="r")["0"].shape[0] == 2


def test_viewers_see_them_as_channels_of_a_valid_image(layered: Heatmap) -> None:
    group = zarr.open_group(layered.path, mode="r")
    assert group["0"].shape == (4, 301, 283)
    assert group["1"].shape == (4, 151, 142)
    if layered.version == "0.5":
        ome_zarr_models.v05.Image.from_zarr(group)
        channels = group.attrs["ome"]["omero"]["channels"]
    else:
        ome_zarr_models.v04.Image.from_zarr(group)
        channels = group.attrs["omero"]["channels"]
        xml = (layered.path / "OME" / "METADATA.ome.xml").read_text(encoding="utf-8")
        assert 'SizeC="4"' in xml
        assert 'Name="p(IDC) before context"' in xml
    labels = [channel["label"] for channel in channels]
    assert labels == ["p(non-IDC)", "p(IDC)", "spread of p(IDC)", "p(IDC) before context"]
    assert [channel["active"] for channel in channels] == [False, True, False, False]
    finest = np.nan_to_num(group["0"][2, 100:102, 100:102])
    known = np.isfinite(group["0"][2, 100:102, 100:102]).sum()
    np.testing.assert_allclose(group["1"][2, 50, 50], finest.sum() / known, rtol=1e-5)


def test_the_scores_stay_the_networks_own_until_the_end(tmp_path: Path, grid: Grid) -> None:
    heatmap = fill_layered(tmp_path / "heatmap.zarr", grid)
    np.testing.assert_array_equal(heatmap.probability("IDC"), expected_map(grid))
    assert heatmap.unrefined() is None
    heatmap.finish(refine=blurred)
    np.testing.assert_array_equal(heatmap.probability("IDC"), blurred(expected_map(grid)))
    np.testing.assert_array_equal(heatmap.unrefined(), expected_map(grid))


def three_scores_of(block: Block) -> np.ndarray:
    """Of three classes, the first of which the map is about; some cells are all of it, some none."""
    shares = np.stack([number_of(block) % prime for prime in (3, 5, 11)], 1).astype(np.float64)
    shares[number_of(block) % 7 == 0] = (1, 0, 0)
    return (shares / np.maximum(shares.sum(1, keepdims=True), 1)).astype(np.float32)


def test_the_other_classes_keep_their_proportions_and_fill_up_to_one(tmp_path: Path, grid: Grid) -> None:
    names = ("IDC", "DCIS", "benign")
    path = tmp_path / "heatmap.zarr"
    heatmap = begin(path, grid, class_names=names, positive_class="IDC")
    for block in heatmap.pending():
        scores = three_scores_of(block)
        scores[scores.sum(1) == 0] = 1 / 3
        heatmap.write(block, scores)
    before = [heatmap.probability(name) for name in names]
    heatmap.finish(refine=blurred)
    after = [Heatmap.open(path).probability(name) for name in names]
    known = ~np.isnan(before[0])
    np.testing.assert_array_equal(after[0], blurred(before[0]))
    np.testing.assert_allclose(sum(after)[known], 1, atol=1e-6)
    np.testing.assert_allclose((after[1] * before[2])[known], (after[2] * before[1])[known], atol=1e-6)
    sure = known & (before[0] == 1) & (after[0] < 1)
    assert sure.any()
    np.testing.assert_array_equal(after[1][sure], after[2][sure])
    channels = zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"]
    assert (channels[0]["label"], channels[0]["active"]) == ("p(IDC)", True)
    assert [c["color"] for c in channels].count("FF0000") == 1


@pytest.mark.parametrize("given", ["none", "of another length"])
def test_a_spread_that_is_missing_or_does_not_fit_is_refused(tmp_path: Path, grid: Grid, *, given: str) -> None:
    heatmap = begin(tmp_path / "heatmap.zarr", grid, spread=True)
    block = heatmap.pending()[0]
    with pytest.raises(ValueError, match=r"with no spread|dimension"):
        heatmap.write(block, scores_of(block), None if given == "none" else spread_of(block)[1:])
    assert len(heatmap.pending()) == 6


def test_a_spread_that_was_not_announced_is_refused(tmp_path: Path, grid: Grid) -> None:
    heatmap = begin(tmp_path / "heatmap.zarr", grid)
    block = heatmap.pending()[0]
    with pytest.raises(ValueError, match=r"with \(\d+,\) spread"):
        heatmap.write(block, scores_of(block), spread_of(block))


@pytest.mark.parametrize(
    "wrong",
    [
        np.nan_to_num,
        lambda p: np.where(p > 0.5, np.nan, p),
        lambda p: p[1:],
        lambda p: p * 2,
        lambda p: p - 1,
    ],
)
def test_a_second_stage_that_gives_no_probabilities_of_the_same_cells_is_refused(
    tmp_path: Path, grid: Grid, *, wrong: object
) -> None:
    path = tmp_path / "heatmap.zarr"
    heatmap = fill_layered(path, grid)
    with pytest.raises(ValueError, match="the second stage"):
        heatmap.finish(refine=wrong)
    assert not path.exists()
    again = begin(path, grid, spread=True)
    assert again.pending() == []
    again.finish(refine=blurred)
    assert again.complete


def test_maps_without_word_of_layers_have_none_and_are_about_their_last_class() -> None:
    layers = Layers.of({"class_names": ["a", "b", "c"]})
    assert (layers.count, layers.positive_class, layers.spread, layers.unrefined) == (3, "c", None, None)
