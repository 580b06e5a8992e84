"""The course of a bundle's training, where it lies beside the bundle."""

import csv
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path

HISTORY_FILE = "history.csv"


def read_history(folder: Path) -> Mapping[str, Sequence[float]] | None:
    """Columns of ``history.csv`` by name, a value an epoch, NaN where there is none.

    None where the file is not there or is no such table: an evaluation does not depend on it.
    """
    try:
        with (folder / HISTORY_FILE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not rows or "epoch" not in rows[0]:
        return None
    columns = {key: [_number(row.get(key)) for row in rows] for key in rows[0] if key}
    return columns if all(map(isfinite, columns["epoch"])) else None


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return nan
