"""What a run did: a summary for each slide, a record of the whole, as JSON and CSV."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.errors import ResultsMismatchError, WsiPipelineError
from wsi_pipeline.files import write_csv, write_json

SUMMARY_FILE, RUN_FILE, TABLE_FILE = "summary.json", "run.json", "summary.csv"


Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a result depends on, as SHA-256 (hex): it may be used again only where all three are the same."""

    slide: str
    bundle: str
    settings: str

    def require_same(self, earlier: "Identity", where: Path) -> None:
        """Refuse results of another slide, model or settings.

        Raises:
            ResultsMismatchError: where one of them differs.
        """
        words = {"slide": "slide", "bundle": "model", "settings": "settings"}
        other = [word for name, word in words.items() if getattr(self, name) != getattr(earlier, name)]
        if other:
            others = " and ".join("other settings" if word == "settings" else f"another {word}" for word in other)
            why = f"results that are already there were made with {others}"
            raise ResultsMismatchError(
                where, why, "Replace them with --overwrite, or choose another folder with --out."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The numbers of one slide. Areas are measured on the raw map."""

    slide: str
    path: str
    identity: Identity
    tissue_mm2: float
    """Area of the tissue mask."""
    analysed_mm2: float
    """Area of the cells that were scored, as far as they lie on the slide."""
    idc_mm2: float
    """Area of the cells inside regions: of `class_name`, whatever the model is of."""
    idc_fraction: float | None
    """`idc_mm2` / `analysed_mm2`; None where nothing was analysed."""
    regions: int
    largest_region_mm2: float
    mean_probability: float | None
    """Of the positive class over all scored cells."""
    threshold: float
    threshold_source: str
    tta: bool
    """Whether probabilities are means over the 8 symmetries of the square."""
    context: bool
    """Whether the model's second stage refined the map."""
    spread_over: str | None
    """What the spread of a cell's probability is over; None where there is none, and then no spread is."""
    mean_spread: float | None
    """Mean standard deviation of the positive class's probability over all scored cells."""
    mean_spread_regions: float | None
    """The same over the cells inside regions."""
    mean_spread_near_regions: float | None
    """The same over the cells outside regions, at most one field of view away from one."""
    cells: int
    unreadable_cells: int
    """Cells whose pixels the file could not give: they are NaN in the map."""
    padded_cells: int
    """Cells whose field of view reaches over the slide's edge and was filled up with white."""
    cell_um: float
    mpp: tuple[float, float]
    """(x, y) of level 0, µm/px."""
    mpp_source: str
    model: str
    reader: str
    seconds: dict[str, float]
    """By stage; ``read`` is summed over the reading processes."""
    engine: str = "torch"
    """What computed the network."""
    precision: str = "fp32"
    """What its numbers were rounded to: ``fp32``, ``bf16``, ``fp16`` or ``int8``."""
    evaluated_cells: int | None = None
    """Cells that the network looked at; the others of an adaptive map are interpolated."""
    class_name: str = "IDC"
    """The model's positive class, which areas, regions and probabilities are of."""
    warnings: tuple[str, ...] = ()
    note: str = RESEARCH_USE

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a ``summary.json`` of this version.

        Raises:
            ResultsMismatchError: where it cannot be read or has other keys.
        """
        try:
            values = dict(json.loads(file.read_text(encoding="utf-8")))
            identity = Identity(**values.pop("identity"))
            values["mpp"], values["warnings"] = tuple(values["mpp"]), tuple(values["warnings"])
            return cls(identity=identity, **values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ResultsMismatchError(
                file, f"is no summary of this version ({error})", "Use --overwrite, or another --out."
            ) from error

    def write(self, file: Path) -> None:
        """Write ``summary.json``; it comes last, so a folder that has one is complete."""
        write_json(file, asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideResult:
    """How one slide ended."""

    slide: str
    path: str
    folder: str
    """Name of its folder inside the run's."""
    status: Status
    """``skipped``: finished before with the same slide, model and settings."""
    summary: Summary | None = None
    error: dict[str, str] | None = None
    """type, where, why, hint; and the traceback of a fault of the program."""


def describe_error(error: Exception) -> dict[str, str]:
    """An error as `SlideResult` keeps it; one that is no `WsiPipelineError` is a fault of the program."""
    if isinstance(error, WsiPipelineError):
        told = {"where": error.where, "why": error.why, "hint": error.hint}
        # For people: of a file's name that is no text, the odd bytes are escapes.
        plain = {key: text.encode(errors="backslashreplace").decode() for key, text in told.items()}
        return {"type": type(error).__name__, **plain}
    return {
        "type": type(error).__name__,
        "where": "wsi_pipeline",
        "why": " ".join(str(error).split()) or "unexpected fault of the program",
        "hint": f"This is a fault of the program: please report it, with its traceback in {RUN_FILE}.",
        "traceback": "".join(traceback.format_exception(error)),
    }


@dataclass(kw_only=True)
class RunRecord:
    """``run.json``: written anew after every slide, so that an interrupted run is on record too."""

    folder: Path
    started: str
    """ISO 8601, UTC."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    settings: dict[str, Any]
    bundle: dict[str, Any]
    inputs: list[str]
    planned: int
    """Slides of the run."""
    finished: str | None = None
    results: list[SlideResult] = field(default_factory=list)

    @property
    def failed(self) -> list[SlideResult]:
        """Slides that failed."""
        return [result for result in self.results if result.status == "failed"]

    def add(self, result: SlideResult) -> None:
        """Note how a slide ended. The order of the record is that of the paths, not of finishing."""
        self.results.append(result)
        self.results.sort(key=lambda r: r.path)
        self.write()

    def write(self) -> None:
        """Write ``run.json`` and ``summary.csv``."""
        values = {key: value for key, value in asdict(self).items() if key != "folder"}
        for result in values["results"]:
            result.pop("summary")
        write_json(self.folder / RUN_FILE, {**values, "note": RESEARCH_USE})
        write_table(self.folder / TABLE_FILE, self.results)


_COLUMNS = (
    *("slide", "status", "tissue_mm2", "analysed_mm2", "idc_mm2", "idc_fraction", "regions", "largest_region_mm2"),
    *("mean_probability", "threshold", "threshold_source", "tta", "context", "mean_spread", "mean_spread_regions"),
    *("mean_spread_near_regions", "cells", "unreadable_cells", "padded_cells", "cell_um"),
    *("model", "class_name", "seconds_total", "warnings", "error", "path", "folder"),
)


def write_table(file: Path, results: Sequence[SlideResult]) -> None:
    """Write ``summary.csv``: a row a slide, failed ones too."""
    rows = (_row(result) for result in results)
    write_csv(file, _COLUMNS, ([row.get(column) for column in _COLUMNS] for row in rows))


def _row(result: SlideResult) -> dict[str, Any]:
    row: dict[str, Any] = asdict(result.summary) if result.summary else {}
    row["seconds_total"] = row.get("seconds", {}).get("total")
    row["warnings"] = "; ".join(row.get("warnings", ()))
    row["error"] = f"{result.error['where']}: {result.error['why']}" if result.error else ""
    return row | {"slide": result.slide, "status": result.status, "path": result.path, "folder": result.folder}
