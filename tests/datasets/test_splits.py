import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_patches import OnPaper, groups_of, idc_files, names_of
from patches import write_folder, write_zip

from wsi_pipeline.datasets import Split, folds, open_dataset, split_dataset
from wsi_pipeline.datasets.check import split_lines
from wsi_pipeline.datasets.splits import check_split, draw_samples, limit_samples
from wsi_pipeline.errors import DatasetError


@st.composite
def datasets(draw):
    """12 to 60 cases of 2 to 15 patches; both classes in every case."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    rows = []
    for case in range(draw(st.integers(12, 60))):
        labels = [0, 1, *rng.integers(0, 2, rng.integers(0, 14)).tolist()]
        rows += [(f"case {case}", label, str(rng.integers(2))) for label in labels]
    return OnPaper(rows)


def shuffled(dataset, seed=0):
    return dataset.subset(np.random.default_rng(seed).permutation(len(dataset)))


@given(datasets(), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_splits_share_no_case_and_lose_no_patch(dataset, seed):
    split = split_dataset(dataset, seed=seed)
    parts = list(split.parts.values())
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(dataset)))
    cases = [groups_of(dataset, part) for part in parts]
    assert sum(map(len, cases)) == len(set.union(*cases)) == len(set(dataset.groups))
    assert all(len(set(dataset.labels[part])) == 2 for part in parts)
    assert not split.leaky


@given(datasets(), st.integers(0, 5), st.sampled_from(["case", "leaky"]), st.sampled_from([1.0, 0.3]))
@settings(max_examples=25, deadline=None)
def test_splits_depend_on_the_seed_only_not_on_the_order_of_samples(dataset, seed, kind, limit):
    other = shuffled(dataset, seed)
    first, again, second = (split_dataset(d, kind=kind, seed=seed, limit=limit) for d in (dataset, dataset, other))
    for part in ("train", "validation", "test"):
        assert (first.parts[part] == again.parts[part]).all()
        assert names_of(dataset, first.parts[part]) == names_of(other, second.parts[part])


@given(datasets(), st.integers(2, 6), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_folds_hold_out_every_case_once(dataset, k, seed):
    pairs = folds(dataset, k, seed)
    assert len(pairs) == k
    assert sorted(np.concatenate([held for _, held in pairs]).tolist()) == list(range(len(dataset)))
    for train, held in pairs:
        assert not groups_of(dataset, train) & groups_of(dataset, held)
        assert len(train) + len(held) == len(dataset)
    other = shuffled(dataset)
    for (_, held), (_, again) in zip(pairs, folds(other, k, seed), strict=True):
        assert names_of(dataset, held) == names_of(other, again)


def test_another_seed_is_another_split():
    dataset = OnPaper([(f"c{n}", label) for n in range(30) for label in (0, 1)])
    tests = {frozenset(groups_of(dataset, split_dataset(dataset, seed=seed).test)) for seed in range(5)}
    assert len(tests) == 5


def uneven(cases=120, seed=0):
    """Cases as unlike as real ones: 20 to 1,000 patches, 0 to 90 % positive."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        size, share = int(rng.integers(20, 60) if case % 10 else rng.integers(400, 1000)), rng.beta(0.8, 2)
        rows += [(f"c{case:03d}", int(positive)) for positive in rng.random(size) < share]
    return OnPaper(rows)


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_alike_in_labels_and_have_the_wanted_size(seed):
    dataset = uneven()
    split = split_dataset(dataset, seed=seed)
    shares = {part: dataset.labels[indices].mean() for part, indices in split.parts.items()}
    assert max(shares.values()) - min(shares.values()) < 0.02
    cases = {part: len(groups_of(dataset, indices)) / 120 for part, indices in split.parts.items()}
    samples = {part: len(indices) / len(dataset) for part, indices in split.parts.items()}
    for part, wanted in {"train": 0.65, "validation": 0.15, "test": 0.2}.items():
        assert cases[part] == pytest.approx(wanted, abs=0.04)
        assert samples[part] == pytest.approx(wanted, abs=0.04)


def test_strata_and_classes_keep_their_proportion():
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(80):
        label = patient % 8
        rows += [(f"p{patient}", label, stratum) for stratum in rng.choice(["40X", "400X"], 6, p=(0.3, 0.7))]
    dataset = OnPaper(rows, class_names="abcdefgh")
    split = split_dataset(dataset)
    strata = np.array([sample.stratum for sample in dataset.samples])
    for indices in split.parts.values():
        assert set(dataset.labels[indices]) == set(range(8))
        assert (strata[indices] == "40X").mean() == pytest.approx((strata == "40X").mean(), abs=0.05)


def test_a_patient_of_two_classes_stays_in_one_part():
    rows = [(f"p{n}", n % 3) for n in range(30) for _ in range(4)]
    rows += [("14-13412", 0), ("14-13412", 1), ("14-13412", 1)]
    dataset = OnPaper(rows, class_names="xyz")
    for seed in range(10):
        split = split_dataset(dataset, seed=seed)
        assert sum("14-13412" in groups_of(dataset, part) for part in split.parts.values()) == 1


def test_training_is_the_last_to_lack_a_rare_class():
    rows = [(f"p{n}", n % 2) for n in range(20) for _ in range(3)] + [("rare", 2)] * 3
    dataset = OnPaper(rows, class_names="xyz")
    for seed in range(5):
        assert "rare" in groups_of(dataset, split_dataset(dataset, seed=seed).train)


def test_a_leaky_split_says_so():
    dataset = uneven(30)
    split = split_dataset(dataset, kind="leaky")
    assert split.leaky
    assert "LEAKY" in split.notes[0]
    cases = [groups_of(dataset, part) for part in split.parts.values()]
    assert cases[0] & cases[1] & cases[2]
    assert sorted(np.concatenate(list(split.parts.values())).tolist()) == list(range(len(dataset)))
    for part, wanted in (("train", 0.65), ("validation", 0.15), ("test", 0.2)):
        assert len(split.parts[part]) / len(dataset) == pytest.approx(wanted, abs=0.01)
        assert dataset.labels[split.parts[part]].mean() == pytest.approx(dataset.labels.mean(), abs=0.01)


def test_a_part_of_no_size_is_left_out():
    dataset = uneven(30)
    split = split_dataset(dataset, test_fraction=0)
    assert len(split.test) == 0
    assert len(split.train) + len(split.validation) == len(dataset)


def test_a_limit_keeps_both_classes_and_the_parts():
    dataset = uneven()
    whole, small = split_dataset(dataset), split_dataset(dataset, limit=0.01)
    for part, indices in small.parts.items():
        assert set(indices) <= set(whole.parts[part])
        assert len(indices) == pytest.approx(0.01 * len(whole.parts[part]), abs=2)
        assert set(dataset.labels[indices]) == {0, 1}
    assert small.limit == 0.01
    assert "1.0% of each part" in small.notes[-1]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("a", 0), ("a", 1), ("b", 0), ("b", 1)], "holds 2 cases, which leaves none for"),
        ([(f"c{n}", 0) for n in range(20)] + [("d", 0), ("d", 1)], "part holds other only"),
    ],
)
def test_parts_that_are_empty_or_of_one_class_are_refused(rows, why):
    with pytest.raises(DatasetError, match=why):
        split_dataset(OnPaper(rows))


def test_folds_that_cannot_be_are_refused():
    dataset = OnPaper([("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)])
    with pytest.raises(DatasetError, match=r"cannot make 4 folds of 3 cases\. Ask for at least 2, at most 3"):
        folds(dataset, 4)
    with pytest.raises(DatasetError, match=r"fold \d part holds other only"):
        folds(dataset, 3)


@pytest.mark.parametrize(
    ("settings_", "why"),
    [
        ({"kind": "random"}, "'random' is unknown"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"test_fraction": -0.1}, "leave nothing to train on"),
        ({"limit": 0}, "limit 0 is no fraction"),
        ({"limit": 1.5}, "limit 1.5 is no fraction"),
    ],
)
def test_impossible_settings_are_refused(settings_, why):
    with pytest.raises(DatasetError, match=why):
        split_dataset(uneven(20), **settings_)


def test_a_case_or_a_sample_in_two_parts_is_refused():
    dataset = OnPaper([("a", 0), ("a", 1), ("b", 0), ("b", 1)])
    with pytest.raises(DatasetError, match="sample 1 is in two parts"):
        Split(kind="case", seed=0, train=np.array([0, 1]), test=np.array([1]))
    torn = Split(kind="case", seed=0, train=np.array([0, 3]), test=np.array([1, 2]))
    with pytest.raises(DatasetError, match=r"case a is in two parts \(train and test\)"):
        check_split(torn, dataset, ["train", "test"])


CASES = [f"c{n}" for n in range(8)]


def published(folder, text):
    write_folder(folder, idc_files(CASES))
    (folder / "split_published.csv").write_text(text)
    return open_dataset(folder)


def test_a_published_split_is_followed_and_the_rest_tests(tmp_path):
    dataset = published(tmp_path, "case,split\nc0,train\nc1,training\nc2,validation\nc9,train\n")
    split = split_dataset(dataset, kind="published")
    assert [groups_of(dataset, part) for part in split.parts.values()] == [{"c0", "c1"}, {"c2"}, set(CASES[3:])]
    assert split.notes[0] == "1 of the 3 published train cases are not in the data."
    assert "names no test case that is in the data; the test part is what it does not name (5), so" in split.notes[1]


def test_a_published_split_may_lie_beside_a_zip(tmp_path):
    write_zip(tmp_path / "patches.zip", idc_files(CASES))
    (tmp_path / "split_published.csv").write_text("case,split\nc0,train\nc2,validation\nc3,test\n")
    dataset = open_dataset(tmp_path / "patches.zip")
    split = split_dataset(dataset, kind="published")
    assert [groups_of(dataset, part) for part in split.parts.values()] == [{"c0"}, {"c2"}, {"c3"}]


def test_published_test_cases_leave_the_others_out(tmp_path):
    dataset = published(tmp_path, "case,split\nc0,train\nc2,validation\nc3,test\n")
    split = split_dataset(dataset, kind="published")
    assert [groups_of(dataset, part) for part in split.parts.values()] == [{"c0"}, {"c2"}, {"c3"}]
    assert split.notes == ("5 cases outside the published split are in no part.",)


def test_a_published_split_of_cases_holds_where_groups_are_patients(tmp_path):
    facts = {"dataset.json": b'{"patients": {"c0": "P1", "c1": "P1"}, "patch_size_px": 50, "mpp": 4}'}
    write_folder(tmp_path, idc_files(CASES) | facts)
    table = tmp_path / "mine.csv"
    table.write_text("case,split\nc0,train\nc1,train\nc2,validation\nc3,test\n")
    dataset = open_dataset(tmp_path)
    split = split_dataset(dataset, kind="published", published=table)
    assert [groups_of(dataset, part) for part in split.parts.values()] == [{"P1"}, {"c2"}, {"c3"}]
    assert split.notes == ("4 cases outside the given split are in no part.",)
    table.write_text("case,split\nc0,train\nc1,test\nc2,validation\nc3,test\n")
    with pytest.raises(DatasetError, match="case P1 is in two parts"):
        split_dataset(dataset, kind="published", published=table)


def test_a_published_split_may_lie_elsewhere(tmp_path):
    dataset = published(tmp_path / "data", "case,split\nc0,train\nc2,validation\n")
    (tmp_path / "mine.csv").write_text("\ufeffcase,split\nc4,train\nc5,val\n", encoding="utf-8")
    split = split_dataset(dataset, kind="published", published=tmp_path / "mine.csv")
    assert groups_of(dataset, split.train) == {"c4"}
    told = "\n".join(split_lines(dataset, split))
    assert told.startswith("split of mine.csv")
    assert "published" not in told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("case,split\nc0,train\nc0,validation\n", "case c0 is in two parts"),
        ("case,split\nc0,train\nc1,holdout\n", "line 3 names no case and part"),
        ("id,part\nc0,train\n", "line 2 names no case and part"),
        ("case,split\n", "names no case"),
        ("case,split\nc0,train\n", "leaves none for validation"),
        ("", "names no case"),
    ],
)
def test_a_published_split_that_cannot_be_followed_is_refused(tmp_path, text, why):
    dataset = published(tmp_path, text)
    with pytest.raises(DatasetError, match=why):
        split_dataset(dataset, kind="published")


def test_a_published_split_that_is_not_there_is_refused(tmp_path):
    dataset = open_dataset(write_folder(tmp_path, idc_files(CASES)))
    with pytest.raises(DatasetError, match="tells of no published split"):
        split_dataset(dataset, kind="published")
    with pytest.raises(DatasetError, match="cannot be read"):
        split_dataset(dataset, kind="published", published=tmp_path / "nowhere.csv")


def test_a_split_is_written_as_cases_a_leaky_one_as_patches():
    dataset = uneven(30)
    for kind, names in (("case", groups_of), ("leaky", names_of)):
        split = split_dataset(dataset, kind=kind, seed=3)
        value = json.loads(json.dumps(split.as_json(dataset)))
        assert (value["kind"], value["seed"], value["leaky"]) == (kind, 3, kind == "leaky")
        assert value["unit"] == ("sample" if kind == "leaky" else "case")
        assert value["notes"] == list(split.notes)
        for part, indices in split.parts.items():
            assert value[part] == sorted(names(dataset, indices))
            assert value["samples"][part]["IDC"] == int(dataset.labels[indices].sum())


def test_a_limited_data_set_keeps_every_case_and_class():
    dataset = uneven(30)
    small = limit_samples(dataset, 0.05)
    assert set(small.groups) == set(dataset.groups)
    assert len(small) < 0.15 * len(dataset)
    wanted = {(group, label) for group, label in zip(dataset.groups, dataset.labels.tolist(), strict=True)}
    assert {(group, label) for group, label in zip(small.groups, small.labels.tolist(), strict=True)} == wanted
    again = limit_samples(shuffled(dataset), 0.05)
    assert {s.name for s in again.samples} == {s.name for s in small.samples}
    assert limit_samples(dataset, 1) is dataset
    with pytest.raises(DatasetError, match="is no fraction"):
        limit_samples(dataset, 0)


def test_a_random_subset_has_the_wanted_numbers():
    dataset = uneven()
    chosen = draw_samples(dataset, {"IDC": 30, "other": 45}, seed=1)
    assert np.bincount(dataset.labels[chosen]).tolist() == [45, 30]
    assert len(set(chosen.tolist())) == 75
    other = shuffled(dataset)
    assert names_of(dataset, chosen) == names_of(other, draw_samples(other, {"other": 45, "IDC": 30}, seed=1))
    assert set(chosen) != set(draw_samples(dataset, {"IDC": 30, "other": 45}, seed=2))
    with pytest.raises(DatasetError, match="samples of IDC, not 1,000,000"):
        draw_samples(dataset, {"IDC": 1_000_000})
    with pytest.raises(DatasetError, match="no class 'DCIS'"):
        draw_samples(dataset, {"DCIS": 1})


@pytest.mark.data
def test_the_published_split_of_the_real_cases(data_dir):
    dataset = open_dataset(data_dir / "idc")
    split = split_dataset(dataset, kind="published")
    assert [len(groups_of(dataset, part)) for part in split.parts.values()] == [81, 29, 117]
    assert any("names no test case" in note for note in split.notes)


@pytest.mark.data
def test_folds_of_the_real_cases_are_alike(data_dir):
    dataset = open_dataset(data_dir / "idc")
    shares = [dataset.labels[held].mean() for _, held in folds(dataset, 5)]
    assert max(shares) - min(shares) < 0.02
