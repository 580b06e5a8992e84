"""From what a user names to the slides of a run, each with its own folder and resolution."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import ConfigError, ResolutionError
from wsi_pipeline.geometry import Mpp
from wsi_pipeline.slides.files import slide_id, without_query
from wsi_pipeline.slides.source import SlideSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideJob:
    """One slide of a run: paths and settings only, so that it can be sent anywhere."""

    source: SlideSource
    slide_id: str
    folder: Path
    """Where the slide's results go."""
    bundle: str
    """Folder of the model bundle."""
    bundle_digest: str
    settings: Settings
    overwrite: bool = False

    @property
    def path(self) -> str:
        """The slide's address as it may be written down."""
        return without_query(self.source.path)


def plan_jobs(
    paths: Sequence[str], out: Path, settings: Settings, bundle: Path, bundle_digest: str, *, overwrite: bool
) -> list[SlideJob]:
    """A job for each slide. Slides of the same name get folders told apart by a part of their path's hash.

    Raises:
        ConfigError: where the CSV file of resolutions is wrong.
    """
    mpp_of = read_mpp_csv(Path(settings.slides.mpp_csv)) if settings.slides.mpp_csv else {}
    absolute = [_absolute(path) for path in paths]
    names = [slide_id(path) for path in absolute]
    seen = Counter(name.casefold() for name in names)  # some file systems do not tell case apart
    jobs, used = [], set[str]()
    for given, path, name in zip(paths, absolute, names, strict=True):
        folder = name if seen[name.casefold()] == 1 else f"{name}-{sha256(path.encode()).hexdigest()[:8]}"
        keys = [key for key in (given, path, PurePosixPath(path.replace("\\", "/")).name, name) if key in mpp_of]
        used.update(keys)
        jobs.append(
            SlideJob(
                source=SlideSource(
                    path=path,
                    reader=settings.slides.reader,
                    mpp=mpp_of[keys[0]] if keys else settings.slides.mpp,
                ),
                slide_id=name,
                folder=out / folder,
                bundle=str(bundle),
                bundle_digest=bundle_digest,
                settings=settings,
                overwrite=overwrite,
            )
        )
    if unused := sorted(mpp_of.keys() - used):
        log.warning("%s names slides that are not in this run: %s", settings.slides.mpp_csv, ", ".join(unused[:5]))
    return jobs


def _absolute(path: str) -> str:
    """An address that other processes and other folders understand too."""
    if "://" in path:
        return path
    file, mark, case = path.partition("::")
    return f"{os.path.abspath(file)}{mark}{case}"  # noqa: PTH100  (links are kept, as the user named them)


def read_mpp_csv(file: Path) -> dict[str, float]:
    """Resolution by slide from a CSV file with the columns slide,mpp; a slide is a path, a file name or its stem.

    Raises:
        ConfigError: where the file cannot be read, lacks a column, or a value is no believable resolution.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = [
                {
                    (key or "").strip(): (value or "").strip()
                    for key, value in row.items()
                    if not isinstance(value, list)
                }
                for row in csv.DictReader(text)
            ]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, f"cannot be read ({error})", "Check the path given to --mpp-csv.") from error
    if not rows:
        raise ConfigError(
            file, "names no slide", "The first line is slide,mpp; then a line a slide, such as a.svs,0.25."
        )
    found: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        if not {"slide", "mpp"} <= row.keys():
            raise ConfigError(
                file, "lacks the columns slide,mpp", "The first line names the columns, with a comma: slide,mpp."
            )
        try:
            value = float(row["mpp"])
            Mpp(value, value)
        except (ValueError, TypeError) as error:
            why = error.why if isinstance(error, ResolutionError) else f"{row['mpp']!r} is no number"
            raise ConfigError(f"{file}, line {number}", why, "Give µm/px, such as 0.25.") from error
        found[row["slide"]] = value
    return found
