"""Batches: the same from memory and from workers, shared out among devices, and bad data named."""

import numpy as np
import pytest
import torch
from painted import PaintedDataset, painted

from wsi_pipeline.datasets import load_images
from wsi_pipeline.datasets.base import Sample
from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.geometry import Size
from wsi_pipeline.training.batches import Batches, collate
from wsi_pipeline.training.data import PatchData, fits_memory
from wsi_pipeline.training.recipe import DataSettings, Recipe
from wsi_pipeline.training.sampling import Draw

TRAIN, VALIDATION = np.arange(96), np.arange(96, 128)


def recipe(**data) -> Recipe:
    return Recipe.model_validate({"optimisation": {"batch_size": 20}, "data": {"workers": 0, **data}})


def batches(loader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(loader)


@pytest.mark.parametrize("size", [Size(16, 16), Size(20, 12)])
def test_workers_and_memory_give_the_same_batches(size):
    samples = [Sample(name=f"{n}", label=n % 2, group=f"{n // 4}") for n in range(128)]
    dataset = PaintedDataset(samples, size)
    memory, decoded = (PatchData(dataset, TRAIN, VALIDATION, recipe(cache=kind)) for kind in ("memory", "none"))
    for name in ("train_dataloader", "val_dataloader"):
        first, second = batches(getattr(memory, name)()), batches(getattr(decoded, name)())
        assert len(first) == len(second)
        for (patches, targets), (others, labels) in zip(first, second, strict=True):
            assert patches.shape[1:] == (memory.side, memory.side, 3)
            assert torch.equal(patches, others)
            assert torch.equal(targets, labels)


@pytest.mark.slow
def test_worker_processes_give_them_too():
    dataset = painted()
    here, there = (PatchData(dataset, TRAIN, VALIDATION, recipe(cache="none", workers=n)) for n in (0, 2))
    for (patches, targets), (others, labels) in zip(here.val_dataloader(), there.val_dataloader(), strict=True):
        assert torch.equal(patches, others)
        assert torch.equal(targets, labels)


def test_an_epoch_has_whole_batches_only_and_validation_every_patch():
    data = PatchData(painted(), TRAIN, VALIDATION, recipe())
    assert data.steps == 4
    assert [len(patches) for patches, _ in data.train_dataloader()] == [20] * 4
    assert sum(len(patches) for patches, _ in data.val_dataloader()) == 32


def test_fewer_patches_than_a_batch_are_one_batch():
    data = PatchData(painted(), TRAIN[:6], VALIDATION, recipe())
    assert [len(patches) for patches, _ in data.train_dataloader()] == [6]


@pytest.mark.parametrize("singly", [False, True])
def test_devices_share_a_batch_and_repeat_nothing(singly):
    def draw(epoch: int) -> Draw:
        rows = np.random.default_rng(epoch).permutation(50)
        return Draw(rows=rows, offset=np.zeros((50, 2), np.int64))

    shares = [Batches(draw, 16, whole=True, share=(rank, 4), singly=singly) for rank in range(4)]
    whole = Batches(draw, 16, whole=True, share=(0, 1), singly=False)
    for share in (*shares, whole):
        share.set_epoch(7)
    for batch, *parts in zip(whole, *shares, strict=True):
        rows = [[row for row, _, _ in part] if singly else part.rows.tolist() for part in parts]
        assert [len(part) for part in rows] == [4] * 4
        assert sorted(row for part in rows for row in part) == sorted(batch.rows.tolist())


def test_colours_are_those_of_the_training_patches():
    dataset = painted()
    mean, std = PatchData(dataset, TRAIN, VALIDATION, recipe()).colours()
    pixels = load_images(dataset, TRAIN).reshape(-1, 3) / 255
    assert mean == pytest.approx(pixels.mean(0), abs=1e-4)
    assert std == pytest.approx(pixels.std(0), abs=1e-4)
    streamed = PatchData(dataset, TRAIN, VALIDATION, recipe(cache="none")).colours()
    assert streamed == (mean, std)


def test_truncated_classes_are_equal_in_training_only():
    uneven = np.concatenate(
        [np.flatnonzero(painted().labels[:96] == 1), np.flatnonzero(painted().labels[:96] == 0)[:9]]
    )
    data = PatchData(painted(), np.sort(uneven), VALIDATION, recipe(balance="truncate"))
    assert data.class_counts().tolist() == [9, 9]
    assert len(data.validation) == 32


def test_classes_are_counted_as_an_epoch_shows_them():
    data = PatchData(painted(), TRAIN, VALIDATION, Recipe.model_validate({"augmentation": {"patches_per_case": 4}}))
    assert data.class_counts().tolist() == [12, 12]
    assert data.class_counts().sum() == len(data._epoch(0))


def test_memory_is_used_where_it_suffices():
    dataset = painted()
    assert fits_memory(dataset, 100, DataSettings())
    assert not fits_memory(dataset, 100, DataSettings(memory_gb=1e-6))
    assert not fits_memory(dataset, 100, DataSettings(cache="none"))
    assert fits_memory(dataset, 10**12, DataSettings(cache="memory"))


@pytest.mark.parametrize(
    ("train", "validation", "reason"),
    [
        (np.arange(0), VALIDATION, "training has no patch"),
        (np.flatnonzero(painted().labels[:96] == 1), VALIDATION, "class 'IDC' only"),
        (TRAIN, np.arange(90, 99), r"painted: 5/2-2.png: is in training and validation"),
    ],
)
def test_parts_that_teach_nothing_are_refused(train, validation, reason):
    with pytest.raises(DatasetError, match=reason):
        PatchData(painted(), train, validation, recipe())


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_an_unreadable_patch_is_named(cache):
    dataset = painted(broken=frozenset(["3/1-2.png"]))

    def read_all():
        data = PatchData(dataset, TRAIN, VALIDATION, recipe(cache=cache))
        for batch in data.train_dataloader():
            data.on_before_batch_transfer(batch, 0)

    with pytest.raises(DatasetError, match=r"3/1-2\.png: is no readable image"):
        read_all()


def test_all_unreadable_patches_are_told_before_the_training():
    broken = frozenset(["3/1-2.png", "0/0-0.png", "4/1-1.png"])
    with pytest.raises(DatasetError, match="3 of 128 patches cannot be used: ") as told:
        PatchData(painted(broken=broken), TRAIN, VALIDATION, recipe(cache="memory"))
    assert all(f"{name} (is no readable image)" in str(told.value) for name in broken)


def test_windows_across_patches_need_memory_and_squares():
    wanted = {"augmentation": {"offsets": 0.5}}
    with pytest.raises(ConfigError, match=r"augmentation\.offsets: needs the decoded patches in memory"):
        PatchData(painted(), TRAIN, VALIDATION, Recipe.model_validate({**wanted, "data": {"cache": "none"}}))
    oblong = PaintedDataset(painted().samples, Size(20, 12))
    with pytest.raises(ConfigError, match="needs square patches"):
        PatchData(oblong, TRAIN, VALIDATION, Recipe.model_validate(wanted))


def test_a_device_without_a_share_of_a_small_last_batch_gets_an_empty_one():
    patches, targets = collate([])
    assert (len(patches), len(targets), patches.dtype) == (0, 0, torch.uint8)
