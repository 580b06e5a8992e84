"""The two kinds of arrays do the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_pipeline.inference.arrays import HostArrays
from wsi_pipeline.inference.torch_arrays import TorchArrays

HOST, TORCH = HostArrays(), TorchArrays("cpu")
KINDS = pytest.mark.parametrize("kind", [HOST, TORCH], ids=["host", "torch"])


@KINDS
@given(data=st.data(), size=st.integers(1, 6))
def test_fields_are_cut_where_their_windows_say(kind, data, size):
    shape = st.tuples(st.integers(size, 12), st.integers(size, 12), st.just(3))
    pixels = data.draw(arrays(np.uint8, shape))
    if data.draw(st.booleans()):
        pixels = pixels[:, ::-1]  # not as it lies in memory
    height, width, _ = pixels.shape
    corner = st.tuples(st.integers(0, width - size), st.integers(0, height - size))
    windows = np.array(data.draw(st.lists(corner, min_size=1, max_size=5)), np.int64)
    found = kind.cut(kind.take(pixels.copy()), kind.take(windows), size)
    expected = [pixels[y : y + size, x : x + size] for x, y in windows]
    np.testing.assert_array_equal(np.asarray(found), np.stack(expected))


@KINDS
def test_batches_are_filled_up_with_black(kind):
    fields = np.random.default_rng(0).integers(1, 256, (3, 4, 4, 3), np.uint8)
    found = np.asarray(kind.fill(kind.take(fields), 5))
    np.testing.assert_array_equal(found[:3], fields)
    assert found.shape == (5, 4, 4, 3)
    assert not found[3:].any()
    np.testing.assert_array_equal(np.asarray(kind.fill(kind.take(fields), 3)), fields)


def test_symmetries_come_in_the_same_order_and_are_all_there():
    fields = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    forms = [form.copy() for form in HOST.symmetries(fields)]
    np.testing.assert_array_equal(forms[0], fields)
    assert len({form.tobytes() for form in forms}) == 8
    for form, same in zip(forms, TORCH.symmetries(torch.from_numpy(fields)), strict=True):
        assert same.is_contiguous()
        np.testing.assert_array_equal(form, same)


@KINDS
def test_answers_are_joined_stacked_and_sent(kind):
    one, two = (np.random.default_rng(seed).random((2, 3), np.float32) for seed in (1, 2))
    stacked = kind.stack([kind.take(one), kind.take(two)])
    np.testing.assert_array_equal(kind.send(stacked)(), np.stack([one, two], 1))
    np.testing.assert_array_equal(kind.send(kind.join([kind.take(one), kind.take(two)]))(), np.concatenate([one, two]))
    np.testing.assert_array_equal(kind.send(kind.join([kind.take(one)]))(), one)
