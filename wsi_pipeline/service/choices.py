"""Settings that a request may choose: those that say what is found, not what runs it or what is read."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from wsi_pipeline.config import Settings, load_settings, options
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.geometry import MAX_MPP, MIN_MPP
from wsi_pipeline.grid import CellSpec

_SECTIONS = frozenset({"tissue", "grid", "prediction", "regions", "output"})
_FURTHER = ("reader", "mpp")

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_BOUNDS: Mapping[str, Any] = {
    "mpp": Field(ge=MIN_MPP, le=MAX_MPP),
    "cell": Field(max_length=32, json_schema_extra={"pattern": rf"^(native|{_NUMBER}um|{_NUMBER}px@{_NUMBER}x)$"}),
    "tissue_max_px": Field(le=16_384),
    "tissue_min_area_um2": Field(le=1e12),
    "tissue_min_hole_um2": Field(le=1e12),
    "tissue_closing_um": Field(le=10_000),
    "min_region_um2": Field(le=1e12),
    "smooth_um": Field(le=10_000),
}
"""Tighter than those of the settings: who asks is not who owns the machine."""

MIN_CELL_UM = 1.0
"""Smaller cells would fill the memory."""


def _fields() -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, (section, setting) in options().items():
        if section not in _SECTIONS and name not in _FURTHER:
            continue
        kind: Any = setting.annotation
        for rule in (*setting.metadata, *([_BOUNDS[name]] if name in _BOUNDS else [])):
            kind = Annotated[kind, rule]
        chosen[name] = (kind | None, Field(None, description=setting.description))
    return chosen


JobSettings: type[BaseModel] = create_model(
    "JobSettings",
    __config__=ConfigDict(extra="forbid", strict=True),
    __doc__="Settings of `wsi-pipeline run` by name; what is left out is as the service was started.",
    **_fields(),
)


def settings_of(base: Settings, bundle: str, given: Mapping[str, object]) -> Settings:
    """All settings of a job.

    Args:
        base: Those of the service.
        bundle: The model.
        given: What the request chose, by name; None values are skipped.

    Raises:
        ConfigError: where they do not go together, or a cell is too small.
    """
    values = {name: value for name, value in _flat(base).items() if value is not None}
    settings = load_settings(None, {**values, **{k: v for k, v in given.items() if v is not None}, "model": bundle})
    size = CellSpec.parse(settings.grid.cell).size_um
    if size is not None and not size >= MIN_CELL_UM:
        raise ConfigError("cell", f"{settings.grid.cell} is too small", f"Cells have at least {MIN_CELL_UM:g} µm.")
    return settings


def _flat(settings: Settings) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, (section, _) in options().items():
        values[name] = getattr(getattr(settings, section) if section else settings, name)
    return values
