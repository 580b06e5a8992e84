"""Validated settings. An unknown key is an error that names the nearest known one."""

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from wsi_pipeline.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Reader = Literal["auto", "openslide", "tiff", "kaggle"]
EngineName = Literal["auto", "torch", "compile", "openvino", "openvino-int8"]
ThresholdAim = Literal["balanced_accuracy", "equal_recall"]
"""What a model's threshold is chosen for: the highest mean of both classes' recalls, or recalls as equal as can be."""

Precision = Literal["auto", "fp32", "bf16"]
Arithmetic = Literal["fp32", "bf16", "fp16", "int8"]
"""What a network's numbers are rounded to, once nothing is left to ``auto``."""


RESULT_VERSION = 3
"""Raised when this program comes to give other results for the same slide, model and settings."""

MAP_SECTIONS = frozenset({"tissue", "grid", "prediction"})
"""Sections of the settings that a heatmap depends on."""

_GONE = {"inference.amp": "Leave it out for mixed precision on CUDA, or write `precision: fp32` for none."}
"""Settings of earlier versions, and what took their place."""

RESEARCH_USE = "For research use only"
"""Stands on every output that a person reads."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SlideSettings(_Section):
    """How slides are opened."""

    reader: Reader = Field("auto", description="reader of slides; auto picks it by the file's content")
    mpp: float | None = Field(None, description="resolution in µm/px of level 0, overrides the file's")
    mpp_csv: str | None = Field(None, description="CSV file with the columns slide,mpp: resolution slide by slide")


class TissueSettings(_Section):
    """What counts as tissue."""

    tissue_max_px: int = Field(
        2048,
        ge=64,
        description="longer side in px of the thumbnail the mask is made from; 2 µm/px or 500 px are enough",
    )
    tissue_min_area_um2: Length = Field(50_000, description="smaller pieces of tissue are dropped, µm²")
    tissue_min_hole_um2: Length = Field(50_000, description="smaller holes in tissue are filled, µm²")
    tissue_closing_um: Length = Field(40, description="gaps up to this width are closed, µm")


class GridSettings(_Section):
    """What the heatmap is made of."""

    cell: str = Field("50px@40x", description="side of a heatmap cell: 50px@40x, 12.5um, or native (field of view)")
    min_tissue: Fraction = Field(0.5, description="a cell belongs to the run when at least this fraction is tissue")
    allow_upsampling: bool = Field(False, description="run on slides coarser than the model's pixels (invents detail)")


class PredictionSettings(_Section):
    """How the network's answers become probabilities."""

    tta: bool = Field(
        False, description="test-time augmentation: mean over the 8 symmetries of the square, 8 times the work"
    )
    adaptive: bool = Field(
        False,
        description="look at a quarter of the cells or fewer and interpolate the rest, where fields of view overlap",
    )
    context: bool = Field(True, description="let neighbouring cells speak where the bundle has learnt a second stage")


class InferenceSettings(_Section):
    """How the network runs. Only bf16 and int8 change a result, beyond the last of its digits."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where the network runs")
    engine: EngineName = Field(
        "auto", description="what computes the network; auto: torch on a GPU, on a CPU openvino where installed"
    )
    precision: Precision = Field("auto", description="auto: fp32 on a CPU, mixed precision (bf16 or fp16) on CUDA")
    batch_size: int | None = Field(None, ge=1, description="fields of view per batch; default 256 on CPU, 1024 on GPU")
    workers: int | None = Field(None, ge=0, description="processes that read the slide; default: from the cores")


class RegionSettings(_Section):
    """How the probability map becomes regions."""

    threshold: Fraction | None = Field(None, description="probability from which a cell is IDC; default: the bundle's")
    low_threshold: Fraction | None = Field(
        None, description="hysteresis: regions grow from the threshold down to this probability"
    )
    min_region_um2: Length = Field(10_000, description="smaller regions are dropped, µm²")
    smooth_um: Length = Field(0, description="smoothing of outlines: no vertex moves further than this, µm (0: none)")

    def low_below(self, threshold: float) -> float | None:
        """The low threshold for another threshold than the run's, never above it."""
        return None if self.low_threshold is None else min(self.low_threshold, threshold)


class OutputSettings(_Section):
    """What is written."""

    ngff: Literal["0.5", "0.4"] = Field("0.5", description="OME-Zarr version; 0.4 is what QuPath and Bio-Formats read")
    cells: bool = Field(False, description="also write every cell as a QuPath tile (cells.geojson.gz)")


class Settings(_Section):
    """All settings of a run. Names are unique across the sections: each is also a command-line option."""

    model: str = Field("idc-resnet18", description="bundle: a shipped one by name, or a folder")
    slides: SlideSettings = SlideSettings()
    tissue: TissueSettings = TissueSettings()
    grid: GridSettings = GridSettings()
    prediction: PredictionSettings = PredictionSettings()
    inference: InferenceSettings = InferenceSettings()
    regions: RegionSettings = RegionSettings()
    output: OutputSettings = OutputSettings()

    @model_validator(mode="after")
    def _low_below_high(self) -> "Settings":
        low, high = self.regions.low_threshold, self.regions.threshold
        if low is not None and high is not None and low > high:
            raise ValueError(f"low_threshold ({low:g}) must not exceed threshold ({high:g})")
        return self

    def digest(self, mpp: float | None, arithmetic: Arithmetic | None = None) -> str:
        """SHA-256 (hex) of every setting that can change a result; how the network is run is left out but for rounding.

        Args:
            mpp: The resolution that the user gives for the slide, wherever it was given.
            arithmetic: What the network's numbers are rounded to, where that is known; None for what the settings say.
        """
        return self._digest(mpp, {"tissue", "grid", "prediction", "regions", "output"}, arithmetic)

    def map_digest(self, mpp: float | None, arithmetic: Arithmetic | None = None) -> str:
        """SHA-256 (hex) of the settings that the heatmap itself depends on: not those of the regions."""
        return self._digest((mpp, self.output.ngff), MAP_SECTIONS, arithmetic)

    def _digest(self, extra: object, sections: Iterable[str], arithmetic: Arithmetic | None) -> str:
        values = [RESULT_VERSION, self.slides.reader, extra, self.model_dump(mode="json", include=set(sections))]
        rounded = arithmetic or self._asked
        values += [rounded] if rounded != "fp32" else []
        return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def _asked(self) -> str:
        if self.inference.engine == "openvino-int8":
            return "int8"
        return "fp32" if self.inference.precision == "auto" else self.inference.precision


@cache
def options() -> Mapping[str, tuple[str | None, FieldInfo]]:
    """Every setting by its name: the section it stands in (None at the top) and its field."""
    return dict(_walk())


def _walk() -> Iterator[tuple[str, tuple[str | None, FieldInfo]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            for inner, inner_field in field.annotation.model_fields.items():
                yield inner, (name, inner_field)
        else:
            yield name, (None, field)


def load_settings(file: str | Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Settings from a YAML file, then from `overrides` by option name.

    Args:
        file: A YAML file, or the name of a shipped one (``idc-40x``, ``idc-kaggle``); None for the defaults.
        overrides: Values by setting name, such as ``{"cell": "native"}``; None values are skipped.

    Raises:
        ConfigError: where the file cannot be read, or a key or value in it is wrong.
    """
    values = read_yaml(file) if file is not None else {}
    for name, value in (overrides or {}).items():
        if value is None:
            continue
        section, _ = options()[name]
        if section is None:
            values[name] = value
        elif isinstance(values.setdefault(section, {}), dict):  # else the validation below says what is wrong
            values[section] = {**values[section], name: value}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, str(file or "settings")) from error


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, or in a shipped one by name; empty for an empty file.

    Raises:
        ConfigError: where it cannot be read, is no YAML, or holds no mapping.
    """
    path = Path(file)
    if path.suffix == "" and not path.exists():
        path = _shipped(str(file))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", "Check the path given to --config.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not valid YAML ({' '.join(str(error).split())})", "Mend the file.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(path, "is not a mapping of settings", "Write lines such as `model: idc-resnet18`.")
    return values


def _shipped(name: str) -> Path:
    here = Path(__file__).parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    return Path(name)


def _explain(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ConfigError(where, f"{key or 'settings'}: {first['msg'].removeprefix('Value error, ')}", "")
    if key in _GONE:
        return ConfigError(where, f"{key!r} is no setting any more", _GONE[key])
    known = [*options(), *Settings.model_fields]
    near = get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else "`wsi-pipeline run --help` lists the settings."
    if near and near[0] in options() and options()[near[0]][0] is not None:
        hint = f"Did you mean {near[0]!r} under {options()[near[0]][0]!r}?"
    return ConfigError(where, f"unknown setting {key!r}", hint)
