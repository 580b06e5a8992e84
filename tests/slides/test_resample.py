import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.slides.resample import Taps, resample

ratios = st.floats(0.1, 40, allow_nan=False)


@given(first=st.integers(-500, 50_000), count=st.integers(1, 60), ratio=ratios)
def test_weights_are_shares(first: int, count: int, ratio: float) -> None:
    taps = Taps.plan(first, count, ratio)
    assert taps.weight.shape == taps.index.shape == (len(taps.index), count)
    assert np.allclose(taps.weight.sum(axis=0), 1, atol=1e-4)
    assert (taps.weight >= -1e-6).all()


@given(first=st.integers(-500, 50_000), count=st.integers(1, 40), ratio=st.floats(1.01, 40))
def test_shrinking_averages_the_stretch_it_covers(first: int, count: int, ratio: float) -> None:
    taps = Taps.plan(first, count, ratio)
    # The centre of mass of what is averaged is the middle of the stretch.
    low = np.arange(first, first + count) * ratio
    # Counted from the first pixel of each stretch: weights are float32, and the index may be a million.
    centre = np.floor(low) + (taps.weight * (taps.index - np.floor(low) + 0.5)).sum(axis=0)
    assert taps.start >= np.floor(low[0]) - 1
    assert taps.start + taps.length <= np.ceil(low[-1] + ratio) + 1
    half_pixel = 0.5 / ratio + 0.02  # pixels count as whole where they are cut
    assert (np.abs(centre - (low + ratio / 2)) <= half_pixel).all()


def test_whole_ratios_are_plain_means() -> None:
    source = np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)
    shrunk = resample(source, Taps.plan(0, 6, 4), Taps.plan(0, 12, 3))
    means = source.reshape(6, 4, 12, 3, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - means).max() <= 0.5001


def test_fractional_ratios_weigh_cut_pixels() -> None:
    source = np.zeros((1, 5, 3), np.uint8)
    source[0, :, :] = np.array([0, 100, 200, 50, 250])[:, None]
    shrunk = resample(source, Taps.plan(0, 1, 1), Taps.plan(0, 2, 2.5))
    assert shrunk[0, :, 0].tolist() == [80, 160]  # (0 + 100 + 200 / 2) / 2.5 and (200 / 2 + 50 + 250) / 2.5


def test_enlarging_is_bilinear() -> None:
    source = np.zeros((1, 3, 3), np.uint8)
    source[0, :, :] = np.array([0, 100, 200])[:, None]
    cols = Taps.plan(1, 4, 0.5)
    assert (cols.start, cols.length) == (0, 3)
    assert resample(source, Taps.plan(0, 1, 1), cols)[0, :, 0].tolist() == [25, 75, 125, 175]


def test_a_ratio_of_almost_one_moves_no_pixel_by_more_than_half() -> None:
    for ratio in (0.9992, 1.0, 1.0009):
        taps = Taps.plan(0, 100_000, ratio)
        assert taps.chooses
        assert np.abs(taps.index[0] + 0.5 - (np.arange(100_000) + 0.5) * ratio).max() <= 0.5001


def test_level_pixels_are_handed_on_as_they_are() -> None:
    source = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    assert resample(source, Taps.plan(-2, 7, 1), Taps.plan(5, 9, 1)) is source


@pytest.mark.parametrize("ratio", [1.3, 2.5, 7.1])
def test_a_flat_field_stays_flat(ratio: float) -> None:
    taps = Taps.plan(1000, 50, ratio)
    source = np.full((taps.length, taps.length, 3), 243, np.uint8)
    assert (resample(source, taps, taps) == 243).all()
