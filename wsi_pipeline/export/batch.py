"""Many results into many formats: a slide that fails does not stop the others."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.export.options import ExportOptions, parse_formats
from wsi_pipeline.export.results import Result, find_results, name_results
from wsi_pipeline.files import make_folder
from wsi_pipeline.manifest import describe_error

log = logging.getLogger(__name__)

DEFAULT_FOLDER = "export"
"""Where a slide's exports go, inside its result folder, when no other is named."""

_WRITERS = {
    "geojson": "geojson:write_region_file",
    "geojson-cells": "geojson:write_cell_file",
    "ome-zarr-0.4": "ome_zarr:write_ome_zarr",
    "ome-tiff-probability": "ome_tiff:write_maps",
    "ome-tiff-overlay": "overlay_tiff:write_overlay",
    "csv": "tables:write_tables",
    "dicom-seg": "dicom_seg:write_segmentation",
    "dicom-parametric-map": "dicom_map:write_parametric_map",
    "png": "pictures:write_pictures",
}
"""Module and function of each format: (result, folder, name) -> the files written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """How the export of one slide into one format ended."""

    folder: Path
    """The slide's result folder."""
    slide: str
    """Name of its files."""
    format: str
    files: tuple[Path, ...] = ()
    """What was written; empty where it failed."""
    error: dict[str, str] | None = None
    """type, where, why, hint; see `manifest.describe_error`."""


@dataclass(kw_only=True)
class ExportRecord:
    """How an export ended."""

    results: list[Exported] = field(default_factory=list)

    @property
    def failed(self) -> list[Exported]:
        """What could not be exported."""
        return [result for result in self.results if result.error is not None]

    @property
    def files(self) -> list[Path]:
        """All that was written."""
        return [file for result in self.results for file in result.files]


def export(
    results: str | Path | Sequence[str | Path],
    *,
    to: str | Sequence[str],
    out: str | Path | None = None,
    options: ExportOptions | None = None,
    on_plan: Callable[[int], None] = lambda _: None,
    on_done: Callable[[Exported], None] = lambda _: None,
) -> ExportRecord:
    """Write finished results in other formats. The results themselves are only read; files there are replaced.

    Args:
        results: A slide's result folder, a run's folder (all of its finished slides), or several of them.
        to: One or more of `FORMATS`.
        out: Where the files go, ``<slide>.<what it is>``; None for a folder ``export`` in each slide's own.
        options: Threshold, smoothing, sizes; None for the run's own.
        on_plan: Called with the number of exports, slides times formats.
        on_done: Called as each ends.

    Returns:
        What was written and what failed. A slide or a format that fails does not stop the others.

    Raises:
        ConfigError: where a format is unknown or cannot be written here (an extra is missing).
        SlideNotFoundError: where there is no finished slide.
    """
    options = options or ExportOptions()
    formats = parse_formats([to] if isinstance(to, str) else list(to))
    given = [results] if isinstance(results, str | Path) else results
    folders = find_results([Path(folder) for folder in given])
    require_extras(formats)
    on_plan(len(folders) * len(formats))
    record = ExportRecord()
    for folder, name in zip(folders, name_results(folders), strict=True):
        target = folder / DEFAULT_FOLDER if out is None else Path(out)
        opened: Result | None = None  # once for all formats
        for form in formats:
            opened, ended = _export_one(form, target, opened or folder, name=name, options=options)
            record.results.append(ended)
            on_done(ended)
    return record


def _export_one(
    form: str, target: Path, source: Result | Path, *, name: str, options: ExportOptions
) -> tuple[Result | None, Exported]:
    """One slide into one format; whatever goes wrong with it is in the result and stops here."""
    opened, folder = (None, source) if isinstance(source, Path) else (source, source.folder)
    try:
        opened = opened or Result.open(folder, options)
        make_folder(target)
        files = _writer(form)(opened, target, name)
    except Exception as error:  # the end of an export: the others go on, and its record keeps the traceback
        log.debug("%s to %s failed", folder, form, exc_info=True)
        return opened, Exported(folder=folder, slide=name, format=form, error=describe_error(error))
    return opened, Exported(folder=folder, slide=name, format=form, files=tuple(files))


def _writer(form: str) -> Callable[[Result, Path, str], Sequence[Path]]:
    module, _, function = _WRITERS[form].partition(":")
    writer: Callable[[Result, Path, str], Sequence[Path]] = getattr(
        import_module(f"wsi_pipeline.export.{module}"), function
    )
    return writer


def require_extras(formats: Sequence[str]) -> None:
    """Say what is missing before the first slide, not at each.

    Raises:
        ConfigError: where a format needs libraries that are not installed.
    """
    if not any(form.startswith("dicom") for form in formats):
        return
    try:
        import_module("highdicom")
    except ImportError as error:
        why = f"DICOM needs libraries that are not installed ({error})"
        raise ConfigError("export", why, 'Install them: pip install "wsi-pipeline[dicom]"') from error
