"""A finished result as the exporters see it: its summary, its map, its regions at any threshold, its slide."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.errors import ResultsMismatchError, SlideNotFoundError
from wsi_pipeline.export.options import ExportOptions
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.manifest import RUN_FILE, SUMMARY_FILE, Summary
from wsi_pipeline.regions import Region, find_regions, number_regions

if TYPE_CHECKING:
    from wsi_pipeline.slides import Slide

HEATMAP = "heatmap.zarr"
"""Name of the map in a slide's folder."""

MAX_NAME_BYTES = 180
"""Of the name that a slide's files begin with."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One slide's finished folder, opened for reading."""

    folder: Path
    summary: Summary
    heatmap: Heatmap
    settings: RegionSettings
    """How the run made its regions; the defaults where the run's record is gone."""
    options: ExportOptions

    @classmethod
    def open(cls, folder: Path, options: ExportOptions) -> "Result":
        """Open a slide's folder.

        Raises:
            ResultsMismatchError: where it is not finished, damaged, or of another version.
            OutputError: where the heatmap is gone.
        """
        summary = Summary.read(folder / SUMMARY_FILE)
        return cls(
            folder=folder,
            summary=summary,
            heatmap=Heatmap.open(folder / HEATMAP),
            settings=_region_settings(folder),
            options=options,
        )

    @property
    def threshold(self) -> float:
        """Probability from which a cell belongs to a region."""
        return self.summary.threshold if self.options.threshold is None else self.options.threshold

    @property
    def threshold_source(self) -> str:
        """Where the threshold comes from."""
        return self.summary.threshold_source if self.options.threshold is None else "chosen for this export"

    @property
    def class_name(self) -> str:
        """The class that the map is about."""
        return self.heatmap.positive_class

    @property
    def namespace(self) -> str:
        """What ids are made from; the run's own, so that the same outline has the same id."""
        identity = self.summary.identity
        return f"{identity.slide}/{identity.bundle}/{identity.settings}"

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """float32 [rows, cols]: of `class_name`, NaN where not analysed."""
        return self.heatmap.probability(self.class_name)

    @cached_property
    def spread(self) -> NDArray[np.float32] | None:
        """float32 [rows, cols]: see `Heatmap.spread`."""
        return self.heatmap.spread()

    @cached_property
    def unrefined(self) -> NDArray[np.float32] | None:
        """float32 [rows, cols]: see `Heatmap.unrefined`."""
        return self.heatmap.unrefined()

    @cached_property
    def regions(self) -> list[Region]:
        """The regions, largest first."""
        return find_regions(
            self.probability,
            self.heatmap.grid,
            threshold=self.threshold,
            settings=self.region_settings,
            namespace=self.namespace,
            spread=self.spread,
        )

    @cached_property
    def region_numbers(self) -> NDArray[np.int32]:
        """int32 [rows, cols]: the number of the region that a cell belongs to, 0 for none."""
        return number_regions(
            self.probability, self.heatmap.grid, threshold=self.threshold, settings=self.region_settings
        )

    @cached_property
    def region_settings(self) -> RegionSettings:
        """How the regions are made: as in the run, but for what the options say."""
        changed: dict[str, float | None] = {}
        if self.options.smooth_um is not None:
            changed["smooth_um"] = self.options.smooth_um
        low = self.settings.low_threshold
        if low is not None and low > self.threshold:  # the lower bound of another threshold says nothing here
            changed["low_threshold"] = None
        return self.settings.model_copy(update=changed)

    def open_slide(self) -> "Slide":
        """The slide that the result is of, with the reader and the resolution of the run.

        Raises:
            SlideNotFoundError: where it is not where the run found it.
            ResultsMismatchError: where another slide lies there now.
        """
        from wsi_pipeline.slides import open_slide

        summary = self.summary
        mpp = summary.mpp[0] if summary.mpp_source == "user" else None
        slide = open_slide(summary.path, reader=summary.reader, mpp=mpp)  # type: ignore[arg-type]
        if slide.info.fingerprint != summary.identity.slide:
            slide.close()
            raise ResultsMismatchError(
                summary.path,
                f"is not the slide that {self.folder} was made from",
                "Put the slide back where it was, or run it again.",
            )
        return slide


def find_results(paths: Sequence[Path]) -> list[Path]:
    """Folders of finished slides: those named, and those in the runs named, or in folders of runs.

    Raises:
        SlideNotFoundError: where a path is no folder, or holds no finished slide.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise SlideNotFoundError(path, "is no folder of results", "Give the folder that was --out of a run.")
        folders = _finished(path)
        if not folders:
            hint = "Give a slide's result folder, or the --out of a run in which a slide has finished."
            raise SlideNotFoundError(path, "holds no finished slide", hint)
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _finished(path: Path) -> list[Path]:
    if (path / SUMMARY_FILE).is_file():
        return [path]
    inside = sorted(child for child in path.iterdir() if child.is_dir())
    slides = [child for child in inside if (child / SUMMARY_FILE).is_file()]
    runs = [child for child in inside if (child / RUN_FILE).is_file()]
    return slides + [slide for run in runs for slide in _finished(run)]


def name_results(folders: Sequence[Path]) -> list[str]:
    """A name for each folder's files: the folder's own; with its run's before it where two have the same.

    Long ones are cut, so that there is room for the endings in the 255 bytes that file systems give a name.
    """
    own = [folder.resolve().name for folder in folders]
    doubled = {name.casefold() for name in own if [other.casefold() for other in own].count(name.casefold()) > 1}
    names = [
        f"{folder.resolve().parent.name}-{name}" if name.casefold() in doubled else name
        for folder, name in zip(folders, own, strict=True)
    ]
    short = [name.encode(errors="replace")[:MAX_NAME_BYTES].decode(errors="ignore") for name in names]
    if len({name.casefold() for name in short}) == len(short):
        return short
    return [f"{number}-{name}" for number, name in enumerate(short, start=1)]


def _region_settings(folder: Path) -> RegionSettings:
    """Those of the run whose record names this folder as finished; the defaults where there is none."""
    try:
        record = json.loads((folder.resolve().parent / RUN_FILE).read_text(encoding="utf-8"))
        named = {entry["folder"] for entry in record["results"] if entry["status"] != "failed"}
        if folder.resolve().name in named:
            return RegionSettings.model_validate(record["settings"]["regions"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return RegionSettings()
