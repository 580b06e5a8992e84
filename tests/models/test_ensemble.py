"""Ensembles: the mean of what their members say, and nothing from outside their folder."""

import json
import shutil
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from cards import card
from helpers import write_redness_bundle
from torch import nn

from wsi_pipeline.errors import BundleError, OutputError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import ModelBundle, load_bundle, save_bundle, save_ensemble
from wsi_pipeline.models.card import Context
from wsi_pipeline.models.ensemble import Ensemble, Member

SIDE = 20
CONTEXT = Context(sigmas=(1.0,), shrink=1.0, intercept=0.0, own=1.0, near=(1.0,), trust=(0.0,))


def tiny(folder: Path, *, seed: int = 0, logits: tuple[float, float] | None = None, **changes) -> ModelBundle:
    """A small network; with `logits`, one that gives these whatever it sees."""
    torch.manual_seed(seed)
    network = build_network(changes.get("architecture", "idc-cnn"), 2)
    if logits is not None:
        nn.init.zeros_(network.head[-1].weight)
        network.head[-1].bias.data = torch.tensor(logits)
    values = {"architecture": "idc-cnn", "patch_size_px": SIDE, "input_px": SIDE, "name": folder.name}
    return save_bundle(folder, network, card(**(values | changes)))


@pytest.fixture
def pair(tmp_path) -> list[ModelBundle]:
    """Two constant members: probabilities 0.8 and 0.25 of IDC once they are calibrated."""
    sure = tiny(tmp_path / "sure", logits=(0.0, 2.0), temperature=2.0, bias=(0.0, log(4) - 1))
    doubtful = tiny(tmp_path / "doubtful", logits=(1.0, 1.0), bias=(log(3), 0.0), context=CONTEXT)
    return [sure, doubtful]


@pytest.fixture
def whole(tmp_path, pair) -> Path:
    return save_ensemble(tmp_path / "both", pair, pair[0].card.model_copy(update={"temperature": 1, "bias": None})).path


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_ensemble_is_not_written_over_one_of_its_members(pair):
    before = (pair[0].path / "model.json").read_bytes()
    with pytest.raises(OutputError, match="is one of the members itself"):
        save_ensemble(pair[0].path, pair, pair[0].card)
    assert (pair[0].path / "model.json").read_bytes() == before


def test_an_ensemble_says_the_mean_of_its_members_calibrated_probabilities(whole):
    network = load_bundle(whole).build()
    images = torch.rand(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        logits, members = network(images), network.member_probabilities(images)
    assert members.shape == (3, 2, 2)
    torch.testing.assert_close(members[:, :, 1], torch.tensor([[0.8, 0.25]] * 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(logits.exp(), members.mean(1))
    torch.testing.assert_close(logits.softmax(1)[:, 1], torch.full((3,), (0.8 + 0.25) / 2), atol=1e-3, rtol=0)


def test_the_card_of_an_ensemble_is_its_own(whole, pair):
    bundle = load_bundle(whole)
    written = bundle.card
    assert (written.architecture, written.weights, written.members) == ("ensemble", None, ("member-1", "member-2"))
    assert (written.mean, written.std, written.input_px) == ((0, 0, 0), (1, 1, 1), SIDE)
    assert (written.temperature, written.bias, written.context) == (1, None, None)
    assert written.threshold == pair[0].card.threshold
    assert (bundle.view.size_px, bundle.view.mpp, bundle.positive) == (SIDE, 4.0, 1)


def test_members_see_what_they_see_by_themselves(tmp_path):
    """Three networks, input sizes and normalisations, against a predictor of each."""
    members = [
        tiny(tmp_path / "plain", seed=1, temperature=0.7, bias=(0.3, -0.2)),
        tiny(tmp_path / "large", seed=2, input_px=33, mean=(0.8, 0.6, 0.7), std=(0.1, 0.2, 0.3)),
        tiny(tmp_path / "seven", seed=3, architecture="idc-residual-7ch", mean=(0, 0, 0), std=(1, 1, 1)),
    ]
    whole = save_ensemble(tmp_path / "three", members, members[2].card)
    fields = torch.randint(0, 256, (5, SIDE, SIDE, 3), dtype=torch.uint8)
    alone, together = (
        np.stack([Predictor(bundle=bundle, device="cpu", batch_size=5).probabilities(fields) for bundle in bundles])
        for bundles in (members, [whole])
    )
    assert np.ptp(alone[..., 1]) > 0.01
    np.testing.assert_allclose(together[0], alone.mean(0), atol=1e-6)


def test_the_ensembles_own_calibration_comes_after_the_mean(tmp_path, pair):
    own = card(patch_size_px=SIDE, input_px=SIDE, temperature=2.0, bias=(0.0, 0.5))
    whole = save_ensemble(tmp_path / "calibrated", pair, own)
    predictor = Predictor(bundle=whole, device="cpu", batch_size=1)
    (found,) = predictor.probabilities(torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8))[:, 1]

    def calibrated(p: float) -> float:
        odds = (p / (1 - p)) ** 0.5 * np.exp(0.5)
        return odds / (1 + odds)

    assert found == pytest.approx(calibrated(0.525), abs=1e-3)
    spread = predictor.predict_fields(np.zeros((1, SIDE, SIDE, 3), np.uint8))[1]
    assert spread == pytest.approx(np.std([calibrated(0.8), calibrated(0.25)]), abs=1e-3)


def test_probabilities_near_nought_do_not_become_infinite_logits():
    class Says(nn.Module):
        def __init__(self, logit: float) -> None:
            super().__init__()
            self.logit = logit

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, self.logit]]).expand(len(x), 2)

    def logits(*values: float) -> torch.Tensor:
        return Ensemble([Member(Says(value), card()) for value in values])(torch.zeros(1, 3, 50, 50))[0]

    torch.testing.assert_close(logits(-300.0, -300.0), torch.tensor([0.0, -300.0]))
    torch.testing.assert_close(logits(-300.0, 300.0), torch.tensor([-log(2), -log(2)]))


def test_the_digest_follows_everything(whole, tmp_path):
    digests = {load_bundle(whole).digest}
    edit(whole / "model.json", temperature=1.5)
    digests.add(load_bundle(whole).digest)
    edit(whole / "member-2" / "model.json", temperature=1.5)
    digests.add(load_bundle(whole).digest)
    shutil.rmtree(whole / "member-1")
    tiny(whole / "member-1", seed=9)
    digests.add(load_bundle(whole).digest)
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["../sure", "/", ".", "", "member-1/../../sure", "link"])
def test_members_lie_inside_the_folder(whole, name):
    (whole / "link").symlink_to(whole.parent / "sure")
    members = ["member-1", str(whole.parent / "sure") if name == "/" else name]
    edit(whole / "model.json", members=members)
    with pytest.raises(BundleError, match=r"its member '.*' lies outside the folder"):
        load_bundle(whole)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"members": ["member-1"]}, "Name two folders at least"),
        ({"members": ["member-1", "./member-1"]}, "each of them once"),
        ({"members": ["member-1", "member-3"]}, "member-3/model.json: cannot be read"),
        ({"members": []}, "either weights or the members"),
        ({"mean": [0.5, 0.5, 0.5]}, r"but has architecture 'ensemble', mean \(0.5.*normalises for itself"),
        ({"architecture": "idc-cnn"}, "has architecture 'idc-cnn'"),
        ({"input_px": 40}, "input_px 40"),
        ({"weights": {"sha256": "0" * 64}}, "either weights or the members"),
        ({"class_names": ["benign", "IDC"]}, r"member-1: its class_names is \('other', 'IDC'\), the ensemble's is"),
        ({"positive_class": "other"}, "its positive_class is IDC"),
        ({"mpp": 0.5}, r"its mpp is 4.0, the ensemble's is 0.5"),
        ({"mpp": None}, r"its mpp is 4.0, the ensemble's is None"),
        ({"patch_size_px": 40, "input_px": 40}, "its patch_size_px is 20"),
    ],
)
def test_cards_of_ensembles_are_checked(whole, changes, expected):
    edit(whole / "model.json", **changes)
    with pytest.raises(BundleError, match=expected):
        load_bundle(whole)


def test_an_altered_member_is_refused(whole):
    weights = whole / "member-2" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=r"member-2.model.safetensors: its SHA-256"):
        load_bundle(whole)


def test_an_ensemble_is_no_member(tmp_path, whole, pair):
    with pytest.raises(BundleError, match="both: cannot be a member"):
        save_ensemble(tmp_path / "nested", [pair[0], load_bundle(whole)], pair[0].card)
    edit(whole / "member-1" / "model.json", architecture="ensemble", weights=None, members=["a", "b"])
    with pytest.raises(BundleError, match="member-1: is an ensemble itself"):
        load_bundle(whole)


def test_torchscript_is_no_member(tmp_path, pair):
    script = load_bundle(write_redness_bundle(tmp_path / "red", size_px=SIDE, mpp=4.0))
    with pytest.raises(BundleError, match=r"red: cannot be a member.*model.safetensors"):
        save_ensemble(tmp_path / "mixed", [pair[0], script], pair[0].card)


@pytest.mark.parametrize("which", ["none", "one", "unlike"])
def test_a_refused_ensemble_leaves_what_was_there(whole, pair, tmp_path, which):
    members = {"none": [], "one": pair[:1], "unlike": [pair[0], tiny(tmp_path / "unlike", mpp=0.5)]}[which]
    before = load_bundle(whole).digest
    with pytest.raises(BundleError, match=r"Name two|its mpp is"):
        save_ensemble(whole, members, pair[0].card)
    assert load_bundle(whole).digest == before


def test_members_in_the_folder_stay_where_they_are(tmp_path, pair):
    folder = tmp_path / "grown"
    inside = tiny(folder / "member-1", seed=5), tiny(folder / "folds" / "second", seed=6)
    whole = save_ensemble(folder, [pair[0], *inside], pair[0].card)
    assert whole.card.members == ("member-2", "member-1", "folds/second")
    assert sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")) == [
        "folds/second",
        "member-1",
        "member-2",
    ]
    assert load_bundle(folder / "member-2").card == pair[0].card


def test_a_folder_is_no_whole_ensemble_while_it_is_written(whole, pair, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        save_ensemble(whole, [pair[1], pair[0]], pair[0].card)
    assert not (whole / "model.json").exists()
