"""Which cases train, which choose threshold and temperature, which are kept for the final test. Always by case."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_pipeline.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Cases, each in one part only."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for part in (self.train, self.validation, self.test):
            both = seen.intersection(part)
            if both:
                raise DatasetError("split", f"case {min(both)} is in two parts", "Each case belongs to one part.")
            seen.update(part)


def split_cases(
    cases: Iterable[str],
    *,
    validation: Iterable[str] = (),
    strata: Mapping[str, str] | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Split:
    """Split by case, seeded, the same fractions of each stratum.

    Args:
        cases: All cases.
        validation: Cases that must validate (a published split); those that are not in `cases` are passed over.
            Where none is given, `validation_fraction` of the cases are drawn.
        strata: Stratum of each case; None for one stratum.
        validation_fraction: Of each stratum, where `validation` is empty.
        test_fraction: Of each stratum's cases that do not validate.
        seed: Of the draw.

    Raises:
        DatasetError: where a part comes out empty.
    """
    everything = sorted(set(cases))
    fixed = set(validation).intersection(everything)
    chosen: dict[str, list[str]] = {"train": [], "validation": sorted(fixed), "test": []}
    groups: dict[str, list[str]] = {}
    for case in everything:
        if case not in fixed:
            groups.setdefault(strata[case] if strata else "", []).append(case)
    rng = np.random.default_rng(seed)
    for group in (groups[name] for name in sorted(groups)):
        drawn = [group[n] for n in rng.permutation(len(group))]
        tests = round(test_fraction * len(drawn))
        held = 0 if fixed else round(validation_fraction * len(drawn))
        chosen["test"] += drawn[:tests]
        chosen["validation"] += drawn[tests : tests + held]
        chosen["train"] += drawn[tests + held :]
    for part, members in chosen.items():
        if not members:
            raise DatasetError("split", f"{len(everything)} cases leave none for {part}", "Give more cases.")
    return Split(**{part: tuple(sorted(members)) for part, members in chosen.items()})


def read_published(file: Path, part: str) -> Sequence[str]:
    """Cases of one part of a CSV file with the columns case,split.

    Raises:
        DatasetError: where the file cannot be read or lacks a column.
    """
    try:
        with file.open(newline="", encoding="utf-8") as text:
            return [row["case"] for row in csv.DictReader(text) if row["split"] == part]
    except OSError as error:
        raise DatasetError(file, f"cannot be read ({error.strerror})", "Check the path.") from error
    except KeyError as error:
        raise DatasetError(file, f"lacks the column {error}", "The columns are case,split.") from error
