"""Published splits: which part each case belongs to, from a CSV file."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import DatasetError

PARTS = ("train", "validation", "test")

PUBLISHED_FILE = "split_published.csv"
"""Looked for in the data set's folder, or beside its zip, where no file is named."""

_COLUMNS = "The columns are case,split; split is train, validation or test."
_OTHER_NAMES = {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}


def published_parts(dataset: PatchDataset, file: Path | None, notes: list[str]) -> NDArray[np.int64]:
    """The part of each sample in a published split.

    Args:
        dataset: What is split.
        file: CSV file with the columns case,split; None for `PUBLISHED_FILE` in the data set's folder or beside its
            zip, or for what the data set's own files say.
        notes: Sentences are added here.

    Returns:
        [n]: index into `PARTS`, -1 for none.

    Raises:
        DatasetError: as `read_published`, or where there is no published split.
    """
    root = Path(dataset.root)
    beside = (root if root.is_dir() else root.parent) / PUBLISHED_FILE
    if file is None and not beside.is_file():
        return _parts_of_files(dataset, notes)
    named = read_published(file or beside)
    cases_of = [sample.case or sample.group for sample in dataset.samples]  # a group may be a patient with several
    present, which = set(cases_of), "published" if file is None else "given"
    for part in PARTS:
        cases = {case for case, its_part in named.items() if its_part == part}
        if cases - present:
            notes.append(f"{len(cases - present)} of the {len(cases)} {which} {part} cases are not in the data.")
    others = present - set(named)
    if not any(part == "test" and case in present for case, part in named.items()):
        named |= dict.fromkeys(others, "test")
        compare = ", so scores on it do not compare with published ones" if file is None else ""
        notes.append(
            "The split names no test case that is in the data; the test part is what it does not name "
            f"({len(others)}){compare}."
        )
    elif others:
        notes.append(f"{len(others)} cases outside the {which} split are in no part.")
    numbers = {case: PARTS.index(part) for case, part in named.items()}
    return np.array([numbers.get(case, -1) for case in cases_of], np.int64)


def read_published(file: Path) -> dict[str, str]:
    """Part of each case that a CSV file with the columns case,split names.

    Raises:
        DatasetError: where the file cannot be read, lacks a column, names an unknown part, or puts a case in two.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = list(csv.DictReader(text))
    except OSError as error:
        raise DatasetError(file, f"cannot be read ({error.strerror or error})", "Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(file, f"is no CSV file ({error})", _COLUMNS) from error
    parts: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        case, part = (str(row.get(column) or "").strip() for column in ("case", "split"))
        part = _OTHER_NAMES.get(part.lower(), part.lower())
        if not case or part not in PARTS:
            found = f"case {row.get('case')!r}, split {row.get('split')!r}"
            raise DatasetError(file, f"line {line} names no case and part ({found})", _COLUMNS)
        if parts.setdefault(case, part) != part:
            raise DatasetError(file, f"case {case} is in two parts", "Each case belongs to one part.")
    if not parts:
        raise DatasetError(file, "names no case", _COLUMNS)
    return parts


def _parts_of_files(dataset: PatchDataset, notes: list[str]) -> NDArray[np.int64]:
    parts = [dataset.published_part(index) for index in range(len(dataset))]
    if None in parts:
        hint = f"Name a CSV file with the columns case,split, or put it into the folder as {PUBLISHED_FILE}."
        raise DatasetError(dataset.root, "tells of no published split", hint)
    numbers = np.array([PARTS.index(str(part)) for part in parts], np.int64)
    # A group that its publishers have put into several parts (the same picture twice) goes as a whole to the last.
    groups, number = np.unique(dataset.groups, return_inverse=True)
    last = np.zeros(len(groups), np.int64)
    np.maximum.at(last, number, numbers)
    if moved := np.count_nonzero(last[number] != numbers):
        notes.append(f"{moved} samples with a twin in a later published part were moved there.")
    return last[number]
