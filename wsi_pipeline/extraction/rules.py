"""What is cut and how it is labelled: settings, and which class of the annotations means what."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from wsi_pipeline.config import GridSettings, Reader, Settings, TissueSettings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.geometry import MAX_MPP, MIN_MPP, FieldOfView

MAX_STRAY = 0.1
"""However much of the classes a patch may mix, no more of it lies where nobody judged."""

MIN_SIZE_PX, MAX_SIZE_PX = 8, 1024
"""Bounds on the side of a patch: what the readers of patch folders take for a patch."""

UNCLASSIFIED = "Unclassified"
"""What QuPath calls an annotation without a class; it can be named like a class."""

Meaning = Literal["positive", "negative", "region", "exclude", "ignore"]
Rest = Literal["auto", "negative", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideSpec:
    """One slide to cut, and how to open it."""

    path: str
    reader: Reader = "auto"
    mpp: float | None = None
    """Resolution of level 0 in µm/px, where the file's is missing or wrong."""
    patient: str | None = None
    """Whose slide it is, where several slides may be one patient's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRules:
    """What is cut and how it is labelled. Class names are compared without regard to case.

    Raises:
        ConfigError: where a value is impossible, or a class has two meanings.
    """

    size_px: int = 50
    """Side of a patch, pixels."""
    mpp: float = 0.25
    """Resolution of a patch, µm/px."""
    positive: tuple[str, ...] = ("IDC",)
    """Annotations of these classes are class 1."""
    negative: tuple[str, ...] = ()
    """Annotations of these classes are class 0."""
    region: tuple[str, ...] = ("Region*",)
    """Where a slide has annotations of these classes, only what lies in them is used: there everything is annotated."""
    exclude: tuple[str, ...] = ("Ignore*",)
    """Patches on annotations of these classes are left out."""
    ignore: tuple[str, ...] = ()
    """Annotations of these classes count as if they were not there."""
    rest: Rest = "auto"
    """Tissue that no annotation covers: ``negative``, ``skip`` (left out), or ``auto``, which is negative unless
    `negative` names classes and the slide has no region."""
    min_coverage: float = 0.5
    """A patch has a class where at least this part of its area is annotated so."""
    max_mixed: float = 0.1
    """A patch of class 0 of which more than this part is annotated class 1 is left out."""
    min_tissue: float = 0.5
    """A patch is cut where at least this part of its area is tissue."""
    allow_upsampling: bool = False
    """Cut from slides that are coarser than `mpp`."""
    max_per_class: int | None = None
    """At most so many patches of each class from each slide, drawn at random with `seed`."""
    seed: int = 0
    tissue: TissueSettings = field(default_factory=TissueSettings)

    @property
    def max_stray(self) -> float:
        """A patch of which more than this part is excluded or outside the region is left out."""
        return min(self.max_mixed, MAX_STRAY)

    def __post_init__(self) -> None:
        _require(MIN_SIZE_PX <= self.size_px <= MAX_SIZE_PX, "size-px", self.size_px, f"{MIN_SIZE_PX} to {MAX_SIZE_PX}")
        _require(MIN_MPP <= self.mpp <= MAX_MPP, "mpp", self.mpp, f"{MIN_MPP:g} to {MAX_MPP:g} µm/px")
        _require(0 < self.min_coverage <= 1, "min-coverage", self.min_coverage, "more than 0, at most 1")
        _require(0 <= self.max_mixed <= 1, "max-mixed", self.max_mixed, "0 to 1")
        _require(0 <= self.min_tissue <= 1, "min-tissue", self.min_tissue, "0 to 1")
        _require(self.max_per_class is None or self.max_per_class > 0, "max-per-class", self.max_per_class, "1 or more")
        _require(any(self.positive), "positive", self.positive, "the name of a class, such as IDC")
        meanings: dict[str, str] = {}
        for meaning in ("positive", "negative", "region", "exclude", "ignore"):
            for name in getattr(self, meaning):
                other = meanings.setdefault(fold(name), meaning)
                if other != meaning:
                    raise ConfigError(name, f"is named both as {other} and as {meaning}", "A class has one meaning.")

    @property
    def view(self) -> FieldOfView:
        """A patch as a field of view."""
        return FieldOfView(size_px=self.size_px, mpp=self.mpp)

    @property
    def class_names(self) -> tuple[str, str]:
        """Names of the classes 0 and 1."""
        return f"non-{self.positive[0]}", self.positive[0]

    def settings(self) -> Settings:
        """The settings of tissue and grid as `plan_slide` takes them."""
        grid = GridSettings(cell="native", min_tissue=self.min_tissue, allow_upsampling=self.allow_upsampling)
        return Settings(tissue=self.tissue, grid=grid)

    def meaning(self, class_name: str) -> Meaning | None:
        """What a class of the annotations means, None where no rule names it."""
        named: dict[Meaning, Iterable[str]] = {
            "positive": self.positive,
            "negative": self.negative,
            "region": self.region,
            "exclude": self.exclude,
            "ignore": self.ignore,
        }
        folded = fold(class_name)
        return next((meaning for meaning, names in named.items() if folded in map(fold, names)), None)

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        values: dict[str, Any] = asdict(self) | {"tissue": self.tissue.model_dump(mode="json")}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def fold(name: str) -> str:
    """A name as it is compared: letters that look the same are the same, whatever their case and their encoding."""
    from unicodedata import normalize

    return normalize("NFC", name).casefold().strip()


def _require(holds: bool, option: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"--{option}", f"{value} is impossible", f"Expected: {expected}.")
