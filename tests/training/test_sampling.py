"""What an epoch shows, checked against the cases as whole pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import PaintedDataset, painted

from wsi_pipeline.datasets import load_images
from wsi_pipeline.datasets.base import Sample
from wsi_pipeline.geometry import Size
from wsi_pipeline.training.batches import MemoryPatches
from wsi_pipeline.training.sampling import Draw, Pool, draw_epoch, every, shown_of_classes, truncate

PATCH, SIDE = 8, 4


def pool_of(dataset: PaintedDataset) -> Pool:
    return Pool.of(dataset.samples, size=dataset.patch_size, classes=2)


def drawn(pool, rows, *, offsets=0.5, per_case=None, seed=(0, 0), crop=None) -> Draw:
    crop = crop or pool.size
    return draw_epoch(pool, rows, offsets=offsets, per_case=per_case, crop=crop, random_crop=True, seed=seed)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, PATCH - 1), st.integers(0, PATCH - 1)), min_size=1, max_size=9)
)
@settings(max_examples=40, deadline=None)
def test_windows_and_their_labels_are_those_of_the_whole_case(wanted):
    """The oracle: paint the case as one picture and one map of labels, cut there."""
    dataset = painted(cases=1, side=SIDE, patch=PATCH)
    images, pool = load_images(dataset), pool_of(dataset)
    picture = (
        images.reshape(SIDE, SIDE, PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(SIDE * PATCH, SIDE * PATCH, 3)
    )
    labels = np.kron(dataset.labels.reshape(SIDE, SIDE), np.ones((PATCH, PATCH)))
    origins = np.flatnonzero((pool.neighbours >= 0).all(axis=1))
    assert len(origins) == (SIDE - 1) ** 2
    draw = Draw(rows=origins[[n for n, _, _ in wanted]], offset=np.array([(x, y) for _, x, y in wanted]))
    windows, targets = MemoryPatches(images, pool, PATCH)[draw]
    for row, (ox, oy), window, target in zip(draw.rows, draw.offset, windows, targets, strict=True):
        x, y = row % SIDE * PATCH + ox, row // SIDE * PATCH + oy
        assert np.array_equal(window.numpy(), picture[y : y + PATCH, x : x + PATCH])
        assert target[1].item() == pytest.approx(labels[y : y + PATCH, x : x + PATCH].mean())
        assert target.sum().item() == pytest.approx(1)


def test_an_epoch_takes_the_cap_of_each_case_half_of_it_across_patches():
    pool = pool_of(painted(cases=5, side=6, patch=PATCH))
    draw = drawn(pool, np.arange(180), per_case=10)
    assert np.bincount(pool.cases[draw.rows]).tolist() == [10] * 5
    plain = (draw.offset == 0).all(axis=1)
    assert 20 <= plain.sum() <= 30  # half, and windows that happen to begin at a patch's corner
    assert len(np.unique(draw.rows[plain])) > 15


def test_what_an_epoch_shows_of_each_class_is_the_mean_of_many():
    """A large case of one class and small ones of the other: by their files the classes are otherwise balanced."""
    cases = np.repeat([0, 1, 2], [60, 12, 8])
    pool = Pool(
        labels=np.where((cases == 0) & (np.arange(80) > 5), 0, 1),
        cases=cases,
        neighbours=np.full((80, 4), -1),
        size=Size(PATCH, PATCH),
        classes=3,
    )
    rows = np.arange(2, 80)
    for per_case in (None, 10):
        draws = [drawn(pool, rows, offsets=0, per_case=per_case, seed=(0, epoch)).rows for epoch in range(400)]
        mean = np.bincount(pool.labels[np.concatenate(draws)], minlength=3) / 400
        assert shown_of_classes(pool, rows, per_case) == pytest.approx(mean, abs=0.15)
    assert shown_of_classes(pool, rows, 10).sum() == pytest.approx(10 + 10 + 8)


def test_plain_patches_come_once_and_all_of_them_where_nothing_caps():
    pool = pool_of(painted(cases=3, side=3, patch=PATCH))
    draw = drawn(pool, np.arange(27), offsets=0.0)
    assert sorted(draw.rows) == list(range(27))
    assert not draw.offset.any()
    assert drawn(pool, np.arange(27), offsets=0.0, per_case=4).rows.tolist() != sorted(draw.rows)


def test_cases_of_which_there_is_a_sample_only_give_no_windows():
    whole = painted(cases=2, side=6, patch=PATCH)
    pool = pool_of(whole.subset(np.flatnonzero(np.arange(72) % 6 % 2 == 0)))  # every second column
    assert not drawn(pool, np.arange(36)).offset.any()


def test_no_window_looks_into_patches_that_do_not_train():
    pool = pool_of(painted(cases=1, side=6, patch=PATCH))
    rows = np.setdiff1d(np.arange(36), [14])
    for seed in range(20):
        draw = drawn(pool, rows, offsets=1.0, seed=(seed, 0))
        inside = draw.rows[draw.offset.any(axis=1)]
        assert 14 not in pool.neighbours[inside]


def test_every_epoch_is_as_long_as_the_first_but_another():
    pool = pool_of(painted(cases=4, side=5, patch=PATCH))
    draws = [drawn(pool, np.arange(100), per_case=17, seed=(3, epoch)) for epoch in range(6)]
    assert {len(draw) for draw in draws} == {68}
    assert not np.array_equal(draws[0].rows, draws[1].rows)
    again = drawn(pool, np.arange(100), per_case=17, seed=(3, 1))
    assert np.array_equal(draws[1].rows, again.rows)
    assert np.array_equal(draws[1].offset, again.offset)


def test_patches_that_are_no_squares_are_cropped_anywhere_in_training_and_in_the_centre_otherwise():
    samples = [Sample(name=f"{n}", label=n % 2, group=f"{n}") for n in range(40)]
    dataset = PaintedDataset(samples, Size(14, 9))
    images, pool, crop = load_images(dataset), pool_of(dataset), Size(9, 9)
    draw = drawn(pool, np.arange(40), offsets=0.0, crop=crop)
    assert draw.offset[:, 1].max() == 0
    assert set(draw.offset[:, 0]) == set(range(6))
    windows, targets = MemoryPatches(images, pool, 9)[draw]
    for row, (x, _), window in zip(draw.rows, draw.offset, windows, strict=True):
        assert np.array_equal(window.numpy(), images[row][:, x : x + 9])
    assert torch.equal(targets.argmax(1), torch.from_numpy(pool.labels[draw.rows]))
    middle = every(np.arange(3), pool, crop)
    assert middle.offset.tolist() == [[2, 0]] * 3


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_truncated_classes_are_equal_and_none_is_lost(labels, seed):
    labels = np.array(labels)
    kept = truncate(labels, np.arange(len(labels)), seed)
    counts = np.unique(labels, return_counts=True)[1]
    assert np.unique(labels[kept], return_counts=True)[1].tolist() == [counts.min()] * len(counts)
    assert len(np.unique(kept)) == len(kept)
    assert (np.diff(kept) > 0).all()
