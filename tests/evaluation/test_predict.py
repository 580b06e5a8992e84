import numpy as np
import pytest
import torch
from shades import Shades, margins, red_bundle, sigmoid, some_patches
from torch import nn

from wsi_pipeline.datasets import ahead
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.evaluation.predict import predict_dataset, shrink
from wsi_pipeline.geometry import Size
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.base import ModelBundle

CPU = "cpu"


def predictor(bundle, **more):
    return Predictor(bundle=bundle, device=CPU, batch_size=16, **more)


def test_probabilities_before_and_after_calibration_are_the_formula(tmp_path):
    dataset = some_patches()
    bundle = red_bundle(tmp_path, temperature=2.0, bias=(0.0, -0.7))
    found = predict_dataset(dataset, predictor(bundle))
    margin = margins(dataset.reds)
    assert found.rows.tolist() == list(range(len(dataset)))
    assert found.before[:, 1] == pytest.approx(sigmoid(margin), abs=1e-5)
    assert found.after[:, 1] == pytest.approx(sigmoid(margin / 2 - 0.7), abs=1e-5)
    assert found.before.sum(axis=1) == pytest.approx(1)


def test_they_are_the_predictors_own_to_the_last_bit(tmp_path):
    dataset = some_patches()
    bundle = red_bundle(tmp_path, temperature=1.3, bias=(0.0, 0.4))
    fields = np.stack([dataset.read(n) for n in range(len(dataset))])
    expected = predictor(bundle).probabilities(fields)
    assert np.array_equal(predict_dataset(dataset, predictor(bundle)).after, expected)


def test_order_holds_over_chunks_and_what_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 3 * 50 * 50 * 7)
    monkeypatch.setattr(ahead, "READ_TOGETHER", 3)
    dataset = some_patches(broken={0, 8, 9, 40})
    found = predict_dataset(dataset, predictor(red_bundle(tmp_path)), thumbs=True)
    kept = [n for n in range(len(dataset)) if n not in dataset.broken]
    assert found.rows.tolist() == kept
    assert found.after[:, 1] == pytest.approx(sigmoid(margins(np.array(dataset.reds)[kept])), abs=1e-5)
    assert [bad.name for bad in found.unreadable] == [dataset.samples[n].name for n in (0, 8, 9, 40)]
    assert found.thumbs.shape == (len(kept), 8, 8, 3)
    assert found.thumbs[:, 3, 3, 0].tolist() == [dataset.reds[n] for n in kept]


def test_a_whole_chunk_that_cannot_be_read_costs_itself_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 3 * 50 * 50 * 4)
    found = predict_dataset(some_patches(broken={4, 5, 6, 7}), predictor(red_bundle(tmp_path)))
    assert len(found.rows) == 68


def test_nothing_readable_is_an_error_that_names_a_file(tmp_path):
    dataset = Shades([1, 2], [0, 1], ["a", "b"], broken={0, 1})
    with pytest.raises(DatasetError, match=r"none of its patches can be read \(a/0\.png"):
        predict_dataset(dataset, predictor(red_bundle(tmp_path)))


def test_patches_that_are_not_square_are_cut_to_their_middle(tmp_path):
    class Wide(Shades):
        def read(self, index):
            pixels = super().read(index)
            pixels[:, :10, 0] = pixels[:, -10:, 0] = 255
            return pixels

    found = predict_dataset(
        Wide([100], [1], ["a"], patch_size=Size(70, 50)), predictor(red_bundle(tmp_path)), thumbs=True
    )
    assert found.after[0, 1] == pytest.approx(sigmoid(margins([100]))[0], abs=1e-5)


class Corner(nn.Module):
    """Looks at the top left quarter only, so that every symmetry gives another answer."""

    def forward(self, x):
        logit = 6 * (x[:, 0, :25, :20].mean(dim=(1, 2)) - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def test_symmetries_are_those_of_the_predictor(tmp_path):
    class Noise(Shades):
        def read(self, index):
            return np.random.default_rng(index).integers(0, 256, (50, 50, 3), dtype=np.uint8)

    card = red_bundle(tmp_path, temperature=1.5, bias=(0.0, 0.5)).card
    bundle = ModelBundle(card=card, path=tmp_path, digest="", build=lambda: Corner().eval())
    dataset = Noise([0] * 5, [0, 1, 0, 1, 0], ["a"] * 5)
    fields = np.stack([dataset.read(n) for n in range(5)])
    found = predict_dataset(dataset, predictor(bundle), tta=True)
    assert found.after == pytest.approx(predictor(bundle, tta=True).probabilities(fields), abs=1e-6)
    assert found.after != pytest.approx(predictor(bundle).probabilities(fields), abs=1e-4)
    plain = red_bundle(tmp_path).card
    raw = ModelBundle(card=plain, path=tmp_path, digest="", build=lambda: Corner().eval())
    assert found.before == pytest.approx(predictor(raw, tta=True).probabilities(fields), abs=1e-6)


def test_small_pictures_are_means():
    fields = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    expected = fields.reshape(2, 8, 6, 8, 6, 3).mean(axis=(2, 4))
    assert np.abs(shrink(fields) - expected).max() <= 0.5
    assert shrink(fields[:, :50, :50]).shape == (2, 8, 8, 3)
    assert shrink(fields[:, :4, :4]).shape == (2, 8, 8, 3)
