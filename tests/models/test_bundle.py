"""Bundles: what is written is what is read, and nothing else is."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from cards import card
from helpers import Redness, write_redness_bundle
from pydantic import ValidationError

from wsi_pipeline.errors import BundleError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import SHIPPED, load_bundle, save_bundle


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("torchvision/resnet18", 2).eval()


@pytest.fixture
def folder(tmp_path, network) -> Path:
    save_bundle(tmp_path / "tiny bündel", network, card())
    return tmp_path / "tiny bündel"


def edit(folder: Path, **changes) -> None:
    file = folder / "model.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def test_a_bundle_comes_back_as_it_was_saved_up_to_half_precision(folder, network):
    bundle = load_bundle(folder)
    assert bundle.view.size_um == 200
    assert bundle.card.class_names[bundle.positive] == "IDC"
    images = torch.rand(3, 3, 50, 50)
    with torch.inference_mode():
        assert torch.allclose(bundle.build()(images), network.half().float()(images), atol=1e-5)


def test_the_digest_follows_card_and_weights(folder):
    before = load_bundle(folder).digest
    edit(folder, temperature=1.5)
    assert load_bundle(folder).digest != before


def test_weights_that_were_altered_are_refused(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(
        BundleError, match=r"model.safetensors: its SHA-256 is .* the card says .*copy the bundle again"
    ):
        load_bundle(folder)


def test_another_number_of_classes_than_the_weights_have_is_refused(folder):
    edit(folder, class_names=["a", "b", "IDC"])
    with pytest.raises(BundleError, match="does not fit torchvision/resnet18 with 3 classes"):
        load_bundle(folder).build()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"positive_class": "DCIS"}, "positive_class 'DCIS' is none of"),
        ({"mpp": 896}, "mpp: Input should be less than or equal to 20"),
        ({"std": [0, 1, 1]}, r"std.0: Input should be greater than 0"),
        ({"tempreature": 2}, "tempreature: Extra inputs are not permitted"),
        ({"threshold": {"value": 2, "chosen": "?"}}, "threshold.value"),
        ({"class_names": ["IDC", "IDC"]}, "class_names repeat"),
        ({"bias": [0.0]}, "bias has 1 values for 2 classes"),
        ({"members": ["a"]}, "either weights or the members"),
        (
            {"context": {"sigmas": [1], "shrink": 1, "intercept": 0, "own": 1, "near": [1, 2], "trust": [1]}},
            "in length",
        ),
        ({"weights": {"file": "../model.safetensors", "sha256": "0" * 64}}, "are not accepted"),
        ({"weights": {"file": "model.pth", "sha256": "0" * 64}}, "pickled weights can run code"),
        ({"weights": {"file": "other.safetensors", "sha256": "0" * 64}}, "cannot be read"),
    ],
)
def test_cards_are_checked(folder, changes, expected):
    edit(folder, **changes)
    with pytest.raises(BundleError, match=expected):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mpp": 1e9}, r"mpp: .*, not 1e\+09 \(believable: 0.05 to 20 µm/px\)"),
        ({"mpp": 1e-9}, r"mpp: .*, not 1e-09 \(believable: 0.05 to 20 µm/px\)"),
        ({"mpp": float("nan")}, r"mpp: .*, not nan"),
        ({"patch_size_px": 10**9}, r"patch_size_px: .*, not 1e\+09 \(believable: 1 to 8,192 px\)"),
        ({"patch_size_px": 0}, "patch_size_px: .*, not 0"),
        ({"input_px": 10**9}, r"input_px: .*, not 1e\+09 \(believable: 1 to 8,192 px\)"),
        ({"std": [0.2, 0, 0.2]}, r"std.1: .*, not 0 \(believable: 0.0001 to 255"),
        ({"std": [0.2, 1e-30, 0.2]}, "std.1: .*, not 1e-30"),
        ({"std": [0.2, float("inf"), 0.2]}, "std.1: .*, not inf"),
        ({"mean": [0.2, 1e30, 0.2]}, r"mean.1: .*, not 1e\+30 \(believable: -1 to 2"),
        ({"temperature": 0}, r"temperature: .*, not 0 \(believable: 0.01 to 100\)"),
        ({"temperature": -1}, r"temperature: .*, not -1 \(believable: 0.01 to 100\)"),
        ({"temperature": 1e300}, r"temperature: .*, not 1e\+300 \(believable: 0.01 to 100\)"),
        ({"bias": [0, 1e30]}, r"bias.1: .*, not 1e\+30 \(believable: -100 to 100\)"),
        ({"threshold": {"value": 1.5, "chosen": "?"}}, r"threshold.value: .*, not 1.5 \(believable: 0 to 1\)"),
        ({"threshold": {"value": -0.5, "chosen": "?"}}, r"threshold.value: .*, not -0.5 \(believable: 0 to 1\)"),
        (
            {"context": {"sigmas": [1e9], "shrink": 1, "intercept": 0, "own": 1, "near": [1], "trust": [1]}},
            "context.sigmas.0",
        ),
    ],
)
def test_numbers_that_nobody_can_believe_are_refused(folder, changes, expected):
    edit(folder, **changes)
    with pytest.raises(BundleError, match=f"model.json: {expected}"):
        load_bundle(folder)


def test_an_unknown_architecture_names_the_known_ones(folder):
    edit(folder, architecture="timm/vit")
    with pytest.raises(BundleError, match=r"'timm/vit': is unknown. Known: torchvision/resnet18"):
        load_bundle(folder).build()


def test_a_folder_hides_the_shipped_bundle_of_its_name_aloud(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "idc-resnet18"
    assert load_bundle("idc-resnet18").path == SHIPPED / "idc-resnet18"
    with pytest.raises(BundleError, match="holds 0 files"):
        load_bundle(".")
    assert not caplog.text
    own.mkdir()
    with pytest.raises(BundleError, match="holds 0 files"):  # and not the figures of another model
        load_bundle("idc-resnet18")
    for path in folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    assert load_bundle("idc-resnet18").path.samefile(own)
    assert f"{own}: this folder is used, not the shipped bundle" in caplog.text
    assert load_bundle(SHIPPED / "idc-resnet18").path == SHIPPED / "idc-resnet18"


def test_missing_bundles_and_broken_cards(tmp_path, folder):
    with pytest.raises(BundleError, match=r"is no model bundle.*shipped one"):
        load_bundle(tmp_path / "nothing")
    (folder / "model.json").write_text("{")
    with pytest.raises(BundleError, match="is no JSON"):
        load_bundle(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="holds 0 files"):
        load_bundle(tmp_path / "empty")


def test_the_folder_of_a_training_names_its_bundle(folder):
    training = folder.with_name(folder.name + ".training")
    training.mkdir()
    with pytest.raises(BundleError, match=rf"checkpoints and logs of a training.*Its bundle is .*{folder.name}\."):
        load_bundle(training)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickled_weights_are_never_unpickled(tmp_path, writer):
    folder = write_redness_bundle(tmp_path / "trap")
    sprung = tmp_path / "sprung"
    if writer == "pickle":
        (folder / "model.pt").write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save(Trap(sprung), folder / "model.pt")
    with pytest.raises(BundleError, match="pickled weights can run code and are not loaded"):
        load_bundle(folder)
    assert not sprung.exists()


def test_a_wsinfer_bundle_loads(tmp_path):
    bundle = load_bundle(write_redness_bundle(tmp_path / "red", mpp=0.5))
    assert (bundle.view.size_px, bundle.view.mpp) == (50, 0.5)
    assert bundle.card.positive_class == "IDC"
    assert bundle.card.threshold.value == 0.5
    images = torch.rand(4, 3, 50, 50)
    assert torch.allclose(bundle.build()(images), Redness()(images))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_classes": 3}, "num_classes is 3, class_names has 2"),
        ({"class_names": ["IDC", "IDC"]}, "class_names repeat"),
        ({"transform": [{"name": "Normalize", "arguments": {"mean": [0, 0, 0], "std": [0, 1, 1]}}]}, "std.0"),
        ({"spec_version": "2.0"}, "spec_version"),
        ({"spacing_um_px": 896}, r"config.json: spacing_um_px: .*, not 896 \(believable: 0.05 to 20 µm/px\)"),
        ({"patch_size_pixels": 10**9}, r"config.json: patch_size_pixels: .* \(believable: 1 to 8,192 px\)"),
        ({"transform": [{"name": "Rotate"}]}, "unknown transform 'Rotate'"),
        ({"transform": [{"name": "Normalize", "arguments": {"mean": [1]}}]}, "wrong arguments"),
    ],
)
def test_wsinfer_configs_are_checked(tmp_path, changes, expected):
    folder = write_redness_bundle(tmp_path / "red")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(BundleError, match=expected):
        load_bundle(folder)


def test_wsinfer_transforms_are_read(tmp_path):
    folder = write_redness_bundle(tmp_path / "red")
    config = json.loads((folder / "config.json").read_text())
    config["transform"] = [
        {"name": "Resize", "arguments": {"size": 224}},
        {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": [0.7, 0.6, 0.5], "std": [0.1, 0.2, 0.3]}},
    ]
    (folder / "config.json").write_text(json.dumps(config))
    read = load_bundle(folder).card
    assert (read.input_px, read.mean, read.std) == (224, (0.7, 0.6, 0.5), (0.1, 0.2, 0.3))


def test_weights_that_were_replaced_since_the_bundle_was_opened_are_refused(tmp_path, network):
    opened = save_bundle(tmp_path / "one", network, card())
    other = save_bundle(tmp_path / "other", build_network(opened.card.architecture, 2), opened.card)
    (other.path / "model.safetensors").replace(opened.path / "model.safetensors")
    with pytest.raises(BundleError, match=r"model\.safetensors: its SHA-256 is"):
        opened.build()


def test_metrics_that_are_not_numbers_are_written_as_json_can_say_them(tmp_path, network):
    made = card(metrics={"auroc": float("nan"), "cases": 3})
    assert save_bundle(tmp_path / "one-class", network, made).card.metrics == {"auroc": None, "cases": 3}
    assert "NaN" not in (tmp_path / "one-class" / "model.json").read_text()


@pytest.mark.parametrize(("value", "dtype"), [(1e5, "float16"), (float("nan"), "float32")])
def test_weights_that_would_not_be_finite_are_refused(tmp_path, value, dtype):
    broken = build_network("idc-cnn", 2)
    broken.state_dict()["stages.0.1.running_var"][3] = value
    with pytest.raises(BundleError, match=rf"stages.0.1.running_var are not finite as {dtype}"):
        save_bundle(
            tmp_path / "broken", broken, card(architecture="idc-cnn", weights={"sha256": "0" * 64, "dtype": dtype})
        )
    assert not (tmp_path / "broken" / "model.json").exists()


def test_a_bundle_of_several_magnifications_fits_no_slide(tmp_path):
    made = save_bundle(tmp_path / "mixed", build_network("idc-cnn", 2), card(architecture="idc-cnn", mpp=None))
    with pytest.raises(BundleError, match=r"mixed: was trained at several magnifications and fits no slide.*patches"):
        made.view  # noqa: B018


def test_a_network_needs_weights(tmp_path, network):
    with pytest.raises(ValidationError, match="either weights or the members"):
        card(weights=None)
    with pytest.raises(BundleError, match=r"is an ensemble's and has no weights. Use save_ensemble"):
        save_bundle(tmp_path / "none", network, card(weights=None, members=("a", "b")))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "recipe", "least"), [("idc-resnet18", "idc-best", 0.93), ("idc-efficientnet", "idc-efficientnet", 0.95)]
)
def test_the_shipped_bundles_keep_their_promises(name, recipe, least):
    bundle = load_bundle(name)
    card = bundle.card
    assert bundle.path == SHIPPED / name
    assert (card.patch_size_px, card.mpp, card.positive_class) == (50, 4.0, "IDC")
    measured = card.metrics["cross_validation"]
    folds = json.loads((bundle.path / "folds.json").read_text())
    split = json.loads((bundle.path / "split.json").read_text())
    assert set(folds) == set(split["train"])
    assert measured["cases"] == len(folds)
    low, high = measured["interval_95"]["auroc"]
    assert low <= measured["auroc"] <= high
    assert measured["auroc"] > least
    assert card.context is not None
    assert card.metrics["leaky"] is False
    assert f"wsi-pipeline train {recipe} --data DATA --out {name} --folds 3" == card.training["command"]
    with torch.inference_mode():
        logits = bundle.build()(torch.zeros(1, 3, card.input_px, card.input_px))
    assert np.isfinite(logits.numpy()).all()


@pytest.mark.parametrize("name", ["idc-resnet18", "idc-efficientnet"])
def test_the_shipped_bundles_do_not_take_glass_for_tumour(name):
    """Empty glass as scanners show it, white to grey, with a cast and with noise: well below the threshold."""
    bundle, rng = load_bundle(name), np.random.default_rng(0)
    colours = np.array([(v, v, v) for v in (225, 235, 245, 255)] + [(245, 240, 245), (230, 225, 235), (245, 240, 225)])
    flat = np.broadcast_to(colours[:, None, None], (len(colours), 50, 50, 3))
    glass = np.concatenate([flat, np.clip(flat + rng.normal(0, 3, flat.shape), 0, 255)]).astype(np.uint8)
    found = Predictor(bundle=bundle, device="cpu", engine="torch").probabilities(glass)
    assert found[:, bundle.positive].max() < bundle.card.threshold.value / 2
