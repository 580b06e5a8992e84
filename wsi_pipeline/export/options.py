"""What can be exported, and how. Words only."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Literal

from wsi_pipeline.errors import ConfigError

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "geojson": "regions as QuPath annotations",
        "geojson-cells": "every cell as a QuPath tile, gzipped",
        "ome-zarr-0.4": "all maps as OME-Zarr 0.4 (Zarr 2), which QuPath and Bio-Formats read",
        "ome-tiff": "both of the next two",
        "ome-tiff-probability": "all maps as a float32 pyramid, a pixel a cell",
        "ome-tiff-overlay": "the tinted and outlined slide as an RGB pyramid, for any slide viewer",
        "csv": "two tables: a row a cell, a row a region",
        "dicom-seg": "regions as a DICOM Segmentation",
        "dicom-parametric-map": "probabilities as a DICOM Parametric Map",
        "png": "the pictures at a chosen size",
    }
)
"""Every format and what it is."""

SEVERAL: Mapping[str, tuple[str, ...]] = MappingProxyType({"ome-tiff": ("ome-tiff-probability", "ome-tiff-overlay")})
"""Names that stand for several formats."""

MIN_PICTURE_PX, MAX_PICTURE_PX = 200, 12_000
"""Bounds on the longer side of an exported picture."""

DEFAULT_OVERLAY_UM = 2.0
"""Side in µm of a pixel of the overlay pyramid: enough to tell glands, a sixty-fourth of the work at 0.25 µm/px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How results are exported.

    Raises:
        ConfigError: where a value is impossible.
    """

    threshold: float | None = None
    """Probability from which a cell belongs to a region; None for the run's own."""
    smooth_um: float | None = None
    """Smoothing of outlines in µm, 0 for none; None for the run's own."""
    size_px: int = 1700
    """Longer side of the slide in pictures."""
    overlay_um: float | None = None
    """Side of a pixel of the overlay pyramid in µm; None for 2 µm, or the slide's own pixels where they are larger."""
    segmentation: Literal["binary", "fractional"] = "binary"
    """Whether a DICOM Segmentation holds regions, or the probability in 255 steps."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError("threshold", f"{self.threshold:g} is no probability", "Give a number from 0 to 1.")
        if self.smooth_um is not None and not (isfinite(self.smooth_um) and self.smooth_um >= 0):
            raise ConfigError("smooth_um", f"{self.smooth_um:g} is no length", "Give µm, 0 for none.")
        if self.overlay_um is not None and not (isfinite(self.overlay_um) and self.overlay_um > 0):
            raise ConfigError("overlay_um", f"{self.overlay_um:g} is no size of a pixel", "Give µm, such as 2.")
        if self.segmentation not in ("binary", "fractional"):
            raise ConfigError("segmentation", f"{self.segmentation!r} is unknown", "Give binary or fractional.")
        if not MIN_PICTURE_PX <= self.size_px <= MAX_PICTURE_PX:
            hint = f"Give {MIN_PICTURE_PX} to {MAX_PICTURE_PX}."
            raise ConfigError("size_px", f"{self.size_px} px is no size for a picture", hint)


def parse_formats(names: list[str]) -> list[str]:
    """The formats that are named, each once, with those that stand for several spelt out.

    Raises:
        ConfigError: where a name is unknown, or none is given.
    """
    found: list[str] = []
    for name in names:
        if name not in FORMATS:
            raise ConfigError("format", f"{name!r} is unknown", f"Give one of: {', '.join(FORMATS)}.")
        found += SEVERAL.get(name, (name,))
    if not found:
        raise ConfigError("format", "none is given", f"Give some of: {', '.join(FORMATS)}.")
    return list(dict.fromkeys(found))
