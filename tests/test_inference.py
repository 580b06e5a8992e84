"""A whole map in closed form: a network whose score is the mean redness of its field of view."""

from dataclasses import replace
from uuid import uuid4

import numpy as np
import pytest
import torch
from helpers import VIEW_40X, VIEW_KAGGLE, redness, slide_info, write_redness_bundle
from shades import red_bundle

from wsi_pipeline.errors import ConfigError, InferenceError
from wsi_pipeline.geometry import Scale
from wsi_pipeline.grid import CellSpec, plan_grid
from wsi_pipeline.inference import Predictor, choose_device, default_batch
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.models.ensemble import Ensemble, Member
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
            pixels=raster[box.y + 100 : box.bottom + 100, box.x + 100 : box.right + 100].copy(),
            windows=grid.windows(block.cells) - np.array([box.x, box.y]),
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
    predictor = Predictor(bundle=bundles[view], device="cpu", batch_size=batch_size)
    sources = list(pixel_blocks(grid))
    scored = list(predictor.predict(sources))
    assert [s.block.index for s in scored] == [s.block.index for s in sources]
    size = view.size_px
    for source, result in zip(sources, scored, strict=True):
        pixels = source.pixels
        expected = [redness(pixels[y : y + size, x : x + size]) for x, y in source.windows.tolist()]
        assert np.allclose(result.scores[:, 1], expected, atol=1e-5)
        assert np.allclose(result.scores.sum(1), 1, atol=1e-6)


def test_cells_that_could_not_be_read_are_nan_and_shift_no_other(bundles):
    grid = make_grid(VIEW_40X, "50px@40x")
    predictor = Predictor(bundle=bundles[VIEW_40X], device="cpu", batch_size=16)
    whole = next(iter(predictor.predict(pixel_blocks(grid))))
    holed = next(iter(predictor.predict(pixel_blocks(grid, unreadable=(0, 5, 6)))))
    assert np.isnan(holed.scores[[0, 5, 6]]).all()
    kept = np.setdiff1d(np.arange(len(whole.scores)), [0, 5, 6])
    assert np.array_equal(holed.scores[kept], whole.scores[kept])


def test_a_probability_does_not_depend_on_the_company_it_was_computed_in():
    """Bit for bit, with the real network: what makes a resumed run equal to an uninterrupted one."""
    bundle = load_bundle("idc-resnet18")
    predictor = Predictor(bundle=bundle, device="cpu", batch_size=32)
    fields = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (80, 50, 50, 3), dtype=np.uint8))
    together = predictor.probabilities(fields)
    order = np.random.default_rng(1).permutation(80)
    assert np.array_equal(predictor.probabilities(fields[order]), together[order])
    assert np.array_equal(predictor.probabilities(fields[:3]), together[:3])


class Corner(torch.nn.Module):
    """Logit of class 1: the mean red of the top left quarter in 0..1, which every symmetry of the square moves."""

    def forward(self, x):
        half = x.shape[-1] // 2
        logit = 6 * (x[:, 0, :half, :half].mean((1, 2)) - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], 1)


class Colours(torch.nn.Module):
    """Logits of three classes: the mean red, green and blue of the top left quarter in 0..1."""

    def forward(self, x):
        half = x.shape[-1] // 2
        return 6 * x[:, :, :half, :half].mean((2, 3))


class Doubt(torch.nn.Module):
    """Cannot say."""

    def forward(self, x):
        return 0 * x[:, 0, 0, :2]


def bundle_of(bundle, network, **card):
    return replace(bundle, card=bundle.card.model_copy(update=card), digest=uuid4().hex, build=lambda: network().eval())


def quarters(fields):
    """[8, n, 3]: mean colour, 0..1, of the top left quarter of each symmetry: every quarter stands there twice."""
    half = fields.shape[1] // 2
    ends = slice(half), slice(-half, None)
    return np.array([fields[:, y, x].mean((1, 2)) / 255 for y in ends for x in ends] * 2)


def corners(fields):
    """[8, n]: p(IDC) that `Corner` gives each symmetry of the fields."""
    return 1 / (1 + np.exp(-6 * (quarters(fields)[..., 0] - 0.5)))


@pytest.fixture
def fields():
    """Fields of view that are brighter in one corner."""
    ramp = np.add.outer(np.arange(50), 2 * np.arange(50)).astype(float)[None, :, :, None]
    noise = np.random.default_rng(0).integers(0, 60, (21, 50, 50, 3))
    return (ramp + noise).astype(np.uint8)


def on_cpu(bundle, **more):
    return Predictor(bundle=bundle, device="cpu", **({"batch_size": 8} | more))


def test_test_time_augmentation_is_mean_and_deviation_over_the_eight_symmetries(bundles, fields):
    bundle = bundle_of(bundles[VIEW_40X], Corner)
    plain, spread = on_cpu(bundle).predict_fields(fields)
    assert spread is None
    expected = corners(fields)
    np.testing.assert_allclose(plain[:, 1], expected[0], atol=1e-6)
    predictor = on_cpu(bundle, tta=True)
    probabilities, spread = predictor.predict_fields(fields)
    np.testing.assert_allclose(probabilities[:, 1], expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread, expected.std(0), atol=1e-6)
    assert spread.min() > 0.01
    np.testing.assert_array_equal(predictor.probabilities(torch.from_numpy(fields)), probabilities)
    assert probabilities.dtype == spread.dtype == np.float32
    for turned in (np.rot90(fields, 1, (1, 2)), fields[:, ::-1], fields.transpose(0, 2, 1, 3)):
        again, spread_again = predictor.predict_fields(np.ascontiguousarray(turned))
        np.testing.assert_allclose(again, probabilities, atol=1e-6)
        np.testing.assert_allclose(spread_again, spread, atol=1e-6)


@pytest.mark.parametrize("positive", ["a", "b", "c"])
def test_the_spread_is_that_of_the_positive_class_wherever_it_stands(bundles, fields, positive):
    """Of three: with two classes both have the same."""
    fields = (fields * np.array([1, 0.5, 0.1])).astype(np.uint8)
    classes = {"class_names": ("a", "b", "c"), "positive_class": positive}
    bundle = bundle_of(bundles[VIEW_40X], Colours, **classes)
    exponents = np.exp(6 * quarters(fields))
    expected = exponents / exponents.sum(-1, keepdims=True)
    number = "abc".index(positive)
    probabilities, spread = on_cpu(bundle, tta=True).predict_fields(fields)
    np.testing.assert_allclose(probabilities, expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread, expected.std(0)[:, number], atol=1e-6)
    bias = 0.0, 1.0, 3.0
    pair = [Member(Colours(), bundle.card.model_copy(update={"bias": one})) for one in (None, bias)]
    _, spread = on_cpu(bundle_of(bundle, lambda: Ensemble(pair))).predict_fields(fields)
    weighted = exponents[0] * np.exp(bias)
    answers = np.array([expected[0], weighted / weighted.sum(-1, keepdims=True)])
    np.testing.assert_allclose(spread, answers.std(0)[:, number], atol=1e-6)


def pair_of(bundle, **card):
    """A deep ensemble of `Corner` and one that is always in doubt."""
    return bundle_of(bundle, lambda: Ensemble([Member(Corner(), bundle.card), Member(Doubt(), bundle.card)]), **card)


def test_an_ensemble_spreads_over_its_members_and_with_augmentation_over_all(bundles, fields):
    bundle = pair_of(bundles[VIEW_40X])
    sure = corners(fields)
    probabilities, spread = on_cpu(bundle).predict_fields(fields)
    np.testing.assert_allclose(probabilities[:, 1], (sure[0] + 0.5) / 2, atol=1e-6)
    np.testing.assert_allclose(spread, np.abs(sure[0] - 0.5) / 2, atol=1e-6)
    probabilities, spread = on_cpu(bundle, tta=True).predict_fields(fields)
    np.testing.assert_allclose(probabilities[:, 1], (sure.mean(0) + 0.5) / 2, atol=1e-6)
    every = np.concatenate([sure, np.full_like(sure, 0.5)])
    np.testing.assert_allclose(spread, every.std(0), atol=1e-6)


def test_an_ensemble_is_calibrated_like_any_network(bundles, fields):
    bundle = pair_of(bundles[VIEW_40X], temperature=0.5, bias=(0.0, 1.0))
    logits = on_cpu(bundle).logits(fields)
    with torch.inference_mode():
        answers = bundle.build()(torch.from_numpy(fields).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(logits, answers, atol=1e-5)
    expected = torch.softmax(answers / 0.5 + torch.tensor([0.0, 1.0]), 1)
    np.testing.assert_allclose(on_cpu(bundle).probabilities(fields), expected, atol=1e-6)


def test_probabilities_are_calibrated_by_temperature_and_bias_and_logits_are_raw(bundles, fields):
    bundle = bundle_of(bundles[VIEW_40X], Corner, temperature=2.5, bias=(0.4, -0.7))
    logits = on_cpu(bundle, tta=True).logits(fields)
    plain = corners(fields)[0]
    np.testing.assert_allclose(logits, np.stack([0 * plain, np.log(plain / (1 - plain))], 1), atol=1e-5)
    found = on_cpu(bundle).probabilities(fields)[:, 1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(logits[:, 1] / 2.5 - 1.1))), atol=1e-6)


def test_blocks_carry_the_spread(bundles):
    grid = make_grid(VIEW_40X, "50px@40x")
    predictor = on_cpu(bundle_of(bundles[VIEW_40X], Corner), tta=True, batch_size=16)
    for source, scored in zip(
        pixel_blocks(grid, unreadable=(0, 3)), predictor.predict(pixel_blocks(grid, unreadable=(0, 3))), strict=True
    ):
        readable = source.readable
        windows = source.windows[readable].tolist()
        cut = np.stack([source.pixels[y : y + 50, x : x + 50] for x, y in windows])
        np.testing.assert_allclose(scored.spread[readable], corners(cut).std(0), atol=1e-6)
        np.testing.assert_allclose(scored.scores[readable, 1], corners(cut).mean(0), atol=1e-6)
        assert np.isnan(scored.spread[~readable]).all()
        assert np.isnan(scored.scores[~readable]).all()


def test_an_augmented_probability_does_not_depend_on_its_company_either(fields):
    bundle = load_bundle("idc-resnet18")
    predictor = on_cpu(bundle, tta=True)
    together, spread = predictor.predict_fields(fields)
    order = np.random.default_rng(1).permutation(len(fields))
    shuffled, shuffled_spread = predictor.predict_fields(fields[order])
    assert np.array_equal(shuffled, together[order])
    assert np.array_equal(shuffled_spread, spread[order])


def test_nothing_to_predict_is_nothing(bundles):
    predictor = Predictor(bundle=bundles[VIEW_40X], device="cpu")
    assert list(predictor.predict([])) == []
    assert predictor.probabilities(torch.empty(0, 50, 50, 3, dtype=torch.uint8)).shape == (0, 2)


def test_scores_that_are_not_finite_are_caught(bundles, monkeypatch):
    predictor = on_cpu(bundles[VIEW_40X], engine="torch")
    monkeypatch.setattr(predictor._network.engine, "_network", lambda x: torch.full((len(x), 2), torch.nan))
    with pytest.raises(InferenceError, match="not finite"):
        list(predictor.predict(pixel_blocks(make_grid(VIEW_40X, "50px@40x"))))


def test_a_network_with_other_classes_than_its_card_is_refused(bundles):
    bundle = bundles[VIEW_40X]
    wrong = replace(bundle, card=bundle.card.model_copy(update={"class_names": ("a", "b", "IDC")}))
    with pytest.raises(InferenceError, match="gives 2 classes, the card names 3"):
        Predictor(bundle=wrong, device="cpu")


def test_the_input_is_resized_where_the_network_wants_it(bundles):
    bundle = bundles[VIEW_40X]
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return torch.zeros(len(x), 2)

    resized = replace(bundle, card=bundle.card.model_copy(update={"input_px": 96}), digest="spy", build=Spy)
    on_cpu(resized, engine="torch", batch_size=4).logits(np.zeros((5, 50, 50, 3), np.uint8))
    assert seen == [(1, 3, 96, 96), (4, 3, 96, 96), (4, 3, 96, 96)]


def test_devices_that_are_not_there_are_refused():
    assert choose_device("cpu") == "cpu"
    if not torch.backends.mps.is_available():
        with pytest.raises(ConfigError, match="no mps device"):
            choose_device("mps")


def test_two_devices_give_the_map_of_one(bundles, monkeypatch):
    bundle, grid = load_bundle("idc-resnet18"), make_grid(VIEW_40X, "50px@40x", size=(700, 600))
    holes = {"unreadable": (0, 5)}
    alone = on_cpu(bundle, engine="torch", batch_size=16)
    expected = list(alone.predict(pixel_blocks(grid, **holes)))
    monkeypatch.setattr(
        "wsi_pipeline.inference.predictor.each_device",
        lambda device: ["cpu:0"] * 2 if device == "cpu" else [device],
    )
    both = on_cpu(bundle, engine="torch", batch_size=16)
    found = list(both.predict(pixel_blocks(grid, **holes)))
    assert [scored.block.index for scored in found] == [scored.block.index for scored in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.scores, other.scores, equal_nan=True)
    assert both.seconds.network > 0


def test_blocks_and_loose_fields_of_view_get_the_same_probabilities(bundles):
    grid = make_grid(VIEW_40X, "50px@40x", size=(700, 600))
    predictor = on_cpu(load_bundle("idc-resnet18"), batch_size=16)
    for source, scored in zip(pixel_blocks(grid), predictor.predict(pixel_blocks(grid)), strict=True):
        cut = np.stack([source.pixels[y : y + 50, x : x + 50] for x, y in source.windows.tolist()])
        assert np.array_equal(scored.scores, predictor.probabilities(cut))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("engine", ["torch", "compile"])
def test_a_gpu_gives_the_same_blocks(engine):
    """Enough batches and blocks for one to be on its way to the host while the next is computed."""
    bundle, grid = load_bundle("idc-resnet18"), make_grid(VIEW_40X, "50px@40x")
    cpu = on_cpu(bundle, batch_size=64).predict(pixel_blocks(grid, unreadable=(1, 2)))
    gpu = Predictor(bundle=bundle, device="cuda", batch_size=64, engine=engine, precision="fp32")
    for one, other in zip(cpu, gpu.predict(pixel_blocks(grid, unreadable=(1, 2))), strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_map():
    bundle = load_bundle("idc-resnet18")
    fields = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (300, 50, 50, 3), dtype=np.uint8))
    for tta in (False, True):
        cpu = Predictor(bundle=bundle, device="cpu", tta=tta).probabilities(fields)
        for precision, bound in (("fp32", 1e-5), ("auto", 0.02)):
            predictor = Predictor(bundle=bundle, device="cuda", precision=precision, tta=tta)
            gpu = predictor.probabilities(fields)
            assert np.abs(gpu - cpu).max() < bound
            assert np.array_equal(predictor.probabilities(fields[7:]), gpu[7:])


def test_large_inputs_make_small_batches(tmp_path):
    small, large = red_bundle(tmp_path).card, red_bundle(tmp_path, patch_size_px=460, input_px=224, mpp=None).card
    assert default_batch(small, "cpu", 10_000) == 256
    assert default_batch(large, "cpu", 10_000) == 12
    assert default_batch(small, "cpu", 3) == 3
