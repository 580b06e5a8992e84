"""CSV files that say something of each slide: its resolution, its patient."""

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from wsi_pipeline.errors import ConfigError, ResolutionError
from wsi_pipeline.geometry import Mpp
from wsi_pipeline.slides.files import absolute, slide_id

log = logging.getLogger(__name__)
Value = TypeVar("Value")

_NAMED = 5


@dataclass(frozen=True, slots=True)
class SlideTable(Generic[Value]):
    """A value for each slide it names; without a file, for none."""

    file: Path | None = None
    values: Mapping[str, Value] = field(default_factory=dict)

    def find(self, path: str) -> Value | None:
        """The value of a slide, whether the table calls it by its path, its file's name or its stem."""
        return next((self.values[name] for name in _names(path) if name in self.values), None)

    def check(self, paths: Sequence[str], *, every: bool = False) -> None:
        """Warn of lines that none of the slides has; and, where `every` slide should have one, of slides without."""
        if self.file is None:
            return
        known = {name for path in paths for name in _names(path)}
        unused = sorted(self.values.keys() - known)
        without = [path for path in paths if every and self.find(path) is None]
        for what, found in (("names slides that are not here", unused), ("says nothing of", without)):
            if found:
                log.warning("%s %s: %s%s", self.file, what, ", ".join(found[:_NAMED]), " …" * (len(found) > _NAMED))


def read_mpp_csv(file: Path) -> SlideTable[float]:
    """Resolution in µm/px by slide from a file with the columns slide,mpp.

    Raises:
        ConfigError: where the file cannot be read, lacks a column, names a slide twice, or a value is no believable
            resolution.
    """
    return _read(file, "mpp", _resolution, option="--mpp-csv", example="0.25")


def read_patients_csv(file: Path) -> SlideTable[str]:
    """Patient by slide from a file with the columns slide,patient.

    Raises:
        ConfigError: where the file cannot be read, lacks a column or a patient, or gives a slide two.
    """
    return _read(file, "patient", _patient, option="--patients", example="P 7")


def _read(file: Path, column: str, parse: Callable[[str], Value], *, option: str, example: str) -> SlideTable[Value]:
    rule = f"The first line is slide,{column}; then a line a slide, such as a.svs,{example}."
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            lines = csv.DictReader(text)
            rows = [(lines.line_num, _stripped(row)) for row in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(file, f"cannot be read ({error})", f"Check the path given to {option}.") from error
    if not rows:
        raise ConfigError(file, "names no slide", rule)
    if not {"slide", column} <= rows[0][1].keys():
        raise ConfigError(file, f"lacks the columns slide,{column}", rule)
    values: dict[str, Value] = {}
    for number, row in rows:
        try:
            value = parse(row[column])
        except ValueError as error:
            raise ConfigError(f"{file}, line {number}", str(error), f"Give one, such as {example}.") from error
        slide = row["slide"]
        if values.setdefault(slide, value) != value:
            raise ConfigError(
                file, f"gives {slide} two values, {values[slide]} and {value}", f"A slide has one {column}."
            )
    return SlideTable(file, values)


def _stripped(row: Mapping[str | None, object]) -> dict[str, str]:
    """A line's values by column, those beyond the last column left out."""
    return {key.strip(): value.strip() if isinstance(value, str) else "" for key, value in row.items() if key}


def _resolution(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    try:
        Mpp(value, value)
    except ResolutionError as error:
        raise ValueError(error.why) from error
    return value


def _patient(text: str) -> str:
    if not text:
        raise ValueError("names no patient")
    return text


def _names(path: str) -> tuple[str, ...]:
    """What a slide may be called, the surest first."""
    return path, absolute(path), PurePosixPath(path.replace("\\", "/")).name, slide_id(path)
