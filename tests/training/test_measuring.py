import numpy as np
import pytest
from shades import margins, red_bundle, some_patches

from wsi_pipeline.datasets import ahead
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.training.measuring import predict_logits


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 3 * 50 * 50 * 7)
    monkeypatch.setattr(ahead, "READ_TOGETHER", 3)


def test_logits_come_in_the_order_that_was_asked_for(tmp_path):
    dataset, indices = some_patches(), np.array([40, 3, 3, *range(70, 50, -1)])
    found = predict_logits(red_bundle(tmp_path), dataset, indices, device="cpu")
    assert found.dtype == np.float32
    assert found.shape == (len(indices), 2)
    assert found[:, 1] - found[:, 0] == pytest.approx(margins(np.array(dataset.reds)[indices]), abs=1e-4)


def test_of_no_patches_there_are_none(tmp_path):
    found = predict_logits(red_bundle(tmp_path), some_patches(), np.array([], np.int64), device="cpu")
    assert found.shape == (0, 2)


def test_all_broken_patches_are_told_at_once_and_no_number_is_made_up(tmp_path):
    dataset = some_patches(broken={2, 30})
    names = ".*".join(dataset.samples[n].name for n in (2, 30))
    with pytest.raises(DatasetError, match=rf"2 of 72 patches cannot be used: {names}"):
        predict_logits(red_bundle(tmp_path), dataset, np.arange(72), device="cpu")
    predict_logits(red_bundle(tmp_path), dataset, np.arange(3, 30), device="cpu")
