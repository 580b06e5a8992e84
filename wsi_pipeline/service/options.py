"""What a service may read, run and hold."""

from dataclasses import dataclass, field
from pathlib import Path

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.viewer.options import ViewerOptions

STATE_FOLDER = ".service"
"""Beside the results: the database of jobs and the locks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Settings of a service."""

    roots: tuple[Path, ...]
    """Slides are taken from these folders and from nowhere else."""
    out: Path
    """Folder of the results: each job gets a folder in it."""
    models: tuple[str, ...] = ("idc-resnet18",)
    """Bundles that requests may name, by the last part of their path; the first where they name none."""
    settings: Settings = field(default_factory=Settings)
    """What holds for every job; a request changes some of it."""
    viewer: ViewerOptions = field(default_factory=ViewerOptions)
    """Address, token, and bounds of the viewer."""
    max_queued: int = 100
    """Bound on jobs that wait."""
    max_tries: int = 3
    """After so many deaths of the worker without getting further, a job has failed."""
    max_patches: int = 8
    """Bound on patches that wait for the worker."""
    patch_patience_s: float = 60.0
    """A patch waits so long for its answer."""
    cancel_grace_s: float = 10.0
    """A job that is cancelled and does not stop by itself in this time loses its worker."""

    @property
    def state(self) -> Path:
        """Folder of the database and the locks."""
        return self.out / STATE_FOLDER

    def bundles(self) -> dict[str, str]:
        """Names that requests use, and the bundle of each.

        Raises:
            ConfigError: where two have one name, or there is none.
        """
        found: dict[str, str] = {}
        for text in self.models:
            path = Path(text)
            name = path.resolve().name if path.is_dir() else path.name
            if name in found:
                raise ConfigError("--model", f"two models have the name {name!r}", "Rename the folder of one of them.")
            found[name] = str(path.resolve()) if path.is_dir() else text
        if not found:
            raise ConfigError("--model", "no model was named", "Name a bundle.")
        return found
