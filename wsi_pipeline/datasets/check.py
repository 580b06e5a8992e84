"""What a data set holds, what is odd about it and how it was split, as text for people."""

from collections.abc import Sequence

import numpy as np

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.splits import Split, class_counts
from wsi_pipeline.wording import counted

_TITLES = {"idc": "IDC patches", "breakhis": "BreakHis images", "pcam": "PatchCamelyon patches"}
_WIDTH = 118


def describe(dataset: PatchDataset, split: Split | None = None) -> str:
    """Lines that say what was found, what is odd, and how it was split; a leaky split is named so in plain sight."""
    lines = [f"{_TITLES.get(dataset.layout, dataset.layout)}: {dataset.root}", *_contents(dataset)]
    lines += ["  odd:", *(f"  - {finding}" for finding in dataset.findings)] if dataset.findings else ["  nothing odd"]
    if split is not None:
        lines += ["", *split_lines(dataset, split)]
    return "\n".join([*lines, "", RESEARCH_USE])


def _contents(dataset: PatchDataset) -> list[str]:
    counts = class_counts(dataset, np.arange(len(dataset)))
    classes = ", ".join(f"{name} {count:,} ({count / len(dataset):.1%})" for name, count in counts.items())
    resolution = "several resolutions" if dataset.mpp is None else f"{dataset.mpp:g} µm/px"
    lines = [
        f"  {len(dataset):,} patches of {dataset.patch_size} px, {resolution}, {_cases(dataset)}",
        f"  {classes}",
    ]
    strata = sorted({sample.stratum for sample in dataset.samples} - {""}, key=lambda text: (len(text), text))
    if strata:
        numbers = {name: sum(sample.stratum == name for sample in dataset.samples) for name in strata}
        lines.append("  " + ", ".join(f"{name} {count:,}" for name, count in numbers.items()))
    return lines


def _cases(dataset: PatchDataset) -> str:
    if dataset.group_kind == "picture":
        return "cases not known"
    return counted(len(np.unique(dataset.groups)), dataset.group_kind)


def split_lines(dataset: PatchDataset, split: Split) -> list[str]:
    """How a data set was split, by part and class."""
    title = {
        "case": f"split by {dataset.group_kind}, seed {split.seed}",
        "published": f"split of {split.file}" if split.file else "published split",
        "leaky": f"LEAKY split: random patches, seed {split.seed}",
    }[split.kind]
    header = ["", f"{dataset.group_kind}s", "patches", *dataset.class_names]
    rows = []
    for part, indices in split.parts.items():
        counts = class_counts(dataset, indices)
        cases = len(np.unique(dataset.groups[indices]))
        rows.append([part, f"{cases:,}", f"{len(indices):,}", *(f"{count:,}" for count in counts.values())])
    return [title, *_table([header, *rows]), *(f"  - {note}" for note in (*split.notes, *_missing(dataset, split)))]


def _missing(dataset: PatchDataset, split: Split) -> list[str]:
    """Classes of the data set that a part lacks: no figure on that part tells of them."""
    present = {name for name, count in class_counts(dataset, np.arange(len(dataset))).items() if count}
    notes = []
    for part, indices in split.parts.items():
        lacking = [name for name, count in class_counts(dataset, indices).items() if name in present and not count]
        if len(indices) and lacking:
            notes.append(f"No {' or '.join(lacking)} in the {part} part.")
    return notes


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, numbers to the right; turned round where it would be too wide."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    if sum(widths) + 2 * len(widths) > _WIDTH:
        return _table([list(column) for column in zip(*rows, strict=True)])
    return [
        "  "
        + "  ".join(
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
