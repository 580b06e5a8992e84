"""A whole map in closed form: a network whose score is the mean redness of its field of view."""

import numpy as np
import pytest
import torch
from helpers import VIEW_40X, VIEW_KAGGLE, redness, slide_info, write_redness_bundle

from wsi_pipeline.errors import ConfigError, InferenceError
from wsi_pipeline.geometry import Scale
from wsi_pipeline.grid import CellSpec, plan_grid
from wsi_pipeline.inference import Predictor, choose_device
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.patches import PixelBlock
from wsi_pipeline.tissue import TissueMask


def make_grid(view, cell, size=(1600, 1200)):
    info = slide_info(*size)
    mask = np.random.default_rng(3).random((12, 16)) < 0.8
    tissue = TissueMask(mask=mask, scale=Scale(size[0] / 16, size[1] / 12))
    return plan_grid(info, view, tissue, cell=CellSpec.parse(cell), min_tissue=0.5)


def pixel_blocks(grid, seed=0, unreadable=()):
    """Blocks cut from one random raster that reaches over every edge."""
    raster = np.random.default_rng(seed).integers(0, 256, (1500, 1900, 3), dtype=np.uint8)
    for n, block in enumerate(grid.blocks()):
        box = grid.block_box(block.cells)
        readable = np.ones(len(block.cells), bool)
        readable[list(unreadable)] = n != 0
        yield PixelBlock(
            block=block,
            pixels=torch.from_numpy(
                np.ascontiguousarray(raster[box.y + 100 : box.bottom + 100, box.x + 100 : box.right + 100])
            ),
            windows=torch.from_numpy(grid.windows(block.cells) - np.array([box.x, box.y])),
            readable=readable,
            seconds=0.0,
        )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {
        VIEW_40X: load_bundle(write_redness_bundle(folder / "40x", mpp=0.25)),
        VIEW_KAGGLE: load_bundle(write_redness_bundle(folder / "kaggle", mpp=4.0)),
    }


@pytest.mark.parametrize(("view", "cell"), [(VIEW_40X, "50px@40x"), (VIEW_KAGGLE, "50px@40x"), (VIEW_40X, "20um")])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_every_score_is_what_numpy_says_of_the_field_of_view(bundles, view, cell, batch_size):
    grid = make_grid(view, cell)
    predictor = Predictor(bundle=bundles[view], device=torch.device("cpu"), batch_size=batch_size)
    sources = list(pixel_blocks(grid))
    scored = list(predictor.predict(sources))
    assert [s.block.index for s in scored] == [s.block.index for s in sources]
    size = view.size_px
    for source, result in zip(sources, scored, strict=True):
        pixels = source.pixels.numpy()
        expected = [redness(pixels[y : y + size, x : x + size]) for x, y in source.windows.tolist()]
        assert np.allclose(result.scores[:, 1], expected, atol=1e-5)
        assert np.allclose(result.scores.sum(1), 1, atol=1e-6)


def test_cells_that_could_not_be_read_are_nan_and_shift_no_other(bundles):
    grid = make_grid(VIEW_40X, "50px@40x")
    predictor = Predictor(bundle=bundles[VIEW_40X], device=torch.device("cpu"), batch_size=16)
    whole = next(iter(predictor.predict(pixel_blocks(grid))))
    holed = next(iter(predictor.predict(pixel_blocks(grid, unreadable=(0, 5, 6)))))
    assert np.isnan(holed.scores[[0, 5, 6]]).all()
    kept = np.setdiff1d(np.arange(len(whole.scores)), [0, 5, 6])
    assert np.array_equal(holed.scores[kept], whole.scores[kept])


def test_a_probability_does_not_depend_on_the_company_it_was_computed_in():
    """Bit for bit, with the real network: what makes a resumed run equal to an uninterrupted one."""
    bundle = load_bundle("idc-resnet18")
    predictor = Predictor(bundle=bundle, device=torch.device("cpu"), batch_size=32)
    fields = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (80, 50, 50, 3), dtype=np.uint8))
    together = predictor.probabilities(fields)
    order = np.random.default_rng(1).permutation(80)
    assert np.array_equal(predictor.probabilities(fields[order]), together[order])
    assert np.array_equal(predictor.probabilities(fields[:3]), together[:3])


def test_nothing_to_predict_is_nothing(bundles):
    predictor = Predictor(bundle=bundles[VIEW_40X], device=torch.device("cpu"))
    assert list(predictor.predict([])) == []
    assert predictor.probabilities(torch.empty(0, 50, 50, 3, dtype=torch.uint8)).shape == (0, 2)


def test_scores_that_are_not_finite_are_caught(bundles, monkeypatch):
    predictor = Predictor(bundle=bundles[VIEW_40X], device=torch.device("cpu"), batch_size=16)
    monkeypatch.setattr(predictor, "_network", lambda x: torch.full((len(x), 2), torch.nan))
    with pytest.raises(InferenceError, match="not finite"):
        list(predictor.predict(pixel_blocks(make_grid(VIEW_40X, "50px@40x"))))


def test_a_network_with_other_classes_than_its_card_is_refused(bundles):
    from dataclasses import replace

    bundle = bundles[VIEW_40X]
    wrong = replace(bundle, card=bundle.card.model_copy(update={"class_names": ("a", "b", "IDC")}))
    with pytest.raises(InferenceError, match="gives 2 classes, the card names 3"):
        Predictor(bundle=wrong, device=torch.device("cpu"))


def test_the_input_is_resized_where_the_network_wants_it(bundles):
    from dataclasses import replace

    bundle = bundles[VIEW_40X]
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return torch.zeros(len(x), 2)

    resized = replace(bundle, card=bundle.card.model_copy(update={"input_px": 96}), build=Spy)
    Predictor(bundle=resized, device=torch.device("cpu"), batch_size=4)
    assert seen == [(4, 3, 96, 96)]


def test_devices_that_are_not_there_are_refused():
    assert choose_device("cpu").type == "cpu"
    if not torch.backends.mps.is_available():
        with pytest.raises(ConfigError, match="no mps device"):
            choose_device("mps")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_map():
    bundle = load_bundle("idc-resnet18")
    fields = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (300, 50, 50, 3), dtype=np.uint8))
    cpu = Predictor(bundle=bundle, device=torch.device("cpu")).probabilities(fields)
    for amp, bound in ((False, 1e-4), (True, 0.02)):
        gpu = Predictor(bundle=bundle, device=torch.device("cuda"), amp=amp).probabilities(fields)
        assert np.abs(gpu - cpu).max() < bound
