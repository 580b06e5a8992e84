"""Networks written otherwise compute the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wsi_pipeline.inference.rewrite import MapProduct, fold, multiply_small_maps, rewrite
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


@pytest.mark.parametrize(("side_px", "products"), [(50, 3), (32, 7), (96, 0)])
def test_only_convolutions_over_maps_smaller_than_their_kernel_are_replaced(side_px, products):
    torch.manual_seed(0)
    network = build_network("torchvision/resnet18", 2).eval()
    written = rewrite(network, side_px)
    found = [name for name, module in written.named_modules() if isinstance(module, MapProduct)]
    assert len(found) == products
    assert all(name.startswith(("layer3.", "layer4.")) for name in found)
    fields = torch.randn(4, 3, side_px, side_px)
    with torch.inference_mode():
        torch.testing.assert_close(written(fields), network(fields), rtol=1e-4, atol=1e-4)


def test_grouped_dilated_and_mirrored_convolutions_stay():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
    )
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(2), layers).eval()
    assert not any(isinstance(module, MapProduct) for module in multiply_small_maps(network, 8).modules())
