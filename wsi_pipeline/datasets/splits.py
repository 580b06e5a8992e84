"""Which patches train, which choose threshold and temperature, which are kept for the final test.

By case or patient, unless a leaky split is asked for by name: patches of one case are alike, so scores on patches of
cases that were trained on say nothing of new patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.draws import Groups, deal, draw_groups
from wsi_pipeline.datasets.published import PARTS, published_parts
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.wording import counted

SplitKind = Literal["case", "published", "leaky"]
Indices = NDArray[np.int64]


def _none() -> Indices:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Samples of a data set, each in one part at most. The parts are sorted indices into `dataset.samples`."""

    kind: SplitKind
    seed: int
    train: Indices = field(default_factory=_none)
    validation: Indices = field(default_factory=_none)
    test: Indices = field(default_factory=_none)
    limit: float = 1.0
    """The fraction of each part's samples that was kept."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know of the split, a sentence each."""
    file: str = ""
    """Name of the file of cases that was given; empty for a published split of the data's own."""

    def __post_init__(self) -> None:
        everything = np.concatenate([self.train, self.validation, self.test])
        values, counts = np.unique(everything, return_counts=True)
        if (counts > 1).any():
            where = f"sample {values[counts > 1][0]} is in two parts"
            raise DatasetError("split", where, "Each sample belongs to one part.")

    @property
    def leaky(self) -> bool:
        """Whether patches of one case stand in several parts."""
        return self.kind == "leaky"

    @property
    def parts(self) -> dict[str, Indices]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def as_json(self, dataset: PatchDataset) -> dict[str, Any]:
        """What `split.json` holds: the groups of each part; of a leaky split the names of its samples.

        Where groups are patients, the cases too, by which another copy of the data may know them.
        """
        unit = [sample.name for sample in dataset.samples] if self.leaky else [s.group for s in dataset.samples]
        cases = None if self.leaky or np.array_equal(dataset.cases, dataset.groups) else dataset.cases
        return {
            "kind": self.kind,
            "leaky": self.leaky,
            "seed": self.seed,
            "limit": self.limit,
            "unit": "sample" if self.leaky else dataset.group_kind,
            "notes": list(self.notes),
            "samples": {part: class_counts(dataset, indices) for part, indices in self.parts.items()},
            **{part: sorted({unit[index] for index in indices}) for part, indices in self.parts.items()},
            **({} if cases is None else {"cases": {k: np.unique(cases[v]).tolist() for k, v in self.parts.items()}}),
        }


def split_dataset(
    dataset: PatchDataset,
    *,
    kind: SplitKind = "case",
    seed: int = 0,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    published: Path | None = None,
    limit: float = 1.0,
) -> Split:
    """Split a data set in three. The order of its samples plays no role.

    Args:
        dataset: What is split.
        kind: ``case`` draws whole groups, stratified by their labels and strata. ``published`` takes the parts from
            a file or from the data set itself. ``leaky`` draws patches at random, whatever case they come from: only
            to show what that does to scores.
        seed: Of the draw.
        validation_fraction: Share of the groups that validate; 0 for no such part. Not for published splits.
        test_fraction: Share of the groups that test; 0 for no such part. Not for published splits.
        published: CSV file with the columns case,split; None for `split_published.csv` in the data set's folder,
            or for what the data set's files say.
        limit: Keep this fraction of each part's samples, at least one of each class, for quick trials.

    Raises:
        DatasetError: where a part comes out empty or with one class only, a case in two parts, or a setting or
            the file of the published split is unusable.
    """
    _check_settings(kind, validation_fraction, test_fraction, limit)
    fractions = np.array([1 - validation_fraction - test_fraction, validation_fraction, test_fraction])
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    if kind == "published":
        parts = published_parts(dataset, published, notes)
        fractions = np.full(3, 1 / 3)
    elif kind == "leaky":
        parts = _deal_samples(dataset, fractions, rng)
        notes.append("LEAKY: patches of one case stand in several parts, so scores say nothing of unseen patients.")
    else:
        groups = Groups.of(dataset)
        parts = draw_groups(groups, list(fractions), rng)[groups.number]
    file = published.name if published else ""
    split = Split(kind=kind, seed=seed, notes=tuple(notes), file=file, **_parts_of(parts))
    check_split(split, dataset, needed=[name for name, share in zip(PARTS, fractions, strict=True) if share > 0])
    return split if limit == 1 else _limited(split, dataset, limit)


def folds(dataset: PatchDataset, k: int, seed: int = 0) -> list[tuple[Indices, Indices]]:
    """Cross-validation by group, stratified by labels and strata: (training indices, held-out indices), k times.

    Raises:
        DatasetError: where there are fewer groups than folds, or a fold comes out with one class only.
    """
    groups = Groups.of(dataset)
    if not 2 <= k <= len(groups.names):
        most = len(groups.names)
        hint = "Give more cases." if most < 2 else f"Ask for at least 2, at most {most}."
        raise DatasetError(dataset.root, f"cannot make {k} folds of {counted(most, dataset.group_kind)}", hint)
    fold = draw_groups(groups, [1 / k] * k, np.random.default_rng(seed))[groups.number]
    pairs = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(k)]
    for number, (_, held_out) in enumerate(pairs):
        _check_part(dataset, f"fold {number}", held_out)
    return pairs


def draw_samples(dataset: PatchDataset, per_class: Mapping[str, int], seed: int = 0) -> Indices:
    """Sorted indices of a random subset with this many samples of each class, the same for any order of samples.

    Raises:
        DatasetError: where a class is unknown or has fewer samples.
    """
    order, rng = _by_name(dataset), np.random.default_rng(seed)
    labels, drawn = dataset.labels[order], []
    for name, wanted in sorted(per_class.items()):
        if name not in dataset.class_names:
            known = ", ".join(dataset.class_names)
            raise DatasetError(dataset.root, f"has no class {name!r}", f"Its classes are {known}.")
        members = order[labels == dataset.class_names.index(name)]
        if not 0 <= wanted <= len(members):
            raise DatasetError(dataset.root, f"has {len(members):,} samples of {name}, not {wanted:,}", "Ask for less.")
        drawn.append(rng.choice(members, wanted, replace=False))
    return np.sort(np.concatenate([_none(), *drawn]))


def limit_samples(dataset: PatchDataset, limit: float, seed: int = 0) -> PatchDataset:
    """The data set with a fraction of its samples, at least one of each class in each case; for quick trials.

    Raises:
        DatasetError: where `limit` is no fraction.
    """
    _check_settings("case", 0, 0.5, limit)
    if limit == 1:
        return dataset
    order, rng = _by_name(dataset), np.random.default_rng(seed)
    kinds = np.char.add(dataset.groups[order], np.char.add("/", dataset.labels[order].astype(np.str_)))
    drawn = []
    for kind in np.unique(kinds):
        members = order[kinds == kind]
        drawn.append(rng.choice(members, max(1, round(limit * len(members))), replace=False))
    return dataset.subset(np.sort(np.concatenate(drawn)).tolist())


def check_split(split: Split, dataset: PatchDataset, needed: list[str]) -> None:
    """Refuse a split that no training or evaluation can trust.

    Raises:
        DatasetError: where a part of `needed` is empty, a part holds one class only, or a case is in two parts
            and the split is not a leaky one.
    """
    groups, owner = dataset.groups, dict[str, str]()
    for part, indices in split.parts.items():
        if part in needed or len(indices):
            _check_part(dataset, part, indices)
        for group in () if split.leaky else np.unique(groups[indices]):
            if owner.setdefault(str(group), part) != part:
                why = f"case {group} is in two parts ({owner[str(group)]} and {part})"
                raise DatasetError(dataset.root, why, "Each case belongs to one part.")


def class_counts(dataset: PatchDataset, indices: Indices) -> dict[str, int]:
    """Samples of each class among some of a data set."""
    counts = np.bincount(dataset.labels[indices], minlength=len(dataset.class_names))
    return {name: int(count) for name, count in zip(dataset.class_names, counts, strict=True)}


def _check_part(dataset: PatchDataset, part: str, indices: Indices) -> None:
    hint = "Give more cases, another seed or another fraction."
    if not len(indices):
        cases = len(np.unique(dataset.groups))
        raise DatasetError(
            dataset.root, f"holds {counted(cases, dataset.group_kind)}, which leaves none for {part}", hint
        )
    present = np.unique(dataset.labels[indices])
    if len(present) < 2:
        why = f"the {part} part holds {dataset.class_names[present[0]]} only"
        raise DatasetError(dataset.root, why, hint)


def _check_settings(kind: str, validation_fraction: float, test_fraction: float, limit: float) -> None:
    if kind not in get_args(SplitKind):
        raise DatasetError("split", f"{kind!r} is unknown", f"Known are {', '.join(get_args(SplitKind))}.")
    if min(validation_fraction, test_fraction) < 0 or not validation_fraction + test_fraction < 1:
        why = f"validation {validation_fraction:g} and test {test_fraction:g} leave nothing to train on"
        raise DatasetError("split", why, "Give fractions of 0 or more that add up to less than 1.")
    if not 0 < limit <= 1:
        raise DatasetError("split", f"limit {limit:g} is no fraction", "Give more than 0 and at most 1.")


def _by_name(dataset: PatchDataset) -> Indices:
    """Indices of the samples in the order of their names, so that no draw depends on the order of files."""
    return np.array(sorted(range(len(dataset)), key=lambda index: dataset.samples[index].name), np.int64)


def _deal_samples(dataset: PatchDataset, fractions: NDArray[np.float64], rng: np.random.Generator) -> Indices:
    order = _by_name(dataset)
    kinds = np.array([f"{sample.label} {sample.stratum}" for sample in dataset.samples])[order]
    parts = np.empty(len(order), np.int64)
    parts[order] = deal(np.unique(kinds, return_inverse=True)[1], fractions, rng)
    return parts


def _parts_of(numbers: Indices) -> dict[str, Any]:
    """The parts by name, each `Indices`, where sample n is in part number `numbers[n]`, or in none."""
    return {part: np.flatnonzero(numbers == number).astype(np.int64) for number, part in enumerate(PARTS)}


def _limited(split: Split, dataset: PatchDataset, limit: float) -> Split:
    """The split with a fraction of each part's samples, at least one of each class."""
    order, rng = _by_name(dataset), np.random.default_rng(split.seed)
    labels, parts = dataset.labels, np.full(len(dataset), -1, np.int64)
    for number, indices in enumerate(split.parts.values()):
        members = order[np.isin(order, indices)]
        for label in np.unique(labels[members]):
            of_class = members[labels[members] == label]
            parts[rng.choice(of_class, max(1, round(limit * len(of_class))), replace=False)] = number
    note = f"Only {limit:.1%} of each part's samples are used: a trial, not a result."
    return replace(split, limit=limit, notes=(*split.notes, note), **_parts_of(parts))
