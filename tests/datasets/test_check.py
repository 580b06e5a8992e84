import numpy as np
from labelled_patches import OnPaper

from wsi_pipeline.datasets import Split, split_dataset
from wsi_pipeline.datasets.check import describe

ROWS = [(f"c{n}", label) for n in range(20) for label in (0, 0, 1)]


def test_a_description_tells_what_was_found_and_what_is_odd():
    dataset = OnPaper(ROWS)
    text = describe(dataset)
    assert "60 patches of 50 x 50 px, 4 µm/px, 20 cases" in text
    assert "other 40 (66.7%), IDC 20 (33.3%)" in text
    assert "nothing odd" in text
    assert text.endswith("For research use only")
    dataset.findings = ("Two cases wear the same name.",)
    assert "- Two cases wear the same name." in describe(dataset)


def test_a_description_counts_the_parts():
    dataset = OnPaper(ROWS)
    lines = describe(dataset, split_dataset(dataset, seed=4)).splitlines()
    assert "split by case, seed 4" in lines
    table = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("  train", "  valid", "  test"))}
    assert table == {
        "train": ["13", "39", "26", "13"],
        "validation": ["3", "9", "6", "3"],
        "test": ["4", "12", "8", "4"],
    }


def test_a_leaky_split_is_named_in_plain_sight():
    dataset = OnPaper(ROWS)
    text = describe(dataset, split_dataset(dataset, kind="leaky"))
    assert "LEAKY split: random patches" in text
    assert "scores say nothing of unseen patients" in text
    assert "LEAKY" not in describe(dataset, split_dataset(dataset))


def test_classes_that_a_part_lacks_are_told_and_wide_tables_are_turned():
    names = [f"a very long name of class {n}" for n in range(6)]
    dataset = OnPaper([(f"p{n}", n % 5, "40X") for n in range(20)], class_names=names)
    split = Split(
        kind="published", seed=0, train=np.arange(0, 14), validation=np.arange(14, 16), test=np.arange(16, 20)
    )
    text = describe(dataset, split)
    assert max(len(line) for line in text.splitlines() if "class" not in line or "  " in line.strip()) < 200
    assert f"No {names[0]} in the test part." in text
    assert names[5] not in text.split("published split")[1].split("- No")[1]
    assert f"{names[1]}      3           0     1" in text
    assert "40X 20" in text


def test_unknown_cases_are_said_to_be_unknown():
    dataset = OnPaper(ROWS)
    dataset.group_kind = "picture"
    text = describe(dataset, split_dataset(dataset))
    assert "cases not known" in text
    assert "split by picture, seed 0" in text
