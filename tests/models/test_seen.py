import json
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from cards import card
from helpers import write_redness_bundle
from shades import Shades, red_bundle

from wsi_pipeline.datasets import split_dataset
from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import load_bundle, save_bundle, save_ensemble
from wsi_pipeline.models.seen import mark, what_was_seen

CASES = [f"c{n}" for n in range(10)]


@pytest.fixture
def dataset():
    names = np.repeat(CASES, 6).tolist()
    return Shades(list(range(60)), [n % 2 for n in range(60)], names)


@pytest.mark.parametrize("kind", ["case", "leaky"])
def test_what_the_training_wrote_beside_the_bundle_is_understood(tmp_path, dataset, kind):
    split = split_dataset(dataset, kind=kind)
    (tmp_path / "split.json").write_text(json.dumps(split.as_json(dataset)))
    seen = what_was_seen(red_bundle(tmp_path))
    assert seen.known
    assert seen.leaky == (kind == "leaky")
    assert np.flatnonzero(mark(dataset, seen.train)).tolist() == split.train.tolist()
    assert np.flatnonzero(mark(dataset, seen.validation)).tolist() == split.validation.tolist()


def test_patches_are_known_again_in_another_copy_of_the_data(tmp_path, dataset):
    split = split_dataset(dataset, kind="leaky")
    found = split.as_json(dataset)
    found["train"] = [f"IDC_regular_ps50_idx5/{name}" for name in found["train"]]
    (tmp_path / "split.json").write_text(json.dumps(found))
    assert np.flatnonzero(mark(dataset, what_was_seen(red_bundle(tmp_path)).train)).tolist() == split.train.tolist()


def test_a_patient_s_cases_are_known_again_where_the_patient_is_not_told(tmp_path, dataset):
    told = copy(dataset)
    told.samples = tuple(replace(s, group=f"P{int(s.group[1:]) // 2}", case=s.group) for s in dataset.samples)
    split = split_dataset(told, seed=1)
    (tmp_path / "split.json").write_text(json.dumps(split.as_json(told)))
    seen = what_was_seen(red_bundle(tmp_path))
    for each in (told, dataset):
        assert np.flatnonzero(mark(each, seen.train)).tolist() == split.train.tolist()


def test_the_card_tells_it_too(tmp_path, dataset):
    training = {"split_by_case": {"train": ["c1", "c2"], "validation": ["c3"], "test": ["c4"]}}
    seen = what_was_seen(red_bundle(tmp_path, training=training))
    assert (seen.train, seen.validation, seen.leaky) == ({"c1", "c2"}, {"c3"}, False)
    assert mark(dataset, seen.train).sum() == 12


def test_a_saved_ensemble_knows_what_all_its_members_have_seen_or_that_it_does_not(tmp_path):
    bundles = []
    splits = {"a": {"train": ["c1", "c2"], "validation": ["c2", "c4"]}, "b": {"train": ["c3"]}, "mute": None}
    for name, split in splits.items():
        torch.manual_seed(0)
        own = card(architecture="idc-cnn", training={} if split is None else {"note": "the split is in its file"})
        bundles.append(save_bundle(tmp_path / name, build_network("idc-cnn", 2), own))
        if split is not None:
            (tmp_path / name / "split.json").write_text(json.dumps({"kind": "case", **split}))
    both = save_ensemble(tmp_path / "told", bundles[:2], card())
    told = what_was_seen(both)
    assert (told.known, told.train) == (True, {"c1", "c2", "c3"})
    assert told.validation == {"c4"}
    (both.path / "split.json").write_text(json.dumps({"kind": "case", "train": ["c5"]}))  # of the ensemble's own
    assert what_was_seen(both).train == {"c1", "c2", "c3", "c5"}
    assert not what_was_seen(save_ensemble(tmp_path / "part", bundles[1:], card())).known


def test_a_bundle_that_says_nothing_is_not_known(tmp_path):
    bundle = load_bundle(write_redness_bundle(tmp_path / "bundle", mpp=4.0))
    assert not what_was_seen(bundle).known


def test_a_damaged_split_is_refused(tmp_path):
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(BundleError, match=r"split\.json: cannot be read"):
        what_was_seen(red_bundle(tmp_path))
