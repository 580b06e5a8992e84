"""The cross-validation that made a bundle, measured from the logits that it kept."""

import json
import shlex
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
    return Options(**{"draws": 20, "out_of_fold": kept} | more)


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
    assert found["seen_in_validation"]["patches"] == len(data)  # the threshold was chosen on them
    assert found["options"]["out_of_fold"] == str(kept)
    assert "engine" not in found["options"]


def test_what_it_is_is_said_everywhere(bundle, data, kept):
    found = evaluate(bundle, data, options(kept))
    for text in (as_text(found), render(found)):
        assert "CROSS-VALIDATED" in text
        assert "calibrated and refined by what was fitted on the other folds" in text
        assert "The threshold was chosen on all folds together, these patches among them" in text
        assert "SEEN BEFORE" not in text
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
    assert "calibrated by what was fitted on the other folds" in as_text(found)
    assert "chosen on the other folds" not in as_text(found)  # the card's note is of the refined map
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


def test_two_classes_in_either_order_have_the_same_figures(bundle, data, kept, tmp_path):
    found, other = out_of_fold(data), painted(cases=12, side=8, patch=50)
    other.class_names = ("IDC", "non-IDC")
    other.samples = tuple(replace(sample, label=1 - sample.label) for sample in other.samples)
    turned = OutOfFold(dataset=other, logits=found.logits[:, ::-1], fold=found.fold)
    turned.save(tmp_path / "turned.npz")
    temperature, bias, _ = turned.fit()
    names = {"class_names": other.class_names, "temperature": temperature, "bias": bias}
    own = replace(bundle, card=bundle.card.model_copy(update=names))
    figures = evaluate(own, other, options(tmp_path / "turned.npz"))
    assert figures.patches.labels.tolist() == data.labels.tolist()
    assert_allclose(figures.patches.shipped, evaluate(bundle, data, options(kept)).patches.shipped, atol=1e-3)


def test_a_threshold_of_ones_own_was_chosen_on_no_fold(bundle, data, kept):
    found = evaluate(bundle, data, options(kept, threshold=0.9))
    p, called = found.patches.shipped[:, 1], found.figures.confusion[:, 1].sum()
    assert called == (p >= 0.9).sum()
    assert found.as_json()["seen_in_validation"]["patches"] == 0
    assert "chosen on all folds together" not in as_text(found)


def test_without_places_each_patch_stands_alone(bundle, data, tmp_path):
    placeless = painted(cases=12, side=8, patch=50)
    placeless.samples = tuple(replace(sample, position=None) for sample in placeless.samples)
    kept = OutOfFold(dataset=placeless, logits=out_of_fold(data).logits, fold=out_of_fold(data).fold)
    kept.save(tmp_path / "kept.npz")
    card = bundle.card.model_copy(update={"context": None, "metrics": measure_folds(kept).metrics})
    found = evaluate(replace(bundle, card=card), placeless, options(tmp_path / "kept.npz"))
    assert found.without_context is None
    assert found.figures.scores["auroc"] == pytest.approx(card.metrics["cross_validation"]["auroc"], abs=1e-4)


def test_cases_are_chosen_by_patient_or_by_case(bundle, data, tmp_path):
    patients = painted(cases=12, side=8, patch=50)
    patients.samples = tuple(
        replace(sample, group=f"P{int(sample.group[4:]) // 2}", case=sample.group) for sample in patients.samples
    )
    _, patient = np.unique(patients.groups, return_inverse=True)
    kept = OutOfFold(dataset=patients, logits=out_of_fold(data).logits, fold=patient % 3)
    kept.save(tmp_path / "kept.npz")
    temperature, bias, context = kept.fit()
    fitted = {"temperature": temperature, "bias": bias, "context": context}
    own = replace(bundle, card=bundle.card.model_copy(update=fitted))
    for asked, cases in (("P2", {"case4", "case5"}), ("case5", {"case5"})):
        found = evaluate(own, patients, options(tmp_path / "kept.npz", cases={asked}))
        assert set(found.per_case) == cases


def changed(path, kept, **arrays):
    """A copy of a file with other arrays; None leaves one out."""
    with np.load(kept) as found:
        values = {key: found[key] for key in found.files} | arrays
    np.savez(path, **{key: value for key, value in values.items() if value is not None})
    return path


def test_files_of_before_names_were_kept_are_known_by_labels_and_cases(data, kept, tmp_path):
    found = OutOfFold.load(changed(tmp_path / "old.npz", kept, names=None), data)
    assert_array_equal(found.logits, out_of_fold(data).logits)
    flipped = changed(tmp_path / "flipped.npz", kept, names=None, labels=1 - data.labels)
    with pytest.raises(
        DatasetError, match=r"of other patches than painted: the labels of 0/0-0\.png are 0 there and 1"
    ):
        OutOfFold.load(flipped, data)


def test_what_does_not_belong_together_is_refused(bundle, data, kept, tmp_path):
    with pytest.raises(DatasetError, match=r"is of 768 patches, painted holds 704.*all of them"):
        evaluate(bundle, painted(cases=11, side=8, patch=50), options(kept))
    renamed = changed(tmp_path / "renamed.npz", kept, names=np.roll([s.name.split("/")[1] for s in data.samples], 1))
    with pytest.raises(DatasetError, match=r"the names of 0/0-0\.png are 7-7\.png there and 0-0\.png here"):
        evaluate(bundle, data, options(renamed))
    bare = replace(bundle, card=bundle.card.model_copy(update={"metrics": {}}))
    with pytest.raises(BundleError, match=r"was not cross-validated.*Leave out --out-of-fold"):
        evaluate(bare, data, options(kept))
    out_of_fold(data, seed=1).save(tmp_path / "other.npz")
    with pytest.raises(DatasetError, match=r"other\.npz.*the card of idc-resnet18 says.*it is of another training"):
        evaluate(bundle, data, options(tmp_path / "other.npz"))
    louder = changed(tmp_path / "louder.npz", kept, logits=2 * out_of_fold(data).logits)  # the same AUROC
    with pytest.raises(DatasetError, match="it is of another training"):
        evaluate(bundle, data, options(louder))
    swapped = painted(cases=12, side=8, patch=50)
    swapped.positive_class = "non-IDC"
    with pytest.raises(DatasetError, match="calls 'non-IDC' positive, the model idc-resnet18 'IDC'"):
        evaluate(bundle, swapped, options(kept))


def test_what_is_no_such_file_is_refused(bundle, data, kept, tmp_path):
    (tmp_path / "torn.npz").write_bytes(kept.read_bytes()[:2000])
    np.savez(tmp_path / "few.npz", logits=np.zeros((3, 2)))
    np.save(tmp_path / "bare.npy", np.zeros((3, 2)))
    (tmp_path / "figures.json").write_text("{}")
    for name in ("torn.npz", "few.npz", "bare.npy", "figures.json", "none.npz", "."):
        why = "cannot be read" if name in {"none.npz", "."} else r"is no out_of_fold\.npz, or a damaged one"
        with pytest.raises(DatasetError, match=rf": {why}.*out_of_fold\.npz of a training with --folds"):
            evaluate(bundle, data, options(tmp_path / name))
    fold = np.arange(len(data)) % 3
    for arrays, why in (
        ({"logits": np.zeros((768, 3), np.float32)}, r"has 768 patches; the logits are \(768, 3\)"),
        ({"fold": 0 * fold}, "was cross-validated in 1 folds"),
        ({"fold": fold}, "has patches of the case case0 in several folds"),
    ):
        with pytest.raises(DatasetError, match=why):
            OutOfFold.load(changed(tmp_path / "odd.npz", kept, **arrays), data)


@pytest.mark.parametrize(
    ("option", "value"),
    [("tta", True), ("unseen", True), ("device", "cpu"), ("batch_size", 8), ("engine", "torch"), ("precision", "bf16")],
)
def test_what_means_nothing_is_refused(bundle, data, kept, option, value):
    name = option.replace("_", "-")
    with pytest.raises(ConfigError, match=f"means nothing with --out-of-fold.*Leave out --{name}"):
        evaluate(bundle, data, options(kept, **{option: value}))


def test_the_command_that_a_training_prints_gives_the_figures_of_its_card(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_idc(tmp_path / "some patches", cases=6)
    settings = ("optimisation.epochs=1", "optimisation.batch_size=16", "data.layout=idc")
    words = ["--data", str(data), "--out", "mine", "--folds", "2", "--device", "cpu"]
    assert main(["train", "idc-cnn", *words, *(word for value in settings for word in ("--set", value))]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wsi-pipeline evaluate" in line]
    command = shlex.split(line.split("wsi-pipeline ", 1)[1])
    assert command[-4:] == ["--layout", "idc", "--report", "cross-validation.html"]
    assert main([*command, "--json", "figures.json", "--draws", "20"]) == 0
    told = load_bundle(tmp_path / "mine").card.metrics["cross_validation"]
    figures = json.loads(Path("figures.json").read_text())
    for key in ("auroc", "balanced_accuracy", "f1", "ece"):
        assert figures[key] == pytest.approx(told[key], abs=1e-4)
    assert "CROSS-VALIDATED" in Path("cross-validation.html").read_text(encoding="utf-8")


def test_the_command_names_the_file_that_it_cannot_read(tmp_path, capsys):
    data = write_idc(tmp_path / "data")
    words = ["--model", "idc-resnet18", "--data", data, "--out-of-fold", tmp_path / "none.npz"]
    assert main(["evaluate", *map(str, words)]) == 2
    assert f"{tmp_path / 'none.npz'}: cannot be read" in capsys.readouterr().err
