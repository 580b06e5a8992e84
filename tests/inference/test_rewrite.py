"""Networks written otherwise compute the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wsi_pipeline.inference.rewrite import fold, rewrite, rewrite_small_maps
from wsi_pipeline.inference.small_maps import MapProduct, WinogradConvolution
from wsi_pipeline.models.architectures import build_network


def test_folding_leaves_no_batch_norm_behind_a_convolution_and_the_network_as_it_was():
    network = build_network("torchvision/resnet18", 2).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_product_gives_what_the_convolution_gives(size, kernel, stride, padding, bias, seed):
    if any(length + 2 * pad < reach for length, pad, reach in zip(size, padding, kernel, strict=True)):
        return
    torch.manual_seed(seed)
    convolution = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias)
    maps = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(MapProduct(convolution, *size)(maps), convolution(maps), rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_winograd_gives_what_the_convolution_gives(size, channels, bias, seed):
    torch.manual_seed(seed)
    convolution = nn.Conv2d(*channels, 3, padding=1, bias=bias)
    maps = torch.randn(2, channels[0], *size)
    with torch.inference_mode():
        torch.testing.assert_close(
            WinogradConvolution(convolution, *size)(maps), convolution(maps), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("side_px", "products", "winograds"), [(50, 3, 3), (32, 7, 3), (96, 0, 3), (224, 0, 0)])
def test_only_convolutions_over_small_maps_are_replaced(side_px, products, winograds):
    torch.manual_seed(0)
    network = build_network("torchvision/resnet18", 2).eval()
    fields = torch.randn(4, 3, side_px, side_px)
    with torch.inference_mode():
        expected = network(fields)
        for small_maps in ("convolutions", "products", "winograd"):
            written = rewrite(network, side_px, small_maps)
            kinds = [type(module) for module in written.modules()]
            assert kinds.count(MapProduct) == (0 if small_maps == "convolutions" else products)
            assert kinds.count(WinogradConvolution) == (winograds if small_maps == "winograd" else 0)
            torch.testing.assert_close(written(fields), expected, rtol=1e-4, atol=1e-4)


def test_winograd_rounds_to_a_millionth():
    """Against float64, on a ResNet-18's own sizes."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(256, 256, 3, padding=1, bias=False)
    maps = torch.randn(64, 256, 4, 4).relu()
    with torch.inference_mode():
        found = WinogradConvolution(convolution, 4, 4)(maps)
        exact = convolution.double()(maps.double())
    assert ((found - exact).square().mean() / exact.square().mean()).sqrt() < 2e-6


def test_grouped_dilated_and_mirrored_convolutions_stay():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
    )
    for size in (2, 4):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(size), layers).eval()
        kinds = {type(module) for module in rewrite_small_maps(network, 8, winograd=True).modules()}
        assert not kinds & {MapProduct, WinogradConvolution}


def test_a_convolution_that_is_given_several_sizes_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            first = self.convolution(nn.functional.adaptive_avg_pool2d(x, 2))
            return first.mean() + self.convolution(nn.functional.adaptive_avg_pool2d(x, 4))

    written = rewrite_small_maps(Twice().eval(), 8, winograd=True)
    assert isinstance(written.convolution, nn.Conv2d)
