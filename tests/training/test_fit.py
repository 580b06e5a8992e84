"""A whole training of a tiny network: it learns, repeats itself, goes on where it stopped, refuses nonsense."""

import csv
import math
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import printed_by
from painted import PaintedDataset, painted
from torch import nn

from wsi_pipeline.errors import ConfigError, DatasetError, OutputError, TrainingError
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.training import trainer
from wsi_pipeline.training.fit import Fitted, fit, write_history
from wsi_pipeline.training.module import HISTORY, Classifier, step_seed
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.trainer import choose_device, warm_average

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OWN = (0.5, 0.4, 0.6), (0.2, 0.1, 0.3)
TRAIN, VALIDATION = np.arange(96), np.arange(96, 128)
EVERYTHING = {
    "optimisation": {
        "epochs": 4, "batch_size": 16, "lr": 0.02, "ema_decay": 0.9, "mixup": 0.2, "label_smoothing": 0.05,
        "class_weights": "balanced", "l2": 1e-4, "clip": 5.0, "weight_decay": 0.01, "patience": 3, "keep": "best",
    },
    "augmentation": {
        "offsets": 0.5, "patches_per_case": 12, "stain_jitter": 0.1, "rotation_degrees": 9, "contrast": 0.1,
    },
}  # fmt: skip


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(8, 2),
    )  # fmt: skip


def recipe(**optimisation) -> Recipe:
    return Recipe.model_validate({"optimisation": {"epochs": 3, "batch_size": 16, "lr": 0.02, **optimisation}})


def trained(folder: Path, settings: Recipe, dataset: PaintedDataset | None = None, **more) -> Fitted:
    given = {"validation": VALIDATION, "train": TRAIN, **more}
    train, validation = given.pop("train"), given.pop("validation")
    network = given.pop("network", None) or tiny()
    return fit(network, dataset or painted(), train, validation, settings, folder=folder, device="cpu", **given)


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    return dict(fitted.network.state_dict())


def same(first: Fitted, second: Fitted) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))


def interrupt(monkeypatch, *, epoch: int, batch: int = 2) -> None:
    """Ctrl-C in the middle of an epoch (counted from 0), once."""
    original = Classifier.training_step

    def step(self, patches, number):
        if self.current_epoch == epoch and number == batch:
            monkeypatch.setattr(Classifier, "training_step", original)
            raise KeyboardInterrupt
        return original(self, patches, number)

    monkeypatch.setattr(Classifier, "training_step", step)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_it_learns_and_leaves_no_litter(elsewhere):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = trained(elsewhere / "t", recipe(epochs=6))
    assert fitted.history[-1]["validation_auroc"] > 0.99
    assert fitted.history[-1]["validation_loss"] < fitted.history[0]["validation_loss"]
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4, 5, 6]
    assert all(not math.isnan(row[key]) for row in fitted.history for key in HISTORY)
    assert (fitted.patch_px, fitted.input_px) == (16, 16)
    assert not fitted.network.training
    assert list(Path().iterdir()) == []
    assert list((elsewhere / "t" / "logs").rglob("events.out.tfevents*"))
    with next((elsewhere / "t" / "logs").rglob("metrics.csv")).open() as text:
        assert {"train_loss", "validation_auroc"} <= set(csv.DictReader(text).fieldnames)


def test_the_same_twice_and_another_seed_another(tmp_path):
    settings = Recipe.model_validate(EVERYTHING)
    first, second = (trained(tmp_path / name, settings) for name in "ab")
    assert same(first, second)
    np.testing.assert_equal(first.history, second.history)
    other = trained(tmp_path / "c", settings.model_copy(update={"seed": 1}))
    assert not same(first, other)


def test_it_leaves_the_program_s_chance_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fit(tiny_without_seed(), painted(), TRAIN, None, recipe(epochs=1), folder=tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "setting",
    [
        {"label_smoothing": 0.3},
        {"loss": "focal", "gamma": 2.0},
        {"class_weights": "balanced"},
        {"l1": 0.01},
        {"l2": 0.01},
        {"mixup": 0.5},
        {"weight_decay": 0.5},
        {"clip": 0.01},
    ],
)
def test_every_setting_of_the_loss_counts(tmp_path, setting):
    """On three times as many negative patches as positive ones."""
    labels = painted().labels
    few = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[::3]])
    plain = {"epochs": 1, "label_smoothing": 0.0, "mixup": 0.0, "class_weights": "none"}
    without, with_it = (
        trained(tmp_path / name, recipe(**{**plain, **more}), train=few, validation=None)
        for name, more in (("without", {}), ("with", setting))
    )
    assert not same(without, with_it)


def tiny_without_seed() -> nn.Module:
    with torch.random.fork_rng():
        return tiny()


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau", "constant"])
def test_a_resumed_training_is_an_uninterrupted_one(tmp_path, monkeypatch, schedule):
    values = {**EVERYTHING, "optimisation": {**EVERYTHING["optimisation"], "schedule": schedule, "plateau_patience": 0}}
    settings = Recipe.model_validate(values)
    whole = trained(tmp_path / "whole", settings)
    for epoch in (1, 3):
        interrupt(monkeypatch, epoch=epoch)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "torn", settings)
    resumed = trained(tmp_path / "torn", settings, network=tiny(seed=9))  # what it starts with does not matter
    np.testing.assert_equal(resumed.history, whole.history)
    assert same(resumed, whole)


@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_the_momentum_of_sgd_is_the_recipe_s(tmp_path, monkeypatch, schedule):
    used, original = set(), Classifier.training_step

    def step(self, patches, number):
        used.add(self.trainer.optimizers[0].param_groups[0]["momentum"])
        return original(self, patches, number)

    monkeypatch.setattr(Classifier, "training_step", step)
    trained(tmp_path, recipe(epochs=2, optimizer="sgd", momentum=0.6, schedule=schedule))
    assert used == {0.6}


def test_a_training_that_is_through_is_not_repeated(tmp_path, monkeypatch):
    first = trained(tmp_path, recipe(ema_decay=0.9))
    monkeypatch.setattr(Classifier, "training_step", lambda *_: pytest.fail("trained again"))
    again = trained(tmp_path, recipe(ema_decay=0.9), network=tiny(seed=3))
    assert same(first, again)
    np.testing.assert_equal(again.history, first.history)
    assert (again.mean, again.std) == (first.mean, first.std)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": recipe(lr=0.5)}, r"of another recipe \(optimisation.lr: 0.02 there, 0.5 now\)"),
        ({"train": TRAIN[:-1]}, "on other patches"),
        ({"validation": None}, "on other patches"),
        ({"colours": IMAGENET}, "from other weights"),
    ],
)
def test_a_folder_of_another_training_is_refused(tmp_path, monkeypatch, change, reason):
    interrupt(monkeypatch, epoch=1)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, recipe())
    settings = change.pop("settings", recipe())
    with pytest.raises(TrainingError, match=reason) as caught:
        trained(tmp_path, settings, **change)
    assert "--restart" in caught.value.hint


def test_without_validation_it_trains_to_the_end(tmp_path):
    fitted = trained(tmp_path, recipe(patience=1, keep="best", schedule="plateau"), validation=None)
    assert len(fitted.history) == 3
    assert all(math.isnan(row["validation_loss"]) for row in fitted.history)
    write_history(tmp_path / "history.csv", fitted.history)
    with (tmp_path / "history.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == HISTORY
    assert rows[0]["validation_loss"] == ""
    assert float(rows[-1]["train_loss"]) == pytest.approx(fitted.history[-1]["train_loss"], rel=1e-4)


def test_it_stops_early_keeps_the_best_and_lowers_the_rate(tmp_path):
    """Labels that nothing tells: the validation loss soon rises."""
    dataset = painted()
    samples = [type(s)(name=s.name, label=n * 7 % 3 % 2, group=s.group) for n, s in enumerate(dataset.samples)]
    noise = Unlearnable(samples, dataset.patch_size)
    settings = recipe(
        epochs=40, patience=3, keep="best", schedule="plateau", plateau_patience=0, plateau_factor=0.5, lr=0.05
    )
    fitted = trained(tmp_path, settings, noise)
    losses = [row["validation_loss"] for row in fitted.history]
    assert len(losses) < 40
    assert int(np.argmin(losses)) == len(losses) - 1 - 3
    assert fitted.history[-1]["lr"] < 0.05
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert torch.equal(best["state_dict"]["network.0.weight"], weights(fitted)["0.weight"])
    assert best["epoch"] == int(np.argmin(losses))


class Unlearnable(PaintedDataset):
    """All patches look alike."""

    def read(self, index):
        return np.random.default_rng(index).integers(90, 166, (16, 16, 3), dtype=np.uint8)


def test_a_training_that_had_lost_patience_trains_no_more_when_it_is_taken_up(tmp_path):
    settings = recipe(epochs=40, patience=1, keep="best", lr=0.3)
    first = trained(tmp_path, settings)
    assert len(first.history) < 40
    (tmp_path / "result.json").unlink()  # it ended after the last checkpoint
    again = trained(tmp_path, settings)
    np.testing.assert_equal(again.history, first.history)
    assert same(first, again)


def test_the_best_epoch_is_remembered_where_the_folder_was_moved(tmp_path):
    there, here = (trainer._checkpoint(tmp_path / name, "best.ckpt", "validation_loss") for name in ("a", "b"))
    path, score = str(tmp_path / "a" / "best.ckpt"), torch.tensor(0.1)
    there.best_model_score, there.best_model_path, there.best_k_models = score, path, {path: score}
    there.kth_best_model_path, there.kth_value = path, score
    here.load_state_dict(there.state_dict())
    moved = str(tmp_path / "b" / "best.ckpt")
    assert (here.best_model_path, here.kth_best_model_path, here.best_k_models) == (moved, moved, {moved: score})
    assert (here.best_model_score, here.kth_value) == (score, score)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    from wsi_pipeline import files

    trained(tmp_path / "whole", recipe(epochs=1))
    before = (tmp_path / "whole" / "last.ckpt").read_bytes()

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OutputError, match=r"last.ckpt: cannot be written \(No space left"):
        trainer._WholeFiles().save_checkpoint({"more": 1}, tmp_path / "whole" / "last.ckpt")
    assert (tmp_path / "whole" / "last.ckpt").read_bytes() == before
    assert not list((tmp_path / "whole").glob(".*part*"))


def test_mixed_patches_have_no_labels_to_be_accurate_in(tmp_path):
    assert np.isfinite(trained(tmp_path / "plain", recipe(epochs=1)).history[0]["train_accuracy"])
    mixed = trained(tmp_path / "mixed", recipe(epochs=1, mixup=1.0)).history[0]
    assert np.isnan(mixed["train_accuracy"])
    assert np.isfinite(mixed["train_loss"])


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch") as caught:
        trained(tmp_path, recipe(lr=1e30, optimizer="sgd"))
    assert "optimisation.lr" in caught.value.hint


def _no_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("ask", [_no_gpu_memory, lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50)])
def test_full_memory_is_told_with_its_remedy(tmp_path, monkeypatch, ask):
    def full(*_):
        ask()

    monkeypatch.setattr(Classifier, "training_step", full)
    with pytest.raises(TrainingError, match="memory is full") as caught:
        trained(tmp_path, recipe())
    assert "batch_size" in caught.value.hint


def test_sigterm_is_no_success(tmp_path, monkeypatch):
    """Lightning's own end of the program has status 0, which `train && evaluate` takes for a bundle."""

    def at_epoch_end(self):
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_start", at_epoch_end)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                trained(tmp_path, recipe())
        finally:
            signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 128 + signal.SIGTERM
    assert len(trained(tmp_path, recipe()).history) == 3


def test_a_damaged_checkpoint_is_told_with_its_remedy(tmp_path):
    trained(tmp_path, recipe())
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"last.ckpt: is damaged .* --restart"):
        trained(tmp_path, recipe())
    (tmp_path / "result.json").unlink()
    with pytest.raises(TrainingError, match=r"last.ckpt: is damaged .* --restart"):
        trained(tmp_path, recipe())


def test_an_unreadable_patch_ends_it_by_its_name(tmp_path):
    settings = Recipe.model_validate({"data": {"cache": "none", "workers": 0}})
    with pytest.raises(DatasetError, match=r"2/1-2\.png: is no readable image"):
        trained(tmp_path, settings, painted(broken=frozenset(["2/1-2.png"])))


def test_frozen_stages_stay_as_they_were(tmp_path):
    torch.manual_seed(0)
    network = build_network("idc-cnn", 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = recipe(epochs=2, stages=[{"epoch": 1, "train": "head"}])
    after = weights(trained(tmp_path / "a", settings, network=network, train=TRAIN[:32]))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in network.named_parameters() if name.startswith("head")}
    torch.manual_seed(0)
    settings = recipe(epochs=2, stages=[{"epoch": 1, "train": "head"}, {"epoch": 2, "train": "all"}])
    after = weights(trained(tmp_path / "b", settings, network=build_network("idc-cnn", 2), train=TRAIN[:32]))
    assert sum(not torch.equal(value, before[name]) for name, value in after.items()) > len(before) / 2
    with pytest.raises(ConfigError, match="no stage of the network"):
        trained(tmp_path / "c", recipe(stages=[{"epoch": 1, "train": "fc"}]), network=build_network("idc-cnn", 2))


@pytest.mark.parametrize(
    ("choice", "first", "expected"),
    [("auto", OWN, OWN), ("imagenet", None, IMAGENET), ("none", OWN, ((0.0,) * 3, (1.0,) * 3))],
)
def test_colours_are_normalised_as_the_recipe_says(tmp_path, choice, first, expected):
    settings = Recipe.model_validate({"optimisation": {"epochs": 1}, "model": {"normalisation": choice}})
    fitted = trained(tmp_path, settings, colours=first)
    assert (fitted.mean, fitted.std) == expected


def test_a_network_that_normalises_itself_is_shown_plain_colours(tmp_path):
    model = {"architecture": "idc-residual-7ch"}
    settings = Recipe.model_validate({"optimisation": {"epochs": 1}, "model": model})
    assert trained(tmp_path / "a", settings).mean == (0.0, 0.0, 0.0)
    settings = Recipe.model_validate({"optimisation": {"epochs": 1}, "model": model | {"normalisation": "data"}})
    with pytest.raises(ConfigError, match="does not suit idc-residual-7ch"):
        trained(tmp_path / "b", settings)


def test_patches_are_resized_for_the_network(tmp_path):
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny()

        def forward(self, x):
            seen.append(tuple(x.shape[1:]))
            return self.inner(x)

    settings = Recipe.model_validate({"optimisation": {"epochs": 1}, "model": {"input_px": 12}})
    fitted = trained(tmp_path, settings, network=Watching())
    assert set(seen) == {(3, 12, 12)}
    assert (fitted.patch_px, fitted.input_px) == (16, 12)


def test_the_average_is_warm_from_the_first_step_on():
    """After n steps of a constant weight the average is that weight; and late steps move it by 1 - decay."""
    update = warm_average(0.9)
    averaged = [torch.tensor([0.0])]
    update(averaged, [torch.tensor([1.0])], 1)
    assert averaged[0].item() == pytest.approx(1 - 2 / 11)
    averaged = [torch.tensor([0.0])]
    update(averaged, [torch.tensor([1.0])], 10_000)
    assert averaged[0].item() == pytest.approx(0.1)


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="device 'cuda': is not there"):
            choose_device("cuda")


def test_steps_have_seeds_of_their_own():
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(2)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_mixed_precision_is_chosen_where_the_processor_has_it(monkeypatch):
    for has, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(trainer, "_cpu_has_bf16", lambda has=has: has)
        assert trainer._precision(Recipe(), "cpu") == expected
    assert trainer._precision(Recipe(precision="bf16"), "cpu") == "bf16-mixed"
    assert trainer._precision(Recipe(precision="32"), "cuda") == "32-true"


TWO_PROCESSES = """
import sys
import numpy as np, torch
from pathlib import Path
from torch import nn
from painted import painted
from wsi_pipeline.training.fit import fit
from wsi_pipeline.training.recipe import Recipe

if __name__ == "__main__":
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    recipe = Recipe.model_validate({
        "precision": "32", "augmentation": {"symmetries": False},
        "optimisation": {"epochs": 2, "batch_size": 16, "lr": 0.001, "ema_decay": 0.9},
    })
    count = int(sys.argv[2])
    fitted = fit(network, painted(), np.arange(96), np.arange(96, 125), recipe, folder=Path(sys.argv[1]), device="cpu",
                 devices=count)
    if fitted.history:
        print(*(f"{row['train_loss']:.5f} {row['validation_loss']:.5f} {row['validation_auroc']:.5f}"
                for row in fitted.history))
"""


@pytest.mark.slow
def test_two_devices_do_what_one_does(tmp_path):
    """Without augmentation and batch norm, halves of a batch give the gradient of the whole. 29 patches validate."""
    found = []
    for count in (1, 2):
        losses = printed_by(TWO_PROCESSES, tmp_path, tmp_path / f"{count}", str(count))
        found.append([float(value) for value in losses.split()])
    assert len(found[0]) == 6
    assert found[0] == pytest.approx(found[1], abs=2e-4)
