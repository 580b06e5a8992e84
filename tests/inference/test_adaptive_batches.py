"""Adaptive maps through the network: the same whatever the order, the batches and the company; counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import VIEW_KAGGLE, slide_info, write_redness_bundle

from wsi_pipeline.geometry import Scale
from wsi_pipeline.grid import CellSpec, plan_grid
from wsi_pipeline.inference import Predictor, adaptive_batches
from wsi_pipeline.inference.adaptive import Rule
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.patches import PixelBlock
from wsi_pipeline.tissue import TissueMask

ALWAYS = {"finest": 1, "margin": 1e9}


@pytest.fixture(scope="module")
def redness(tmp_path_factory):
    return load_bundle(write_redness_bundle(tmp_path_factory.mktemp("bundle"), mpp=4.0))


@pytest.fixture(scope="module")
def grid():
    """120 x 90 cells of 12.5 µm under fields of view of 200 µm, with holes; blocks of 32."""
    mask = np.random.default_rng(3).random((9, 12)) < 0.85
    tissue = TissueMask(mask=mask, scale=Scale(31.25, 31.25))
    info = slide_info(375, 281, downsamples=(1,))
    info = replace(info, mpp=replace(info.mpp, x=4.0, y=4.0))
    found = plan_grid(info, VIEW_KAGGLE, tissue, cell=CellSpec.parse("12.5um"), min_tissue=0.5)
    return replace(found, block_side=32)


def raster():
    """Slow waves of red with grain on them, reaching over every edge of the slide."""
    y, x = np.mgrid[:481, :575]
    red = 128 + 100 * np.sin(x / 60) * np.cos(y / 45)
    noise = np.random.default_rng(0).integers(-20, 21, (481, 575, 3))
    return (np.dstack([red, red, red]) + noise).clip(0, 255).astype(np.uint8)


def pixel_blocks(grid, unreadable=()):
    pixels = raster()
    for n, block in enumerate(grid.blocks()):
        box = grid.block_box(block.cells)
        readable = np.ones(len(block.cells), bool)
        if n == 1:
            readable[list(unreadable)] = False
        part = pixels[box.y + 100 : box.bottom + 100, box.x + 100 : box.right + 100]
        yield PixelBlock(
            block=block,
            pixels=part.copy(),
            windows=grid.windows(block.cells) - np.array([box.x, box.y]),
            readable=readable,
            seconds=0.0,
        )


def rule_for(bundle, **more):
    found = Rule.suited(16, threshold=0.5, positive=bundle.positive, classes=2)
    return replace(found, **more)


def on_cpu(bundle, **more):
    return Predictor(bundle=bundle, device="cpu", engine="torch", **({"batch_size": 64} | more))


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.block.index == b.block.index
        assert np.array_equal(a.scores, b.scores, equal_nan=True)
        assert (a.spread is None and b.spread is None) or np.array_equal(a.spread, b.spread, equal_nan=True)
    return True


def test_refined_to_the_end_it_is_the_full_map_bit_for_bit(redness, grid):
    predictor = on_cpu(redness)
    found = list(predictor.predict(pixel_blocks(grid), rule_for(redness, **ALWAYS)))
    assert same(found, list(predictor.predict(pixel_blocks(grid))))
    assert all(scored.evaluated.all() for scored in found)


def test_elsewhere_it_is_near_the_full_map_and_exact_where_the_network_looked(redness, grid):
    predictor = on_cpu(redness)
    full = list(predictor.predict(pixel_blocks(grid)))
    found = list(predictor.predict(pixel_blocks(grid), rule_for(redness)))
    assert [scored.block.index for scored in found] == [block.index for block in grid.blocks()]
    looked_at = sum(int(scored.evaluated.sum()) for scored in found)
    assert 0.02 < looked_at / len(grid.cells) < 0.5
    for a, b in zip(found, full, strict=True):
        assert np.array_equal(a.scores[a.evaluated], b.scores[a.evaluated])
        assert np.abs(a.scores - b.scores).max() < 0.04


@pytest.mark.parametrize("batch_size", [5, 64, 1000])
def test_batches_change_nothing(redness, grid, batch_size):
    expected = list(on_cpu(redness).predict(pixel_blocks(grid), rule_for(redness)))
    assert same(list(on_cpu(redness, batch_size=batch_size).predict(pixel_blocks(grid), rule_for(redness))), expected)


def test_a_block_is_the_same_alone_first_or_last():
    """With the shipped network, whose answers are not smooth: what makes a resumed map the uninterrupted one."""
    bundle = load_bundle("idc-resnet18")
    mask = TissueMask(mask=np.ones((2, 2), bool), scale=Scale(70, 40))
    info = slide_info(140, 80, downsamples=(1,))
    info = replace(info, mpp=replace(info.mpp, x=4.0, y=4.0))
    grid = replace(plan_grid(info, VIEW_KAGGLE, mask, cell=CellSpec.parse("12.5um"), min_tissue=0.5), block_side=16)
    sources = list(pixel_blocks(grid, unreadable=(0, 7)))
    predictor, a_rule = on_cpu(bundle, batch_size=16), rule_for(bundle, threshold=0.3)
    together = list(predictor.predict(sources, a_rule))
    assert len(together) > 3
    backwards = list(predictor.predict(sources[::-1], a_rule))
    assert same(backwards[::-1], together)
    assert same([next(predictor.predict([source], a_rule)) for source in sources], together)


def test_bounded_memory_changes_nothing(redness, grid, monkeypatch):
    expected = list(on_cpu(redness).predict(pixel_blocks(grid), rule_for(redness)))
    monkeypatch.setattr(adaptive_batches, "MAX_OPEN_BYTES", 1)
    taken = []

    def watched():
        for source in pixel_blocks(grid):
            taken.append(source)
            yield source

    found = []
    for scored in on_cpu(redness, batch_size=1000).predict(watched(), rule_for(redness)):
        found.append(scored)
        assert len(taken) == len(found), "one block at a time"
    assert same(found, expected)


def test_batches_are_filled_across_blocks_and_levels(redness, grid):
    predictor, sizes = on_cpu(redness), []
    submit = predictor._network.submit

    def watched(fields):
        sizes.append(len(fields))
        return submit(fields)

    predictor._network.submit = watched
    found = list(predictor.predict(pixel_blocks(grid), rule_for(redness)))
    assert sum(sizes) == sum(int(scored.evaluated.sum()) for scored in found)
    # Only at the end, where no further block is there, are batches not full.
    assert sizes.count(64) >= len(sizes) - 4
    assert len(sizes) > 6


def test_cells_that_could_not_be_read_are_nan(redness, grid):
    found = list(on_cpu(redness).predict(pixel_blocks(grid, unreadable=range(0, 200, 3)), rule_for(redness)))
    holes = np.zeros(len(found[1].scores), bool)
    holes[0:200:3] = True
    assert np.array_equal(np.isnan(found[1].scores[:, 1]), holes)
    assert not found[1].evaluated[holes].any()
    nothing = [replace(source, readable=np.zeros(len(source.readable), bool)) for source in pixel_blocks(grid)]
    for scored in on_cpu(redness).predict(nothing, rule_for(redness)):
        assert np.isnan(scored.scores).all()
        assert not scored.evaluated.any()
    assert list(on_cpu(redness).predict([], rule_for(redness))) == []


def test_the_spread_over_symmetries_comes_along(redness, grid):
    predictor = on_cpu(redness, tta=True)
    found = list(predictor.predict(pixel_blocks(grid), rule_for(redness)))
    for scored in found:
        assert scored.spread.shape == (len(scored.block.cells),)
        assert scored.spread.max() < 1e-3  # redness does not depend on the position
        assert np.abs(scored.scores.sum(1) - 1).max() < 1e-5


def test_two_devices_give_the_map_of_one(redness, grid, monkeypatch):
    expected = list(on_cpu(redness).predict(pixel_blocks(grid), rule_for(redness)))
    monkeypatch.setattr(
        "wsi_pipeline.inference.predictor.each_device",
        lambda device: ["cpu:0"] * 2 if device == "cpu" else [device],
    )
    assert same(list(on_cpu(redness).predict(pixel_blocks(grid), rule_for(redness))), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_map(redness, grid):
    rule = rule_for(redness, **ALWAYS)
    gpu = Predictor(bundle=redness, device="cuda", batch_size=64, precision="fp32")
    for a, b in zip(gpu.predict(pixel_blocks(grid), rule), on_cpu(redness).predict(pixel_blocks(grid)), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    again = gpu.predict(pixel_blocks(grid), rule_for(redness))
    assert same(list(again), list(gpu.predict(pixel_blocks(grid), rule_for(redness))))
