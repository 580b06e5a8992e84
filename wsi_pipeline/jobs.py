"""From what a user names to the slides of a run, each with its own folder and resolution."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from wsi_pipeline.config import Settings
from wsi_pipeline.slides.files import absolute, slide_id, without_query
from wsi_pipeline.slides.source import SlideSource
from wsi_pipeline.slides.tables import SlideTable, read_mpp_csv


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
    mpp_of: SlideTable[float] = SlideTable()
    if settings.slides.mpp_csv:
        mpp_of = read_mpp_csv(Path(settings.slides.mpp_csv))
        mpp_of.check(paths)
    addresses = [absolute(path) for path in paths]
    names = [slide_id(path) for path in addresses]
    seen = Counter(name.casefold() for name in names)  # some file systems do not tell case apart
    jobs = []
    for given, path, name in zip(paths, addresses, names, strict=True):
        folder = name if seen[name.casefold()] == 1 else f"{name}-{sha256(path.encode()).hexdigest()[:8]}"
        known = mpp_of.find(given)
        jobs.append(
            SlideJob(
                source=SlideSource(
                    path=path,
                    reader=settings.slides.reader,
                    mpp=settings.slides.mpp if known is None else known,
                ),
                slide_id=name,
                folder=out / folder,
                bundle=str(bundle),
                bundle_digest=bundle_digest,
                settings=settings,
                overwrite=overwrite,
            )
        )
    return jobs
