"""First weights: random, ImageNet's, or a bundle's; and what a bundle had seen is never measured on."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import write_redness_bundle
from painted import painted, write_idc

from wsi_pipeline.cli import main
from wsi_pipeline.cli.train import _without_folder
from wsi_pipeline.datasets import open_dataset
from wsi_pipeline.errors import BundleError, ConfigError, DatasetError, OutputError, TrainingError
from wsi_pipeline.models.architectures import imagenet_colours
from wsi_pipeline.models.bundle import CARD_FILE, load_bundle, save_ensemble
from wsi_pipeline.models.seen import what_was_seen
from wsi_pipeline.training.cross_validate import cross_validate
from wsi_pipeline.training.recipe import Recipe, load_recipe
from wsi_pipeline.training.start import build, started_from
from wsi_pipeline.training.train import train

QUICK = {"optimisation.epochs": 2, "optimisation.batch_size": 16, "optimisation.lr": 0.005}


def quick(name: str = "idc-cnn", **given) -> Recipe:
    return load_recipe(name, {**QUICK, **{key.replace("__", "."): value for key, value in given.items()}})


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Cases 9000 to 9007, and a bundle that saw them."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_idc(folder / "patches")
    return train(quick(), folder / "patches", folder / "bundle", device="cpu")


@pytest.fixture(scope="module")
def own(tmp_path_factory, elsewhere):
    """Other cases: 9100 to 9107."""
    folder = tmp_path_factory.mktemp("own")
    for path in (elsewhere.path.parent / "patches").rglob("*.png"):
        renamed = folder / str(path.relative_to(elsewhere.path.parent / "patches")).replace("90", "91")
        renamed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, renamed)
    return folder


def test_random_weights_are_the_seed_s_and_imagenet_s_come_only_where_they_can_be_had(monkeypatch, caplog):
    first, second, other = (build(quick(seed=seed), painted()).network for seed in (0, 0, 1))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))

    def offline(architecture, classes):
        raise BundleError("ImageNet weights", "cannot be had (no network)", "Connect.")

    monkeypatch.setattr("wsi_pipeline.training.start.build_pretrained", offline)
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        start = build(load_recipe("idc-resnet18"), painted(patch=32))
    assert start.colours is None
    assert "random" in start.text
    assert "Starting from random weights" in caplog.text
    with pytest.raises(BundleError, match="cannot be had"):
        build(load_recipe("idc-resnet18", {"model.pretrained": "yes"}), painted(patch=32))
    monkeypatch.setattr("wsi_pipeline.training.start.build_pretrained", lambda *_: torch.nn.Identity())
    assert build(load_recipe("idc-resnet18"), painted()).colours == imagenet_colours("torchvision/resnet18")


def test_patches_that_are_too_small_for_a_network_are_refused_with_a_side_that_is_not():
    with pytest.raises(ConfigError, match=r"16 px are too few for torchvision/resnet18.*model\.input_px=17 or more"):
        build(load_recipe("idc-resnet18", {"model.pretrained": "no"}), painted())
    build(load_recipe("idc-resnet18", {"model.pretrained": "no", "model.input_px": 32}), painted())


def test_another_normalisation_of_a_network_that_normalises_itself_is_refused_before_its_teacher_trains(tmp_path):
    write_idc(tmp_path / "patches")
    taught = {"model": {"architecture": "idc-cnn"}}
    recipe = quick("idc-residual-7ch", model__normalisation="data", data__subset={}, distillation=taught)
    with pytest.raises(ConfigError, match="data does not suit idc-residual-7ch"):
        train(recipe, tmp_path / "patches", tmp_path / "bundle", device="cpu")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimisation.stages": [{"epoch": 1, "train": ["fc"]}]}, "'fc' is no stage of the network"),
        ({"augmentation.offsets": 0.5, "data.cache": "none"}, "needs the decoded patches in memory"),
    ],
)
def test_what_does_not_suit_the_pupil_is_told_before_its_teacher_trains(tmp_path, changes, expected):
    write_idc(tmp_path / "patches")
    recipe = load_recipe("idc-cnn", {**QUICK, "distillation": {"model": {"architecture": "idc-cnn"}}, **changes})
    with pytest.raises(ConfigError, match=expected):
        train(recipe, tmp_path / "patches", tmp_path / "bundle", device="cpu")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_folder_of_another_training_is_refused_before_a_teacher_trains(tmp_path, monkeypatch):
    write_idc(tmp_path / "patches")
    taught = {"distillation": {"model": {"architecture": "idc-cnn"}, "optimisation": {"epochs": 1}}}
    out = tmp_path / "bundle"

    def killed(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_pipeline.training.train.measure", killed)
    with pytest.raises(KeyboardInterrupt):
        train(load_recipe("idc-cnn", QUICK), tmp_path / "patches", out, device="cpu")
    with pytest.raises(TrainingError, match="of another recipe"):
        train(load_recipe("idc-cnn", {**QUICK, **taught}), tmp_path / "patches", out, device="cpu")
    assert not list((tmp_path / "bundle.training").rglob("teacher/*.ckpt"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("model.start=/home/me/mine", "model.start=mine"),
        ("model={start: /home/me/mine, architecture: idc-cnn}", 'model={"start": "mine", "architecture": "idc-cnn"}'),
        ("distillation={model: {start: /home/me/mine}}", 'distillation={"model": {"start": "mine"}}'),
        ("optimisation.lr=1e-3", "optimisation.lr=1e-3"),
    ],
)
def test_the_command_on_the_card_names_no_folder_of_this_machine(given, expected):
    assert _without_folder(given) == expected


def test_the_bundle_that_a_training_starts_from_is_not_replaced_by_it(own, elsewhere):
    recipe = quick(model__start=str(elsewhere.path))
    with pytest.raises(OutputError, match="is the bundle that the training starts from"):
        train(recipe, own, elsewhere.path.parent / "patches" / ".." / "bundle", device="cpu", overwrite=True)
    assert load_bundle(elsewhere.path).digest == elsewhere.digest


def test_a_training_that_starts_from_a_bundle_has_its_weights_and_colours(elsewhere, caplog):
    recipe = quick(model__start=str(elsewhere.path), model__architecture="idc-cnn")
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        start = build(recipe, painted())
    assert start.colours == (elsewhere.card.mean, elsewhere.card.std)
    assert elsewhere.digest[:12] in start.text
    theirs = elsewhere.build().state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in start.network.state_dict().items())
    assert start.network.training
    assert all(value.requires_grad for value in start.network.parameters())
    assert "µm/px" not in caplog.text


def test_of_other_classes_all_but_the_last_layers_are_taken(elsewhere):
    dataset = painted()
    dataset.class_names, dataset.positive_class = ("benign", "in situ", "invasive"), "invasive"
    start = build(quick(model__start=str(elsewhere.path)), dataset)
    assert "last layers" in start.text
    theirs, ours = elsewhere.build().state_dict(), start.network.state_dict()
    heads = {name for name in ours if name.startswith("head")}
    assert heads
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - heads)
    assert start.network(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


def test_another_resolution_is_told(elsewhere, caplog):
    dataset = painted()
    dataset.mpp = 0.25
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        build(quick(model__start=str(elsewhere.path)), dataset)
    assert "4 µm/px, these patches have 0.25" in caplog.text


def test_a_network_that_cannot_be_trained_further_is_refused(tmp_path, elsewhere):
    def refused(start, **more):
        with pytest.raises(ConfigError) as error:
            build(quick(model__start=str(start), **more), painted())
        return str(error.value)

    said = refused(elsewhere.path, model__architecture="torchvision/resnet18")
    assert "architecture is idc-cnn there and torchvision/resnet18 here" in said
    assert "--set model.architecture=idc-cnn" in said
    resized = tmp_path / "resized"
    shutil.copytree(elsewhere.path, resized)
    card = json.loads((resized / CARD_FILE).read_text())
    (resized / CARD_FILE).write_text(json.dumps({**card, "input_px": 96}))
    assert "--set model.input_px=96" in refused(resized)
    chosen = build(quick(model__start=str(resized), model__input_px=64), painted())  # as one likes, if one says so
    assert chosen.colours
    both = save_ensemble(tmp_path / "two", [elsewhere, load_bundle(resized)], elsewhere.card)
    assert "is an ensemble" in refused(both.path)
    assert "compiled" in refused(write_redness_bundle(tmp_path / "wsinfer"))
    with pytest.raises(BundleError, match="is no model bundle"):
        build(quick(model__start=str(tmp_path / "nowhere")), painted())


def test_cases_that_a_start_has_seen_do_not_measure_the_network(elsewhere, tmp_path):
    patches, start = elsewhere.path.parent / "patches", str(elsewhere.path)
    with pytest.raises(DatasetError, match=r"such as 90\d\d, were seen by bundle"):
        train(quick(model__start=start), patches, tmp_path / "a", device="cpu")
    with pytest.raises(DatasetError, match="were seen by bundle"):
        cross_validate(quick(model__start=start), patches, tmp_path / "a", count=2, device="cpu")
    taught = {"distillation": {"model": {"architecture": "idc-cnn", "start": start}}}
    with pytest.raises(DatasetError, match="were seen by bundle"):
        train(load_recipe("idc-cnn", {**QUICK, **taught}), patches, tmp_path / "a", device="cpu")
    assert not (tmp_path / "a").exists()
    dataset, every = open_dataset(patches), np.arange(128)
    assert started_from(quick(), dataset, every, leaky=False) == {}
    found = started_from(quick(model__start=start), dataset, every, leaky=True)["seen_before"]  # called leaky anyway
    assert len(found["train"]) + len(found["validation"]) >= 6


def test_a_start_of_a_leaky_split_is_refused(elsewhere, tmp_path):
    leaky = train(quick(split__kind="leaky"), elsewhere.path.parent / "patches", tmp_path / "leaky", device="cpu")
    with pytest.raises(ConfigError, match="leaky split"):
        started_from(quick(model__start=str(leaky.path)), painted(), np.arange(3), leaky=False)


def test_the_command_trains_further_and_the_bundle_remembers_what_its_start_had_seen(elsewhere, own, tmp_path, capsys):
    out = tmp_path / "further"
    given = [f"{key}={value}" for key, value in {**QUICK, "model.architecture": "idc-cnn"}.items()]
    given.append(f"model.start={elsewhere.path}")
    sets = [text for value in given for text in ("--set", value)]
    assert main(["train", "idc-finetune", "--data", str(own), "--out", str(out), "--device", "cpu", *sets]) == 0
    assert "Starting from the bundle bundle" in capsys.readouterr().out
    further = load_bundle(out)
    assert str(tmp_path) not in (out / "recipe.yaml").read_text() + (out / CARD_FILE).read_text()
    assert (further.card.mean, further.card.std) == (elsewhere.card.mean, elsewhere.card.std)
    before, now = what_was_seen(elsewhere), what_was_seen(further)
    assert before.known
    assert before.train <= now.train
    assert len(now.train) > len(before.train)
    assert now.known
    pair = save_ensemble(tmp_path / "pair", [load_bundle(out), elsewhere], further.card)
    assert not pair.card.leaky
    assert before.train <= what_was_seen(pair).train
    card = json.loads((out / CARD_FILE).read_text())
    (out / CARD_FILE).write_text(json.dumps({**card, "metrics": {**card["metrics"], "leaky": True}}))
    mixed = save_ensemble(tmp_path / "mixed", [load_bundle(out), elsewhere], elsewhere.card)
    assert mixed.card.leaky


def test_a_start_that_tells_nothing_leaves_it_unknown(tmp_path, own, elsewhere, caplog):
    silent = tmp_path / "silent"
    shutil.copytree(elsewhere.path, silent)
    (silent / "split.json").unlink()
    card = json.loads((silent / CARD_FILE).read_text())
    (silent / CARD_FILE).write_text(json.dumps({**card, "training": {}}))
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        further = train(quick(model__start=str(silent)), own, tmp_path / "further", device="cpu")
    assert "does not say which cases trained it" in caplog.text
    assert not what_was_seen(further).known


def test_a_better_start_needs_less_training(own, elsewhere, tmp_path):
    """One step from the bundle's weights orders the patches; one step from random ones does not."""
    once = {"optimisation__epochs": 1, "optimisation__batch_size": 128, "optimisation__lr": 0.0001}
    scores = {}
    for name, start in (("random", None), ("bundle", str(elsewhere.path))):
        made = train(quick(model__start=start, **once), own, tmp_path / name, device="cpu")
        scores[name] = made.card.metrics["test"]["auroc"]
    assert scores["bundle"] > 0.99 > scores["random"]
