"""The seven channels against scikit-image."""

import csv
import io
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2hsv, rgb2lab

from wsi_pipeline.models.colour import SevenChannels, hue_and_saturation, lightness_and_a, seven_channels

STEPS = np.arange(0, 256, 5)
GRID = np.stack(np.meshgrid(STEPS, STEPS, STEPS, indexing="ij"), -1).reshape(1, -1, 3)
GREYS = np.repeat(np.arange(256), 3).reshape(1, -1, 3)
HUES = np.array([[high if k >> c & 1 else low for c in range(3)] for k in range(8) for low, high in [(0, 255), (0, 1)]])
COLOURS = np.concatenate([GRID, GREYS, HUES[None], 255 - HUES[None]], 1).astype(np.uint8)
"""Every fifth value of each of R, G, B, all greys, and the corners of the cube: primary colours, black, white."""


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.permute(1, 2, 0).numpy()


def fractions(dtype) -> np.ndarray:
    return COLOURS.astype(dtype) / dtype(255)


def tensor(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hue_and_saturation_are_bit_for_bit_those_of_scikit_image(dtype):
    rgb = fractions(dtype)
    ours = channels_last(hue_and_saturation(tensor(rgb)))
    theirs = rgb2hsv(rgb)[..., :2]
    assert ours.dtype == theirs.dtype == dtype
    assert ours.tobytes() == theirs.tobytes()  # in C order, both of them


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2.0**-13), (np.float64, 2.0**-40)])
def test_lightness_and_a_are_those_of_scikit_image_in_double_precision(dtype, bound):
    ours = channels_last(lightness_and_a(tensor(fractions(dtype))))
    assert ours.dtype == dtype
    assert np.abs(ours.astype(np.float64) - rgb2lab(fractions(np.float64))[..., :2]).max() <= bound


def test_single_precision_is_no_worse_than_scikit_images_own():
    exact = rgb2lab(fractions(np.float64))[..., :2]
    ours = channels_last(lightness_and_a(tensor(fractions(np.float32))))
    theirs = rgb2lab(fractions(np.float32))[..., :2]
    assert theirs.dtype == np.float32
    assert np.abs(ours - exact).max() <= np.abs(theirs - exact).max()


def test_known_colours():
    rgb = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.float64)
    out = seven_channels(rgb.T[:, None])[:, 0].T
    assert out[:, :3].equal(rgb)
    np.testing.assert_allclose(out[:, 3], [0, 100, 53.24, 87.74, 32.30, 60.32], atol=0.005)
    np.testing.assert_allclose(out[:, 4], [0, 0, 80.09, -86.18, 79.19, 98.23], atol=0.01)
    np.testing.assert_array_equal(out[:, 5], [0, 0, 0, 1 / 3, 2 / 3, 5 / 6])
    np.testing.assert_array_equal(out[:, 6], [0, 0, 1, 1, 1, 1])


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 3), min_size=1, max_size=20))
def test_any_colour_is_the_one_of_scikit_image(colours):
    rgb = np.array([colours], np.float64)
    ours = channels_last(seven_channels(tensor(rgb)))
    np.testing.assert_array_equal(ours[..., :3], rgb)
    np.testing.assert_allclose(ours[..., 3:5], rgb2lab(rgb)[..., :2], rtol=0, atol=2.0**-40)
    np.testing.assert_array_equal(ours[..., 5:], rgb2hsv(rgb)[..., :2])


def test_the_gradient_is_finite_for_greys_and_black():
    rgb = tensor(fractions(np.float32)).requires_grad_()
    seven_channels(rgb).sum().backward()
    assert rgb.grad.isfinite().all()


def test_half_precision_is_kept_away():
    rgb = tensor(fractions(np.float32))[None, :, :, :5000]
    channels = SevenChannels()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = channels(rgb)
    assert mixed.dtype == torch.float32
    assert mixed.equal(channels(rgb))


def test_the_normalisation_is_part_of_the_architecture_and_not_of_the_weights():
    channels = SevenChannels()
    assert not channels.state_dict()
    rgb = torch.rand(2, 3, 4, 5)
    again = channels(rgb) * channels.std + channels.mean
    torch.testing.assert_close(again, seven_channels(rgb))


@pytest.mark.data
def test_real_patches_come_out_at_zero_mean_and_unit_variance(data_dir):
    with (data_dir / "idc" / "split_published.csv").open() as file:
        cases = {row["case"] for row in csv.DictReader(file) if row["split"] == "train"}
    with ZipFile(data_dir / "idc" / "sample-a.zip") as archive:
        names = [
            n for n in sorted(archive.namelist()) if n.endswith(".png") and n.rsplit("/", 1)[-1].split("_")[0] in cases
        ]
        patches = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names[::5]]
    patches = np.stack([patch for patch in patches if patch.shape == (50, 50, 3)])
    assert len(patches) > 100
    out = SevenChannels()(torch.from_numpy(patches).permute(0, 3, 1, 2) / 255).transpose(0, 1).flatten(1)
    assert out.mean(1).abs().max() < 0.25
    assert (out.std(1) - 1).abs().max() < 0.25
