"""The words of the project: sizes, boxes and resolutions, frozen and with units.

Order is (x, y) and (width, height) here, (row, col) in arrays. A pixel without a suffix is a level-0 pixel.
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ResolutionError

MIN_MPP, MAX_MPP = 0.05, 20.0
"""Micrometres per pixel outside this range are no microscope's: 0.05 is a 200x objective, 20 a 0.5x one."""

REFERENCE_MPP_AT_40X = 0.25
"""Micrometres per pixel that "40x" stands for, the usual value of slide scanners."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels; both at least 0."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise ValueError(f"a size cannot be negative: {self.width} x {self.height}")

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle of whole pixels, half-open: it holds x .. x + width - 1."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise ValueError(f"a box cannot have a negative side: {self.width} x {self.height}")

    @property
    def right(self) -> int:
        """First column to the right of the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below the box."""
        return self.y + self.height

    @property
    def size(self) -> Size:
        """Width and height of the box."""
        return Size(self.width, self.height)

    def intersection(self, other: "Box") -> "Box":
        """The part that both boxes share; of zero width or height where they do not meet."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(x, y, max(0, right - x), max(0, bottom - y))


@dataclass(frozen=True, slots=True)
class Mpp:
    """Resolution: micrometres per level-0 pixel along x and y.

    Raises:
        ResolutionError: where a value is not finite or lies outside 0.05 to 20 µm/px.
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        for value in (self.x, self.y):
            if not isfinite(value) or not MIN_MPP <= value <= MAX_MPP:
                raise ResolutionError(
                    "resolution",
                    f"{value:g} µm/px is not a microscope's (believable: {MIN_MPP} to {MAX_MPP:g})",
                    "Give the true one with --mpp.",
                )

    @property
    def pixel_um2(self) -> float:
        """Area of one level-0 pixel in µm²."""
        return self.x * self.y


@dataclass(frozen=True, slots=True)
class Scale:
    """Level-0 pixels per raster pixel along x and y (the raster's downsample factors).

    The raster at a scale is anchored at level 0: its pixel k covers level-0 pixels [k * scale, (k + 1) * scale).
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        if not (isfinite(self.x) and isfinite(self.y) and self.x > 0 and self.y > 0):
            raise ValueError(f"a scale must be positive and finite: {self.x}, {self.y}")

    @classmethod
    def to_mpp(cls, mpp: Mpp, target_mpp: float) -> "Scale":
        """The scale of a raster of `target_mpp` µm/px on a slide of resolution `mpp`."""
        return cls(target_mpp / mpp.x, target_mpp / mpp.y)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid."""

    size: Size
    scale: Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideInfo:
    """What a slide is, as far as its file says so."""

    slide_id: str
    """Name for people and for files: the file's stem, or the Kaggle case number."""
    path: str
    """Local path or fsspec address the slide was opened from; a zip member as ``file.zip::case``."""
    size: Size
    """Level-0 size in pixels."""
    mpp: Mpp | None
    """Resolution, None where neither the file nor the user gives one."""
    mpp_source: str
    """Where the resolution comes from: ``file``, ``user``, ``kaggle`` or ``missing``."""
    levels: tuple[Level, ...]
    """Pyramid levels, finest (level 0) first."""
    bounds: Box
    """The part of level 0 that holds scanned pixels; the whole slide where the file says nothing."""
    vendor: str
    """Scanner family as the reader names it (``aperio``, ``dicom``, ``generic-tiff``, ``kaggle-idc`` ...)."""
    reader: str
    """Reader in use: ``openslide``, ``tiff`` or ``kaggle``."""
    fingerprint: str
    """SHA-256 (hex) of the file's size, both its ends and samples between; the same on every machine and path."""
    warnings: tuple[str, ...] = ()
    """Oddities met on opening, each a sentence."""

    def level_for(self, scale: Scale) -> int:
        """The coarsest level that still has every pixel of the raster at `scale` (a hundredth of tolerance)."""
        fine_enough = [
            n
            for n, level in enumerate(self.levels)
            if level.scale.x <= scale.x * 1.01 and level.scale.y <= scale.y * 1.01
        ]
        return max(fine_enough, key=lambda n: self.levels[n].scale.x, default=0)

    def require_mpp(self) -> Mpp:
        """The resolution.

        Raises:
            ResolutionError: where it is not known.
        """
        if self.mpp is None:
            note = next((f" ({warning.rstrip('.')})" for warning in self.warnings if "µm/px" in warning), "")
            raise ResolutionError(
                self.path,
                f"the file does not say its resolution{note}",
                "Give it in µm/px: --mpp 0.25 for a usual 40x scan, 0.5 for 20x, or --mpp-csv FILE for many slides.",
            )
        return self.mpp


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small picture of the whole slide."""

    pixels: NDArray[np.uint8]
    """RGB, [height, width, 3]."""
    scale: Scale
    """Level-0 pixels per thumbnail pixel."""
    unreadable: NDArray[np.bool_]
    """[height, width]: True where the file's pixels could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldOfView:
    """What the network sees: a square of `size_px` pixels at `mpp` µm/px, a property of the trained model."""

    size_px: int
    mpp: float

    @property
    def size_um(self) -> float:
        """Side length in µm."""
        return self.size_px * self.mpp
