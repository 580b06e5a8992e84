"""The card of a model bundle: everything a run must know of a network but its weights. No torch here."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_pipeline.context import Context
from wsi_pipeline.errors import BundleError
from wsi_pipeline.geometry import MAX_MPP, MIN_MPP

Triple = tuple[float, float, float]
Colours = tuple[Triple, Triple]
"""Mean and standard deviation of RGB in 0..1."""

MAX_SIDE_PX = 8192
"""Of a field of view, and of what a network takes; more is a slip of the pen, and would end in the memory."""

Side = Annotated[int, Field(gt=0, le=MAX_SIDE_PX)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]
Shift = Annotated[float, Field(ge=-1, le=2)]
Spread = Annotated[float, Field(gt=1e-4, le=255)]
Bias = Annotated[float, Field(ge=-100, le=100)]

_BELIEVABLE = {
    **dict.fromkeys(("mpp", "spacing_um_px"), f"{MIN_MPP:g} to {MAX_MPP:g} µm/px"),
    **dict.fromkeys(("patch_size_px", "patch_size_pixels", "input_px"), f"1 to {MAX_SIDE_PX:,} px"),
    "temperature": "0.01 to 100",
    "mean": "-1 to 2, of RGB in 0..1",
    "std": "0.0001 to 255, of RGB in 0..1",
    "bias": "-100 to 100",
    "threshold": "0 to 1",
}
"""For people: what each number of a card may be, in our form and in WSInfer's."""


CROSS_VALIDATION, WITHOUT_CONTEXT = "cross_validation", "cross_validation_without_context"
"""Parts of a card's metrics: cross-validated, with the second stage where there is one, and each patch by itself."""

LEAKY_WARNING = "The model was trained and measured on a LEAKY split: what its card says of its accuracy is too good."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Threshold(_Part):
    """A probability from which a class is called, and how it was chosen."""

    value: Annotated[float, Field(ge=0, le=1)]
    chosen: str


class Weights(_Part):
    """The file of weights beside the card."""

    file: str = "model.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    dtype: Literal["float16", "float32"] = "float16"


class Quantization(_Part):
    """The int8 form of the network, two files of OpenVINO's beside the card, and what it costs."""

    file: str = "model-int8.xml"
    """The graph; its weights lie beside it under the same name with ``.bin``."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the graph's file."""
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    calibration: dict[str, Any] = {}
    """Method, patches and cases that it was calibrated on: for people."""
    measured: dict[str, Any] = {}
    """int8 against fp32 on other cases, with 95 % intervals of the differences: for people."""


class Card(_Part):
    """``model.json``: what the network is, what it needs to see, how it was made and how good it is."""

    schema_version: Literal[1] = 1
    name: str
    description: str = ""
    architecture: str
    """A name known to `architectures.build_network`; ``ensemble`` for one of other bundles."""
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    positive_class: str
    patch_size_px: Side
    """Side of the field of view at `mpp`."""
    mpp: Annotated[float, Field(ge=MIN_MPP, le=MAX_MPP)] | None
    """None for a network trained at several magnifications, which fits no slide."""
    input_px: Side
    """Side the field of view is resized to before the network; the same as `patch_size_px` for none."""
    mean: tuple[Shift, Shift, Shift]
    """Of RGB in 0..1, subtracted."""
    std: tuple[Spread, Spread, Spread]
    """Of RGB in 0..1, divided by."""
    temperature: Temperature = 1.0
    """Logits are divided by it before the softmax."""
    bias: tuple[Bias, ...] | None = None
    """One for each class, added to the logits after the division: undoes what class weights did (Platt 1999)."""
    context: Context | None = None
    """A second stage over the probability map, fitted on the positive class."""
    threshold: Threshold
    """Holds for the probabilities as they are given out: after `context`, where there is one."""
    weights: Weights | None = None
    members: tuple[str, ...] = ()
    """Folders of an ensemble's bundles, beside the card; then there are no `weights`."""
    quantization: Quantization | None = None
    """For the engine ``openvino-int8``; None where the bundle was not quantised."""
    licence: str = ""
    limits: tuple[str, ...] = ()
    """What it was not made for and where it is known to fail, a sentence each: for people."""
    training: dict[str, Any] = {}
    """Data, split by case, recipe, command: for people."""
    metrics: dict[str, Any] = {}
    """Measured on unseen cases, with 95 % intervals: for people."""

    @property
    def threshold_without_context(self) -> float | None:
        """Chosen for the probabilities before `context`, where the card tells of one."""
        value = (self.metrics.get(WITHOUT_CONTEXT) or {}).get("threshold")
        return value if isinstance(value, float) else None

    @property
    def threshold_needs_context(self) -> bool:
        """Whether the threshold was chosen for maps after `context`, and none is known to be as good before it."""
        return self.context is not None and self.threshold_without_context != self.threshold.value

    @property
    def leaky(self) -> bool:
        """Whether its figures are of a split that divides cases, and say nothing of unseen ones."""
        return self.metrics.get("leaky") is True

    @model_validator(mode="after")
    def _parts_fit(self) -> "Card":
        if self.positive_class not in self.class_names:
            raise ValueError(f"positive_class {self.positive_class!r} is none of {list(self.class_names)}")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names repeat: {list(self.class_names)}")
        if self.bias is not None and len(self.bias) != len(self.class_names):
            raise ValueError(f"bias has {len(self.bias)} values for {len(self.class_names)} classes")
        if (self.weights is None) != bool(self.members):
            raise ValueError("a card names either weights or the members of an ensemble")
        return self


def read_card(path: Path) -> Card:
    """Read and check ``model.json``.

    Raises:
        BundleError: where it is missing, no JSON, or lacks or misstates a key.
    """
    try:
        return Card.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BundleError(
            path, f"cannot be read ({error.strerror})", "A bundle is a folder with model.json."
        ) from error
    except ValidationError as error:
        raise BundleError(path, explain_validation(error), "The card does not follow the bundle's schema.") from error
    except ValueError as error:
        raise BundleError(path, f"is no JSON ({error})", "The card is damaged: copy the bundle again.") from error


def explain_validation(error: ValidationError) -> str:
    """The first fault that pydantic found, in one clause; of a number, what it is and what is believable."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    value = first["input"]
    believable = _BELIEVABLE.get(str(first["loc"][0])) if first["loc"] and isinstance(value, int | float) else None
    told = f", not {value:g} (believable: {believable})" if believable else ""
    return f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}{told}"
