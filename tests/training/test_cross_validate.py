"""Cross-validation: who is scored by whom, and what is fitted on what."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from painted import painted
from sklearn.metrics import roc_auc_score

from wsi_pipeline.datasets import out_of_fold
from wsi_pipeline.datasets.out_of_fold import OutOfFold
from wsi_pipeline.errors import ConfigError, DatasetError, OutputError, TrainingError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.scoring import calibration
from wsi_pipeline.training import cross_validate as module
from wsi_pipeline.training.cross_validate import cross_validate, measure_folds
from wsi_pipeline.training.interrupted import training_folder
from wsi_pipeline.training.recipe import Recipe, load_recipe

TINY = {
    "distillation": None,
    "optimisation.mixup": 0,
    "optimisation.epochs": 6,
    "optimisation.batch_size": 16,
    "optimisation.ema_decay": 0.5,
    "augmentation.offsets": 0.0,
    "model.architecture": "idc-cnn",
}


def noisy_logits(labels, seed=0, noise=2.0):
    """A network that is right more often than not, and overconfident."""
    rng = np.random.default_rng(seed)
    margin = 3 * ((2 * labels - 1) + noise * rng.normal(size=len(labels)))
    return np.stack([-margin / 2, margin / 2], 1).astype(np.float32)


def folds_by_case(dataset, count=3):
    _, number = np.unique(dataset.groups, return_inverse=True)
    return number % count


def measured_by(dataset, logits, fold, *args, **more):
    return measure_folds(OutOfFold(dataset=dataset, logits=logits, fold=fold), *args, **more)


def test_neighbours_help_where_labels_are_contiguous():
    dataset = painted(cases=12, side=8)
    measured = measured_by(dataset, noisy_logits(dataset.labels), folds_by_case(dataset))
    alone, together = (measured.metrics[f"cross_validation{end}"] for end in ("_without_context", ""))
    assert together["auroc"] > alone["auroc"] + 0.1
    assert together["cases"] == 12
    assert together["patches"] == len(dataset)
    assert measured.context is not None


def test_without_context_the_figures_are_those_of_the_logits_as_they_are():
    dataset = painted(cases=12, side=8)
    logits, fold = noisy_logits(dataset.labels), folds_by_case(dataset)
    alone = measured_by(dataset, logits, fold).metrics["cross_validation_without_context"]
    # Each fold has a calibration of its own, which keeps the order within the fold; they hardly differ.
    assert alone["auroc"] == pytest.approx(roc_auc_score(dataset.labels, logits[:, 1] - logits[:, 0]), abs=0.01)
    assert alone["ece"] < 0.1


def test_the_threshold_is_chosen_for_what_was_asked():
    dataset = painted(cases=12, side=8)
    logits, fold = noisy_logits(dataset.labels), folds_by_case(dataset)
    measured = measured_by(dataset, logits, fold, aim="equal_recall")
    assert measured.threshold.chosen == "equal recall of both classes on cross-validated patches"
    for part in measured.metrics["cross_validation"], measured.metrics["cross_validation_without_context"]:
        assert part["recall"] == pytest.approx(part["specificity"], abs=0.03)


def test_what_the_threshold_s_choice_flatters_is_told():
    """Folds whose probabilities lie elsewhere: a threshold of the other ones calls them worse than one of all."""
    dataset = painted(cases=12, side=8)
    fold = folds_by_case(dataset)
    logits = noisy_logits(dataset.labels) + 2.0 * np.stack([np.zeros(len(fold)), fold - 1], 1)
    metrics = measured_by(dataset, logits.astype(np.float32), fold).metrics
    (told,) = [note for note in metrics["notes"] if "chosen on the other folds" in note]
    honest = float(told.split("balanced accuracy ")[1].split(",")[0])
    assert 0.5 < honest < metrics["cross_validation"]["balanced_accuracy"]
    assert metrics["cross_validation_without_context"]["threshold"] > 0


def test_a_fold_is_scored_by_what_was_fitted_on_the_others(monkeypatch):
    dataset = painted(cases=6)
    fold, seen = folds_by_case(dataset), []
    fit = calibration.fit_calibration

    def spy(logits, labels):
        seen.append(len(labels))
        return fit(logits, labels)

    for place in (out_of_fold, calibration):
        monkeypatch.setattr(place, "fit_calibration", spy)
    measured_by(dataset, noisy_logits(dataset.labels), fold)
    assert seen == [int((fold != number).sum()) for number in range(3)] + [len(dataset)]


def test_without_places_there_is_no_second_stage():
    dataset = painted(cases=6)
    placeless = dataset.subset(range(len(dataset)))
    placeless.samples = tuple(
        type(sample)(name=sample.name, label=sample.label, group=sample.group) for sample in dataset.samples
    )
    measured = measured_by(placeless, noisy_logits(dataset.labels), folds_by_case(dataset))
    assert measured.context is None
    assert "cross_validation_without_context" not in measured.metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle from two folds, and the data."""
    folder, patch = tmp_path_factory.mktemp("cv"), pytest.MonkeyPatch()
    dataset = painted(cases=6, side=4, patch=16)
    patch.setattr("wsi_pipeline.training.train.open_dataset", lambda *_, **__: dataset)
    recipe = load_recipe("idc-best", TINY)
    bundle = cross_validate(recipe, "painted", folder / "bundle", count=2, device="cpu", command="as tested")
    yield dataset, recipe, bundle
    patch.undo()


def test_each_patch_is_scored_by_the_network_that_did_not_see_its_case(tmp_path, monkeypatch):
    dataset, trained_on, fit_one = painted(cases=6, side=4, patch=16), {}, module.build_and_fit

    def build_and_fit(data, train, validation, recipe, *, folder, device):
        trained_on[folder.name] = train
        return fit_one(data, train, validation, recipe, folder=folder, device=device)

    def predict_logits(draft, data, indices, **_):
        """The row and the fold, and a little of the truth so that there is something to calibrate."""
        fold = int(draft.path.parent.name.removeprefix("fold-"))
        return np.stack([np.full(len(indices), fold), indices + data.labels[indices] / 2], 1).astype(np.float32)

    monkeypatch.setattr("wsi_pipeline.training.train.open_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(module, "build_and_fit", build_and_fit)
    monkeypatch.setattr(module, "predict_logits", predict_logits)
    recipe = load_recipe("idc-best", TINY | {"optimisation.epochs": 1})
    bundle = cross_validate(recipe, "painted", tmp_path / "bundle", count=2, device="cpu")
    kept = np.load(f"{bundle.path}.training/out_of_fold.npz")
    assert_array_equal(kept["logits"][:, 1].astype(int), np.arange(len(dataset)))
    assert_array_equal(kept["logits"][:, 0], kept["fold"])
    for fold in (0, 1):
        held_out = np.flatnonzero(kept["fold"] == fold)
        assert_array_equal(np.sort(np.concatenate([held_out, trained_on[f"fold-{fold}"]])), np.arange(len(dataset)))
        assert not set(dataset.groups[held_out]) & set(dataset.groups[trained_on[f"fold-{fold}"]])
    assert_array_equal(trained_on["all"], np.arange(len(dataset)))


def test_the_bundle_holds_what_was_measured_on_unseen_cases(trained):
    dataset, _, bundle = trained
    card, kept = bundle.card, np.load(f"{bundle.path}.training/out_of_fold.npz")
    measured = measured_by(dataset, kept["logits"], kept["fold"])
    assert card.metrics["cross_validation"]["auroc"] == measured.metrics["cross_validation"]["auroc"]
    assert card.context == measured.context
    assert card.bias == pytest.approx(measured.bias)
    assert card.training["command"] == "as tested"
    assert "out-of-fold" in card.training["calibration"]
    assert any("left some cases out" in note for note in card.training["split"]["notes"])
    folds = json.loads((bundle.path / "folds.json").read_text())
    assert_array_equal([folds[case] for case in dataset.groups], kept["fold"])
    assert json.loads((bundle.path / "split.json").read_text())["train"] == sorted(set(dataset.groups))


def test_the_network_that_ships_knows_red_from_grey(trained):
    dataset, _, bundle = trained
    import torch

    predictor = Predictor(bundle=bundle, device="cpu", batch_size=32)
    fields = torch.from_numpy(np.stack([dataset.read(n) for n in range(len(dataset))]))
    assert roc_auc_score(dataset.labels, predictor.probabilities(fields)[:, 1]) > 0.95


def test_folds_take_the_recipe_s_subset_and_no_leaky_split(tmp_path, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.training.train.open_dataset", lambda *_, **__: painted(cases=6))
    settings = {"data": {"subset": {"IDC": 20, "non-IDC": 25}}, "optimisation": {"epochs": 1, "batch_size": 16}}
    settings["model"] = {"architecture": "idc-cnn"}
    bundle = cross_validate(Recipe.model_validate(settings), "painted", tmp_path / "few", count=2, device="cpu")
    assert bundle.card.metrics["cross_validation"]["patches"] == 45
    with pytest.raises(ConfigError, match="compare_leaky"):
        cross_validate(load_recipe("idc-residual-7ch"), "painted", tmp_path / "leaky", count=2)


def test_a_cross_validation_is_not_taken_up_by_another_training(tmp_path):
    with training_folder(tmp_path / "b", folds=3, restart=False) as folder:
        (folder / "fold-0").mkdir()
    for folds in (0, 5):
        with (
            pytest.raises(TrainingError, match="holds an interrupted training in 3 folds"),
            training_folder(tmp_path / "b", folds=folds, restart=False),
        ):
            pass
    assert (tmp_path / "b.training" / "fold-0").exists()
    with training_folder(tmp_path / "b", folds=0, restart=True) as folder:
        assert not (folder / "fold-0").exists()


def test_a_bundle_is_not_replaced_unasked(trained):
    _, recipe, bundle = trained
    with pytest.raises(OutputError, match="holds a bundle already"):
        cross_validate(recipe, "painted", bundle.path, count=2, device="cpu")


def test_folds_are_by_case_whatever_the_recipe_s_split(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "open_for", lambda *_: painted(cases=4))
    recipe = load_recipe("idc-cnn", {**TINY, "optimisation.epochs": 1, "split.kind": "leaky"})
    with caplog.at_level("INFO", "wsi_pipeline.training"):
        card = cross_validate(recipe, "x", tmp_path / "cv", count=2, device="cpu").card
    assert "LEAKY" not in caplog.text
    assert (card.leaky, card.training["recipe"]["split"]["kind"]) == (False, "case")


def test_a_published_split_is_not_trained_over(tmp_path):
    recipe = load_recipe("idc-best", {**TINY, "split.kind": "published"})
    with pytest.raises(ConfigError, match=r"all cases would train, those of its test part too.*without --folds"):
        cross_validate(recipe, "painted", tmp_path / "out", count=2, device="cpu")


def test_a_trial_on_few_cases_is_called_one():
    dataset = painted(cases=6)
    notes = measured_by(dataset, noisy_logits(dataset.labels), folds_by_case(dataset), 0.1).metrics["notes"]
    assert any("Only 6 cases: far too few" in note for note in notes)
    assert any("a trial, not a result" in note for note in notes)


def test_patches_of_unknown_cases_are_not_cross_validated(monkeypatch, tmp_path):
    dataset = painted(cases=6)
    dataset.group_kind = "picture"
    monkeypatch.setattr("wsi_pipeline.training.train.open_dataset", lambda *_, **__: dataset)
    with pytest.raises(DatasetError, match=r"does not tell which case a patch comes from.*without --folds"):
        cross_validate(load_recipe("idc-best", TINY), "painted", tmp_path / "out", count=2, device="cpu")
    assert not (tmp_path / "out").exists()
