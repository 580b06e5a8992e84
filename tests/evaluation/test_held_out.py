"""The cross-validation that made a bundle, measured from the logits that it kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from painted import painted, write_idc
from sklearn.metrics import roc_auc_score

from wsi_pipeline.cli import main
from wsi_pipeline.datasets.out_of_fold import OutOfFold
from wsi_pipeline.errors import BundleError, ConfigError, DatasetError
from wsi_pipeline.evaluation import Options, evaluate
from wsi_pipeline.evaluation.predict import THUMB_PX
from wsi_pipeline.evaluation.report import render
from wsi_pipeline.evaluation.text import as_text
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.training.cross_validate import measure_folds


def out_of_fold(dataset, seed=0):
    """A network that is right more often than not; cases in three folds."""
    rng = np.random.default_rng(seed)
    margin = 3 * ((2 * dataset.labels - 1) + 2 * rng.normal(size=len(dataset)))
    _, case = np.unique(dataset.groups, return_inverse=True)
    logits = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    return OutOfFold(dataset=dataset, logits=logits, fold=case % 3)


@pytest.fixture(scope="module")
def data():
    return painted(cases=12, side=8, patch=50)


@pytest.fixture(scope="module")
def kept(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cv") / "out_of_fold.npz"
    out_of_fold(data).save(path)
    return path


@pytest.fixture(scope="module")
def bundle(data):
    """The shipped network under a card that these logits made."""
    measured, shipped = measure_folds(out_of_fold(data)), load_bundle("idc-resnet18")
    keys = ("temperature", "bias", "threshold", "metrics", "context")
    return replace(shipped, card=shipped.card.model_copy(update={key: getattr(measured, key) for key in keys}))


def options(kept, **more):
    return Options(**{"draws": 20, "device": "cpu", "out_of_fold": kept} | more)


def test_the_figures_are_those_of_the_card_and_no_network_runs(bundle, data, kept, monkeypatch):
    monkeypatch.setattr(ModelBundle, "build", None)
    found = evaluate(bundle, data, options(kept)).as_json()
    for key, part in (("cross_validation", found), ("cross_validation_without_context", found["without_context"])):
        told = bundle.card.metrics[key]
        for name in ("auroc", "average_precision", "ece", "brier"):  # these do not hang on the threshold
            assert part[name] == pytest.approx(told[name], abs=1e-4)
    assert found["balanced_accuracy"] == pytest.approx(
        bundle.card.metrics["cross_validation"]["balanced_accuracy"], abs=1e-4
    )
    assert found["seen_in_training"]["patches"] == 0
    assert found["options"]["out_of_fold"] == str(kept)
    assert "engine" not in found["options"]


def test_what_it_is_is_said_everywhere(bundle, data, kept):
    found = evaluate(bundle, data, options(kept))
    for text in (as_text(found), render(found)):
        assert "CROSS-VALIDATED" in text
        assert "chosen on all folds together" in text
    page = render(found)
    assert "idc-resnet18, cross-validated: how good" in page
    assert "nothing was fitted" not in page
    assert "The training of the network that ships" in page


def test_some_cases_are_scored_as_among_all(bundle, data, kept):
    every = evaluate(bundle, data, options(kept))
    some = evaluate(bundle, data, options(kept, cases={"case1", "case5"}))
    rows = np.isin(data.groups, ["case1", "case5"])
    assert_array_equal(some.patches.shipped, every.patches.shipped[rows])
    assert_array_equal(some.patches.labels, data.labels[rows])
    assert set(some.per_case) == {"case1", "case5"}


def test_without_context_each_patch_stands_alone(bundle, data, kept):
    found = evaluate(bundle, data, options(kept, context=False))
    margin = np.diff(OutOfFold.load(kept, data).logits, axis=1)[:, 0]
    assert not found.patches.refined
    # Each fold has a calibration of its own, which keeps the order within the fold.
    assert found.figures.scores["auroc"] == pytest.approx(roc_auc_score(data.labels, margin), abs=0.01)


def test_cases_are_put_together_with_pictures(bundle, data, kept):
    found = evaluate(bundle, data, options(kept, whole_slide=True, thumbs=True))
    thumbs = found.patches.thumbs
    assert thumbs.shape == (len(data), THUMB_PX, THUMB_PX, 3)
    red = thumbs[..., 0].mean((1, 2)) - thumbs[..., 1].mean((1, 2))
    assert red[data.labels == 1].min() > 30 > red[data.labels == 0].max()
    assert found.whole_slide.pooled["dice"] == pytest.approx(found.figures.scores["f1"], abs=1e-6)
    assert "Labels next to maps" in render(found)


def test_pictures_that_are_gone_are_white(bundle, kept):
    torn = painted(cases=12, side=8, patch=50, broken=frozenset({"3/0-0.png"}))
    found = evaluate(bundle, torn, options(kept, whole_slide=True, thumbs=True))
    (row,) = (n for n, sample in enumerate(torn.samples) if sample.name == "3/0-0.png")
    assert (found.patches.thumbs[row] == 255).all()
    assert len(found.patches.labels) == len(torn)


def test_a_file_goes_there_and_back(data, kept):
    found, before = OutOfFold.load(kept, data), out_of_fold(data)
    assert_array_equal(found.logits, before.logits)
    assert_array_equal(found.fold, before.fold)
    assert found.folds == 3


def test_two_classes_in_either_order_have_the_same_probabilities(data):
    kept = out_of_fold(data)
    turned = painted(cases=12, side=8, patch=50)
    turned.class_names = ("IDC", "non-IDC")
    turned.samples = tuple(replace(sample, label=1 - sample.label) for sample in turned.samples)
    first, final = OutOfFold(dataset=turned, logits=kept.logits[:, ::-1], fold=kept.fold).cross_fitted()
    assert_allclose(first[:, ::-1], kept.cross_fitted()[0], atol=1e-4)
    assert_allclose(final, kept.cross_fitted()[1], atol=1e-4)


def test_what_does_not_belong_together_is_refused(bundle, data, kept, tmp_path):
    with pytest.raises(DatasetError, match=r"is of 768 patches that are not the 704 of painted.*all of them"):
        evaluate(bundle, painted(cases=11, side=8, patch=50), options(kept))
    bare = replace(bundle, card=bundle.card.model_copy(update={"metrics": {}}))
    with pytest.raises(BundleError, match=r"was not cross-validated.*Leave out --out-of-fold"):
        evaluate(bare, data, options(kept))
    out_of_fold(data, seed=1).save(tmp_path / "other.npz")
    with pytest.raises(DatasetError, match=r"other\.npz.*gives an AUROC of 0\.\d{4}, the card of idc-resnet18 says"):
        evaluate(bundle, data, options(tmp_path / "other.npz"))
    (tmp_path / "torn.npz").write_bytes(kept.read_bytes()[:2000])
    np.savez(tmp_path / "few.npz", logits=np.zeros((3, 2)))
    for name in ("torn.npz", "few.npz", "none.npz"):
        with pytest.raises(DatasetError, match=r"cannot be read.*out_of_fold\.npz of a training with --folds"):
            evaluate(bundle, data, options(tmp_path / name))
    with pytest.raises(DatasetError, match=r"has 768 patches; the logits are \(768, 3\)"):
        OutOfFold(dataset=data, logits=np.zeros((768, 3), np.float32), fold=np.zeros(768, np.int64))


@pytest.mark.parametrize("option", ["tta", "unseen"])
def test_what_means_nothing_is_refused(bundle, data, kept, option):
    with pytest.raises(ConfigError, match=f"means nothing with --out-of-fold.*Leave out --{option}"):
        evaluate(bundle, data, options(kept, **{option: True}))


def test_the_command_names_the_file_that_it_cannot_read(tmp_path, capsys):
    data = write_idc(tmp_path / "data")
    words = ["--model", "idc-resnet18", "--data", data, "--out-of-fold", tmp_path / "none.npz"]
    assert main(["evaluate", *map(str, words)]) == 2
    assert f"{tmp_path / 'none.npz'}: cannot be read" in capsys.readouterr().err
