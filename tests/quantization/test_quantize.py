"""int8 networks: made, measured, written, and used only as what was measured."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from painted import painted, write_idc
from plain import CPU, bundle_of, plain_probabilities, random_fields
from shades import Shades

from wsi_pipeline.cli import main
from wsi_pipeline.datasets import load_images
from wsi_pipeline.errors import BundleError, ConfigError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.bundle import load_bundle, save_bundle, save_ensemble
from wsi_pipeline.models.card import Weights
from wsi_pipeline.models.seen import Seen
from wsi_pipeline.quantization import quantize
from wsi_pipeline.quantization.cases import choose_cases
from wsi_pipeline.quantization.compare import compare
from wsi_pipeline.quantization.int8 import to_int8
from wsi_pipeline.quantization.quantize import as_text

NAMES = {"class_names": ("non-IDC", "IDC"), "positive_class": "IDC"}


def saved(folder, **card):
    """A small network that sees something in redness, as a bundle on disk."""
    bundle = bundle_of("idc-cnn", **NAMES | {"training": {}} | card)
    weights = {"weights": Weights(sha256="0" * 64, dtype="float32")}
    return save_bundle(folder, bundle.build(), bundle.card.model_copy(update=weights))


@pytest.fixture(scope="module")
def dataset():
    return painted(cases=6, patch=50)


@pytest.fixture(scope="module")
def made(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("bundles")
    original = saved(folder / "fp32")
    (folder / "fp32" / "history.csv").write_text("epoch\n")
    return original, quantize(original, dataset, folder / "int8", samples=16, draws=50)


def probabilities(bundle, fields, engine, **more):
    return Predictor(bundle=bundle, device=CPU, engine=engine, **{"batch_size": 16, **more}).probabilities(fields)


def test_the_new_bundle_holds_both_networks(made, dataset):
    original, found = made
    bundle = load_bundle(found.bundle.path)
    assert bundle.card.model_copy(update={"quantization": None}) == original.card
    assert (bundle.path / "history.csv").read_text() == "epoch\n"
    assert bundle.int8.is_file()
    assert bundle.digest != original.digest
    fields = load_images(dataset, range(40))
    assert np.array_equal(probabilities(bundle, fields, "torch"), probabilities(original, fields, "torch"))
    apart = np.abs(probabilities(bundle, fields, "openvino-int8") - plain_probabilities(original, fields))
    assert 1e-5 < apart.max() < 0.08  # it is int8, and it is this network


def test_what_int8_costs_stands_on_the_card_as_it_can_be_measured_again(made, dataset):
    _, found = made
    bundle, measured = found.bundle, found.bundle.card.quantization.measured
    cases = choose_cases(dataset, Seen(known=False, leaky=False, train=frozenset(), validation=frozenset()))
    labels, fields = dataset.labels[cases.measure], load_images(dataset, cases.measure)
    assert measured["patches"] == len(labels)
    assert measured["cases"] == 3
    called = {}
    for name, engine in (("fp32", "openvino"), ("int8", "openvino-int8")):
        found_here = probabilities(bundle, fields, engine)[:, 1]
        positive, negative = found_here[labels == 1], found_here[labels == 0]
        wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
        assert measured[name]["auroc"] == pytest.approx(wins, abs=1e-6)
        called[name] = found_here >= bundle.card.threshold.value
    assert measured["flipped_labels"] == pytest.approx((called["fp32"] != called["int8"]).mean(), abs=1e-6)
    assert measured["difference"]["auroc"] == pytest.approx(
        measured["int8"]["auroc"] - measured["fp32"]["auroc"], abs=1e-6
    )
    low, high = measured["interval_95"]["auroc"]
    assert low <= measured["difference"]["auroc"] <= high
    calibration = bundle.card.quantization.calibration
    assert (calibration["samples"], calibration["cases"]) == (16, 3)
    text = as_text(found)
    assert f"on {len(labels)} patches of 3 cases" in text
    assert "research use only" in text


def test_files_that_were_altered_or_are_missing_are_refused(made, tmp_path):
    import shutil

    for suffix in (".bin", ".xml"):
        copy = tmp_path / suffix
        shutil.copytree(made[1].bundle.path, copy)
        file = copy / f"model-int8{suffix}"
        data = bytearray(file.read_bytes())
        data[-9] ^= 1
        file.write_bytes(data)
        with pytest.raises(
            BundleError, match=rf"model-int8{suffix}: its SHA-256 is .* the card says .*copy the bundle"
        ):
            load_bundle(copy)
        file.unlink()
        with pytest.raises(BundleError, match="cannot be read"):
            load_bundle(copy)
    card = json.loads((made[1].bundle.path / "model.json").read_text())
    card["quantization"]["file"] = "../elsewhere.xml"
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=r"int8 network '\.\./elsewhere\.xml' is not accepted"):
        load_bundle(copy)


def test_no_int8_probability_depends_on_its_company(made):
    """Bit for bit, and for any batch size, with symmetries as without."""
    bundle, fields = made[1].bundle, random_fields(40)
    order = np.random.default_rng(1).permutation(40)
    for more in ({"batch_size": 7}, {"batch_size": 64}, {"batch_size": 16, "tta": True}):
        together = probabilities(bundle, fields, "openvino-int8", **more)
        assert np.array_equal(probabilities(bundle, fields[order], "openvino-int8", **more), together[order])
        assert np.array_equal(probabilities(bundle, fields[:3], "openvino-int8", **more), together[:3])


def test_quantising_silences_no_one_else(made, caplog):
    import nncf  # its logger takes no part in the others' hierarchy: what handles them may hang on it, too

    original, _ = made
    logging.getLogger(nncf.__name__).addHandler(caplog.handler)
    try:
        to_int8(original, random_fields(4))
        logging.getLogger("wsi_pipeline.jobs").warning("still heard")
    finally:
        logging.getLogger(nncf.__name__).removeHandler(caplog.handler)
    assert "still heard" in caplog.text


def test_an_ensemble_is_quantised_as_a_whole(tmp_path, dataset):
    members = [saved(tmp_path / "one"), saved(tmp_path / "other", bias=(0.0, 0.4))]
    ensemble = save_ensemble(
        tmp_path / "both", members, members[0].card.model_copy(update={"temperature": 1.0, "bias": None})
    )
    found = quantize(ensemble, dataset, tmp_path / "int8", samples=8, draws=10).bundle
    fields = load_images(dataset, range(20))
    predictor = Predictor(bundle=found, device=CPU, batch_size=8, engine="openvino-int8")
    likely, spread = predictor.predict_fields(fields)
    single = np.stack([plain_probabilities(member, fields)[:, 1] for member in members])
    assert np.abs(likely[:, 1] - single.mean(0)).max() < 0.08
    assert np.abs(spread - single.std(0)).max() < 0.05


def test_a_member_of_an_ensemble_keeps_its_int8_network(made, tmp_path):
    quantised = made[1].bundle
    ensemble = save_ensemble(tmp_path / "both", [quantised, made[0]], quantised.card)
    assert ensemble.int8 is None
    member = load_bundle(tmp_path / "both" / "member-1")
    assert member.card == quantised.card
    assert member.int8.exists()
    again = save_ensemble(tmp_path / "both", [member, load_bundle(tmp_path / "both" / "member-2")], quantised.card)
    assert again.digest == ensemble.digest


def test_patches_that_cannot_be_read_are_counted_on_the_card(tmp_path):
    reds = np.tile([60, 200], 60)
    broken = range(65, 120, 12)
    dataset = Shades(
        reds.tolist(), (reds > 100).astype(int).tolist(), [f"c{n // 12}" for n in range(120)], broken=broken
    )
    bundle = saved(tmp_path / "one", training={"split": {"train": [f"c{n}" for n in range(5)]}})
    found = quantize(bundle, dataset, tmp_path / "int8", samples=8, draws=10)
    assert (found.measured["patches"], found.measured["unreadable"]) == (55, 5)
    assert "5 patches could not be read" in as_text(found)


def test_weights_that_are_saved_anew_have_no_int8_network(made, tmp_path):
    bundle = made[1].bundle
    assert save_bundle(tmp_path / "again", bundle.build(), bundle.card).int8 is None


def test_the_cases_follow_the_models_own_split(dataset):
    def seen(*train):
        return Seen(known=bool(train), leaky=False, train=frozenset(train), validation=frozenset())

    some = choose_cases(dataset, seen("case0", "case1"))
    assert set(dataset.groups[some.calibrate]) == {"case0", "case1"}
    assert set(dataset.groups[some.measure]) == {f"case{n}" for n in range(2, 6)}
    assert "new to the model" in some.note
    every = choose_cases(dataset, seen(*(f"case{n}" for n in range(6))))
    assert not set(dataset.groups[every.calibrate]) & set(dataset.groups[every.measure])
    assert len(every.calibrate) + len(every.measure) == len(dataset)
    assert "trained the model" in every.note
    assert "new to the model" in choose_cases(dataset, seen("elsewhere")).note
    assert "not known" in choose_cases(dataset, seen()).note
    half = Seen(known=False, leaky=False, train=frozenset({"case0", "case1"}), validation=frozenset())
    assert "not known" in choose_cases(dataset, half).note


def test_differences_are_of_the_same_patches():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    groups = np.array([f"case{n % 20}" for n in range(400)])
    fp32 = np.clip(0.5 * labels + rng.uniform(0, 0.5, 400), 0, 1)
    columns = np.stack([1 - fp32, fp32], 1).astype(np.float32)
    same = compare(labels, columns, columns, groups, 0.5, draws=50)
    assert set(same["difference"].values()) == {0.0}
    assert same["interval_95"]["auroc"] == [0.0, 0.0]
    assert same["flipped_labels"] == 0
    other = columns.copy()
    other[:40] = columns[:40, ::-1]
    worse = compare(labels, columns, other, groups, 0.5, draws=50)
    assert worse["difference"]["auroc"] < -0.05
    assert worse["interval_95"]["auroc"][1] < 0
    assert worse["flipped_labels"] == pytest.approx(0.1)
    assert worse["probability_difference"]["largest"] == pytest.approx(np.abs(2 * fp32[:40] - 1).max(), abs=1e-6)


def test_what_cannot_be_quantised_is_refused_before_the_work(made, dataset, tmp_path, monkeypatch):
    original, found = made
    with pytest.raises(ConfigError, match="0 patches calibrate nothing"):
        quantize(original, dataset, tmp_path / "out", samples=0)
    with pytest.raises(BundleError, match="holds a bundle already"):
        quantize(original, dataset, found.bundle.path)
    with pytest.raises(BundleError, match="WSInfer's form"):
        quantize(replace(original, path=tmp_path), dataset, tmp_path / "out")
    monkeypatch.setattr("wsi_pipeline.quantization.int8.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'needs the package openvino.*pip install "wsi-pipeline\[openvino\]"'):
        quantize(original, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_from_files_to_a_run_with_int8(tmp_path, capsys):
    saved(tmp_path / "model")
    data = write_idc(tmp_path / "data", cases=4)
    arguments = ["--model", str(tmp_path / "model"), "--data", str(data), "--out", str(tmp_path / "int8")]
    assert main(["quantize", *arguments, "--samples", "8", "--draws", "20"]) == 0
    assert "int8 against fp32 on 32 patches of 2 cases" in capsys.readouterr().out
    outputs = {}
    for engine in ("openvino", "openvino-int8"):
        file = tmp_path / f"{engine}.json"
        evaluate = ["evaluate", "--model", str(tmp_path / "int8"), "--data", str(data), "--draws", "0"]
        assert main([*evaluate, "--engine", engine, "--json", str(file)]) == 0
        outputs[engine] = json.loads(file.read_text())["brier"]
    assert outputs["openvino"] != outputs["openvino-int8"]
    assert outputs["openvino"] == pytest.approx(outputs["openvino-int8"], abs=0.03)
    assert main(["quantize", *arguments]) == 2
    assert "holds a bundle already" in capsys.readouterr().err


@pytest.mark.skipif(load_bundle("idc-resnet18").int8 is None, reason="the shipped bundle has no int8 network")
def test_the_shipped_int8_network_stays_near_the_plain_one():
    """0.1 on noise and flat colours, which it was not calibrated on; on tissue the largest seen is 0.05."""
    bundle, fields = load_bundle("idc-resnet18"), random_fields(64)
    apart = np.abs(probabilities(bundle, fields, "openvino-int8") - plain_probabilities(bundle, fields))
    assert apart.max() < 0.1
    assert apart.mean() < 0.02
    measured = bundle.card.quantization.measured
    assert measured["difference"]["auroc"] > -0.002
