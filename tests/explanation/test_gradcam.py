"""Grad-CAM lies where the evidence is, has the right sign and unit, and is what the paper says."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import write_bundle_of, write_redness_bundle
from spots import (
    BLUE,
    CELL,
    SIDE,
    Spots,
    blank,
    bundle_of,
    noise,
    spot_evidence,
    spots_bundle,
    with_spot,
)
from torch import nn
from torch.nn import functional

from wsi_pipeline.errors import BundleError, ConfigError
from wsi_pipeline.explanation.gradcam import GradCam, gradcam, log_odds
from wsi_pipeline.explanation.script import open_script
from wsi_pipeline.models.architectures import build_network, gradcam_layer
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.models.ensemble import Ensemble, Member

CPU = "cpu"


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    return spots_bundle(tmp_path_factory.mktemp("spots") / "bundle")


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return build_network("torchvision/resnet18", 2).eval()


def by_hand(network: nn.Module, layer: nn.Module, images: torch.Tensor, index: int) -> np.ndarray:
    """Grad-CAM of two classes at the stage's own positions, by autograd alone."""
    kept = {}

    def keep(_module, _given, out):
        kept["map"] = out.detach().requires_grad_()
        return kept["map"].clone()  # what follows may work in place

    handle = layer.register_forward_hook(keep)
    logits = network(images)
    handle.remove()
    gradient = torch.autograd.grad((logits[:, index] - logits[:, 1 - index]).sum(), kept["map"])[0]
    return torch.relu((gradient.mean((2, 3), keepdim=True) * kept["map"]).sum(1)).detach()


def normalised(bundle, fields):
    rgb = torch.from_numpy(fields).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (bundle.card.mean, bundle.card.std))
    return (rgb - mean) / std


def enlarged(coarse: torch.Tensor, side: int = SIDE) -> np.ndarray:
    """Each position a share of the field, in the unit of log-odds."""
    values = coarse[:, None].float() * coarse.shape[1] * coarse.shape[2]
    return functional.interpolate(values, (side, side), mode="bilinear")[:, 0].numpy()


@pytest.mark.parametrize("symmetries", [False, True])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (0, 4), (4, 0), (3, 1)])
def test_the_map_lights_up_where_the_evidence_is_and_nowhere_else(spots, row, col, symmetries):
    found = gradcam(spots, with_spot(row, col), 1, CPU, symmetries=symmetries)[0]
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    # The weighted middle is the spot's; at the border the map goes on at its full height.
    near = (abs(y - (row + 0.5) * CELL) < CELL) & (abs(x - (col + 0.5) * CELL) < CELL)
    assert found[~near].max() == pytest.approx(0, abs=1e-4)
    peak = np.unravel_index(found.argmax(), found.shape)
    assert (peak[0] // CELL, peak[1] // CELL) == (row, col)
    inner = found[row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL]
    assert inner.mean() > 0.5 * found.max() > 1


def test_values_are_the_formula_s_in_log_odds(spots):
    fields = noise(6)
    fields[:3] = np.repeat(np.repeat(noise(3, 5), CELL, 1), CELL, 2)
    coarse = torch.from_numpy(spot_evidence(fields))[:, None]
    expected = functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[:, 0].numpy()
    found = gradcam(spots, fields, 1, CPU, symmetries=False)
    assert found.dtype == np.float32
    assert found.shape == (6, SIDE, SIDE)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert expected.max() > 5


def test_a_field_full_of_evidence_has_its_log_odds_everywhere(spots):
    field = np.full((1, SIDE, SIDE, 3), (200, 60, 60), np.uint8)
    with torch.inference_mode():
        zero, one = spots.build()(torch.from_numpy(field).permute(0, 3, 1, 2) / 255)[0].tolist()
    np.testing.assert_allclose(gradcam(spots, field, 1, CPU), one - zero, rtol=1e-5)


def test_what_speaks_for_one_class_does_not_speak_for_the_other(spots):
    red, blue = with_spot(1, 1), with_spot(3, 3, BLUE)
    assert gradcam(spots, red, 0, CPU).max() == 0
    assert gradcam(spots, blue, 1, CPU).max() == 0
    assert gradcam(spots, blue, 0, CPU)[0].argmax() // SIDE // CELL == 3
    assert gradcam(spots, blank(), 1, CPU).max() == 0


def test_calibration_counts_into_the_unit(tmp_path):
    bundle = spots_bundle(tmp_path / "bundle")
    cooler = replace(bundle, card=bundle.card.model_copy(update={"temperature": 2.0, "bias": (0.0, 3.0)}))
    field = with_spot(2, 2)
    np.testing.assert_allclose(2 * gradcam(cooler, field, 1, CPU), gradcam(bundle, field, 1, CPU), rtol=1e-5)


def test_log_odds_of_many_classes():
    logits = torch.randn(5, 4, dtype=torch.float64)
    p = torch.softmax(logits, 1).numpy()
    for index in range(4):
        got = log_odds(torch.log_softmax(logits, 1), index).numpy()
        np.testing.assert_allclose(got, np.log(p[:, index] / (1 - p[:, index])))
    sure = torch.log_softmax(torch.tensor([[0.0, 200.0]]), 1)
    assert log_odds(sure, 1).item() == pytest.approx(200)


@pytest.mark.parametrize(
    ("name", "side", "positions"),
    [
        ("torchvision/resnet18", 50, (2, 2)),
        ("resnet18-50px", 50, (4, 4)),
        ("idc-residual-7ch", 50, (7, 7)),
        ("idc-cnn", 50, (6, 6)),
        ("resnet50-dense", 64, (2, 2)),
        ("efficientnet-lite0", 96, (3, 3)),
    ],
)
def test_every_architecture_gives_what_autograd_gives_by_hand(name, side, positions):
    torch.manual_seed(1)
    network = build_network(name, 2).eval()
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)} if name == "idc-residual-7ch" else {}
    bundle = bundle_of(lambda: network, architecture=name, patch_size_px=side, input_px=side, **plain)
    fields, cam = noise(2, side), GradCam(bundle, CPU, symmetries=False)
    for index in (0, 1):
        found = cam.maps(fields, index)
        coarse = by_hand(network, gradcam_layer(network), normalised(bundle, fields), index)
        assert cam.positions == (positions,) == (tuple(coarse.shape[1:]),)
        np.testing.assert_allclose(found, enlarged(coarse, side), atol=1e-4 * found.max())
    assert found.max() > 0


@pytest.mark.parametrize(
    ("name", "side"),
    [("torchvision/resnet18", 50), ("idc-residual-7ch", 50), ("idc-cnn", 50), ("efficientnet-lite0", 96)],
)
def test_the_layer_is_the_last_one_before_the_mean_over_places(name, side):
    """Then, uncut, a map's mean is the log-odds but for a constant: what `docs/explanation.md` promises of the unit."""
    torch.manual_seed(1)
    network = build_network(name, 2).eval().double()
    kept = {}
    handle = gradcam_layer(network).register_forward_hook(lambda _module, _given, out: kept.update(map=out))
    images = torch.rand(6, 3, side, side, dtype=torch.float64) * torch.linspace(0.2, 1, 6)[:, None, None, None]
    logits = network(images)
    handle.remove()
    gradient = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), kept["map"])[0]
    whole = (gradient.sum((2, 3)) * kept["map"].mean((2, 3))).sum(1)
    rest = (logits[:, 1] - logits[:, 0] - whole).detach()
    assert whole.std() > 1e-6
    assert rest.std() < 1e-3 * whole.std()


def test_a_network_that_sees_resized_fields(resnet):
    bundle = bundle_of(lambda: resnet, patch_size_px=40, input_px=80)
    found = gradcam(bundle, noise(2, 40), 1, CPU, symmetries=False)
    large = functional.interpolate(normalised(bundle, noise(2, 40)), (80, 80), mode="bilinear", antialias=True)
    np.testing.assert_allclose(found, enlarged(by_hand(resnet, resnet.layer4, large, 1), 40), atol=1e-4)


@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript_of_a_network_gives_what_the_network_gives(tmp_path, resnet, how):
    folder = write_bundle_of(tmp_path / "scripted", resnet, size_px=50, mpp=4.0)
    if how == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.jit.script(resnet).save(str(folder / "model.pt"))
    bundle = bundle_of(lambda: resnet, mean=(0, 0, 0), std=(1, 1, 1))
    fields = noise(2)
    expected = gradcam(bundle, fields, 1, CPU, symmetries=False)
    assert expected.max() > 0
    found = gradcam(load_bundle(folder), fields, 1, CPU, symmetries=False)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_turned_tissue_gives_the_same_map_turned():
    torch.manual_seed(3)
    network = build_network("idc-cnn", 2).eval()
    bundle, fields = bundle_of(lambda: network, architecture="idc-cnn"), noise(1, seed=3)
    upright = gradcam(bundle, fields, 1, CPU)
    turned = gradcam(bundle, np.rot90(fields, 1, (1, 2)).copy(), 1, CPU)
    mirrored = gradcam(bundle, fields[:, :, ::-1].copy(), 1, CPU)
    np.testing.assert_allclose(turned, np.rot90(upright, 1, (1, 2)), atol=1e-4)
    np.testing.assert_allclose(mirrored, upright[:, :, ::-1], atol=1e-4)
    single = gradcam(bundle, fields, 1, CPU, symmetries=False)
    assert abs(single - upright).max() > 1e-3


def test_an_ensemble_s_map_is_the_mean_of_its_members(resnet):
    torch.manual_seed(2)
    other = build_network("idc-cnn", 2).eval()
    makes = [
        (resnet, {"temperature": 0.5}),
        (other, {"architecture": "idc-cnn", "mean": (0.1, 0.2, 0.3)}),
    ]
    members = [bundle_of(lambda network=network: network, **changes) for network, changes in makes]
    whole = bundle_of(
        lambda: Ensemble([Member(member.build(), member.card) for member in members]).eval(),
        architecture="ensemble",
        mean=(0, 0, 0),
        std=(1, 1, 1),
        weights=None,
        members=("a", "b"),
    )
    fields, cam = noise(1), GradCam(whole, CPU, symmetries=False)
    expected = np.mean([gradcam(member, fields, 1, CPU, symmetries=False) for member in members], axis=0)
    np.testing.assert_allclose(cam.maps(fields, 1), expected, atol=1e-5)
    assert cam.positions == ((2, 2), (6, 6))
    own = replace(whole, card=whole.card.model_copy(update={"temperature": 2.0}))
    np.testing.assert_allclose(gradcam(own, fields, 1, CPU, symmetries=False), expected / 2, atol=1e-5)


def test_a_map_does_not_depend_on_the_batch(spots):
    fields = noise(5)
    one = gradcam(spots, fields, 1, CPU, batch_size=2)
    np.testing.assert_allclose(one, gradcam(spots, fields, 1, CPU), atol=1e-6)
    assert gradcam(spots, fields[:0], 1, CPU).shape == (0, SIDE, SIDE)


class Tokens(nn.Module):
    """A transformer in the small: patches embedded by a convolution, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.last = nn.Conv2d(3, 4, 10, 10), nn.LayerNorm(4), nn.Linear(100, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        return self.last(functional.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1))


class TwoWays(Spots):
    """Its answer depends on more than the last map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x.mean((1, 2, 3))[:, None]


class NoPooling(nn.Module):
    """A convolution, then straight to a linear layer: the convolution's own map is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 10, 10), nn.Linear(100, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.conv(x)).flatten(1))


class InPlace(NoPooling):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu_(self.conv(x)).flatten(1))


@pytest.mark.parametrize(
    ("network", "why"), [(Tokens(), "is a transformer"), (TwoWays(), "more than one way from the image to the answer")]
)
def test_torchscript_that_cannot_be_cut_is_refused(tmp_path, network, why):
    bundle = load_bundle(write_bundle_of(tmp_path / "odd", network, size_px=50, mpp=4.0))
    with pytest.raises(BundleError, match=rf"odd: its TorchScript .*{why}\. Grad-CAM explains convolutional"):
        GradCam(bundle, CPU)


def test_torchscript_without_pooling(tmp_path):
    torch.manual_seed(0)
    network = NoPooling().eval()
    cam = GradCam(load_bundle(write_bundle_of(tmp_path / "flat", network, size_px=50, mpp=4.0)), CPU, symmetries=False)
    fields = noise(2)
    found = cam.maps(fields, 1)
    assert cam.positions == ((5, 5),)
    images = torch.from_numpy(fields).permute(0, 3, 1, 2).float() / 255
    expected = enlarged(by_hand(network, network.conv, images, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("network", [Spots(), NoPooling(), InPlace()])
def test_torchscript_that_was_cut_still_computes_the_same(tmp_path, network):
    bundle = load_bundle(write_bundle_of(tmp_path / "whole", network, size_px=50, mpp=4.0))
    cut = open_script(bundle.build(), bundle.path)
    images = torch.rand(3, 3, 50, 50)
    with torch.inference_mode():
        assert torch.equal(cut(images), network(images))


def test_what_cannot_be_explained_is_refused_by_name(tmp_path, spots):
    without = load_bundle(write_redness_bundle(tmp_path / "redness"))
    with pytest.raises(BundleError, match="redness: its TorchScript has no convolution"):
        gradcam(without, blank(), 1, CPU)
    with pytest.raises(ConfigError, match="2 is no class"):
        gradcam(spots, blank(), 2, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("scripted", [False, True])
def test_a_gpu_gives_the_same_map(tmp_path, resnet, scripted):
    bundle = bundle_of(lambda: copy.deepcopy(resnet), mean=(0, 0, 0), std=(1, 1, 1))
    if scripted:
        bundle = load_bundle(write_bundle_of(tmp_path / "scripted", resnet, size_px=50, mpp=4.0))
    expected = gradcam(bundle, noise(20), 1, CPU)
    found = gradcam(bundle, noise(20), 1, "cuda")
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())
