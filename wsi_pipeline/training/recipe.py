"""Recipes: everything that decides what a training gives, read from YAML and checked key by key. No torch here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsi_pipeline.config import Fraction, Length, ThresholdAim, read_yaml
from wsi_pipeline.datasets.splits import SplitKind
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.models.card import MAX_SIDE_PX

RECIPES = (
    "idc-best",
    "idc-efficientnet",
    "idc-finetune",
    "idc-resnet18",
    "idc-residual-7ch",
    "idc-cnn",
    "breakhis-resnet50",
    "pcam-resnet50",
)
"""The shipped recipes, by name."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Precision = Annotated[
    Literal["auto", "32", "bf16"], BeforeValidator(lambda value: str(value) if value == 32 else value)
]
_WORDS = {True: "yes", False: "no"}
"""What YAML makes of them, undone."""

Pretrained = Annotated[
    Literal["auto", "yes", "no"],
    BeforeValidator(lambda value: _WORDS[value] if isinstance(value, bool) else value),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataSettings(_Section):
    """What is read."""

    layout: Literal["auto", "idc", "breakhis", "pcam"] = Field("auto", description="how the data set's files lie")
    magnifications: tuple[str, ...] = Field((), description="only these, such as 40X (BreakHis); empty: all mixed")
    subset: dict[str, Count] = Field({}, description="class name: how many patches of it are drawn before the split")
    balance: Literal["none", "truncate"] = Field("none", description="truncate: training classes are cut to the rarest")
    cache: Literal["auto", "memory", "none"] = Field(
        "auto", description="decoded patches in memory; auto: where they need at most memory_gb"
    )
    memory_gb: Positive = Field(8.0, description="most memory for decoded patches, GB")
    workers: int | None = Field(None, ge=0, description="processes that decode what is not in memory; default: cores")


class SplitSettings(_Section):
    """Which cases train, validate and test."""

    kind: SplitKind = Field("case", description="leaky: patch by patch, for comparison")
    seed: int = Field(0, ge=0, description="of the draw")
    validation_fraction: Fraction = Field(0.15, description="chooses calibration, threshold and when to stop")
    test_fraction: Fraction = Field(0.2, description="is looked at once, at the end")
    compare_leaky: bool = Field(False, description="also train on the leaky split, to show what the leak is worth")


class ModelSettings(_Section):
    """The network."""

    architecture: str = Field("torchvision/resnet18", description="see docs/bundles.md")
    pretrained: Pretrained = Field(
        "auto", description="ImageNet weights; auto: where they can be had, at random otherwise"
    )
    start: str | None = Field(
        None, description="a bundle of this architecture whose weights the training begins at, in place of these"
    )
    input_px: int | None = Field(
        None, ge=8, le=MAX_SIDE_PX, description="patches are resized to this side, px; default: not at all"
    )
    normalisation: Literal["auto", "imagenet", "data", "none"] = Field(
        "auto", description="mean and deviation of colours; auto: that of the first weights, else the data's"
    )


class Stage(_Section):
    """From an epoch on, what is trained; all else is frozen, its batch norms too."""

    epoch: int = Field(ge=1)
    train: tuple[str, ...] = Field(
        min_length=1, description="all, head, or names of stages of the network such as layer4"
    )

    @field_validator("train", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class OptimisationSettings(_Section):
    """How the weights are found."""

    epochs: Count = 20
    batch_size: Annotated[int, Field(ge=2)] = Field(128, description="patches a step, over all devices together")
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = Field(1e-3, description="learning rate; the peak of one_cycle")
    momentum: Fraction = Field(0.9, description="of sgd")
    weight_decay: Length = Field(0.0, description="not on norms and biases")
    l1: Length = Field(0.0, description="penalty on the absolute weights of kernels (convolutions, linear layers)")
    l2: Length = Field(0.0, description="penalty on the squared weights of kernels")
    schedule: Literal["one_cycle", "plateau", "constant"] = "one_cycle"
    warmup: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of one_cycle in which lr rises")
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="lr is multiplied by it")
    plateau_patience: int = Field(2, ge=0, description="epochs without a lower validation loss before that")
    patience: int | None = Field(None, ge=1, description="epochs without a lower validation loss before the end")
    keep: Literal["last", "best"] = Field("last", description="best: the epoch of the lowest validation loss")
    ema_decay: Decay | None = Field(None, description="average of the weights over the steps, and what is kept")
    class_weights: Literal["none", "balanced"] = "none"
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: Length = Field(2.0, description="of focal (Lin et al. 2017)")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Length = Field(0.0, description="alpha (Zhang et al. 2018); 0: none")
    clip: Positive | None = Field(None, description="largest norm of the gradient")
    stages: tuple[Stage, ...] = Field((), description="freezing and unfreezing; empty: all is trained throughout")

    @model_validator(mode="after")
    def _stages_rise(self) -> "OptimisationSettings":
        epochs = [stage.epoch for stage in self.stages]
        if epochs != sorted(set(epochs)) or (epochs and epochs[0] != 1):
            raise ValueError(f"stages: their epochs must rise from 1, not {epochs}")
        return self


class AugmentationSettings(_Section):
    """What is done to patches in training only."""

    symmetries: bool = Field(True, description="the 8 flips and quarter turns")
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="either way")
    zoom: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="0.2: from 0.8 to 1.2 times")
    shear_degrees: Annotated[float, Field(ge=0, lt=90)] = Field(0.0, description="either way")
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="0.2: from 0.8 to 1.2 times")
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="0.2: from 0.8 to 1.2 times")
    stain_jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="deviation of the factor on haematoxylin, eosin and residual (Tellez et al. 2018)"
    )
    offsets: Fraction = Field(
        0.0, description="share of a whole case's patches cut at any pixel, across four, with area-weighted labels"
    )
    patches_per_case: int | None = Field(None, ge=1, description="most patches of one case in an epoch")
    random_crop: bool = Field(True, description="patches that are no squares: a square anywhere, else the centre")


class DistillationSettings(_Section):
    """A teacher, which is trained first on the same patches, and whose probabilities the network then learns too."""

    weight: Annotated[float, Field(gt=0, le=1)] = Field(0.7, description="of the teacher's word against the label's")
    precision: Precision = "auto"
    model: ModelSettings
    optimisation: OptimisationSettings = OptimisationSettings()
    augmentation: AugmentationSettings = AugmentationSettings()


class Recipe(_Section):
    """Settings of a training. Two trainings of one recipe on the same data and machine give the same bundle."""

    description: str = ""
    limits: tuple[str, ...] = Field((), description="what the model is not made for, a sentence each, for its card")
    seed: int = Field(0, ge=0, description="of first weights, order and augmentation")
    precision: Precision = Field("auto", description="bf16: mixed; auto: where it is fast")
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    threshold: ThresholdAim = Field(
        "balanced_accuracy", description="what the threshold is chosen for, on validation or cross-validated patches"
    )
    model: ModelSettings = ModelSettings()
    optimisation: OptimisationSettings = OptimisationSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    distillation: DistillationSettings | None = Field(None, description="a teacher to learn from; null: none")

    def teacher(self) -> tuple["Recipe", float]:
        """The recipe of the teacher, on the same data and from the same seed; and the weight of its word.

        Raises:
            ValueError: where there is none.
        """
        if self.distillation is None:
            raise ValueError("a recipe without distillation has no teacher")
        own = {key: getattr(self.distillation, key) for key in ("precision", "model", "optimisation", "augmentation")}
        return self.model_copy(update={**own, "distillation": None}), self.distillation.weight

    def digest(self) -> str:
        """SHA-256 (hex) of every setting that can change a result."""
        words = {"description": True, "limits": True}
        values = self.model_dump(mode="json", exclude={**words, "data": {"workers", "cache", "memory_gb"}})
        return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def with_split(self, kind: SplitKind) -> "Recipe":
        """The same recipe with another kind of split."""
        return self.model_copy(update={"split": self.split.model_copy(update={"kind": kind})})

    def without_folders(self) -> "Recipe":
        """Bundles to start from by their names alone: where they lie on this machine is nobody's business."""

        def named(model: ModelSettings) -> ModelSettings:
            return model.model_copy(update={"start": model.start and Path(model.start).name})

        own, teacher = named(self.model), self.distillation
        if teacher is not None:
            teacher = teacher.model_copy(update={"model": named(teacher.model)})
        return self.model_copy(update={"model": own, "distillation": teacher})

    def as_yaml(self) -> str:
        """All settings, with the defaults written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_recipe(source: str | Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """A recipe from a shipped name or a YAML file, then values by dotted key.

    Args:
        source: One of `RECIPES`, or a YAML file.
        overrides: Such as ``{"optimisation.lr": 0.001}``.

    Raises:
        ConfigError: where the file cannot be read, or a key or value is wrong; an unknown key comes with the nearest.
    """
    shipped = str(source) in RECIPES
    if not shipped and not Path(source).is_file():
        hint = f"Give a YAML file or one of {', '.join(RECIPES)}."
        raise ConfigError(source, "is no recipe", hint)
    values = read_yaml(f"train/{source}" if shipped else source)
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, source) from error


def parse_overrides(texts: Sequence[str]) -> dict[str, object]:
    """``section.key=value`` texts as values by dotted key; values are read as YAML.

    Raises:
        ConfigError: where a text has another form.
    """
    values: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text}", "is not section.key=value", "Such as --set optimisation.epochs=5.")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}", "its value is no YAML", "Quote it for the shell.") from error
    return values


def _set(values: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for part in path:
        if values.get(part) is None:
            values[part] = {}
        if not isinstance(values[part], dict):
            raise ConfigError(f"--set {key}", f"{part} is a value and has no settings", f"Set {part} as a whole.")
        values = values[part]
    values[last] = value


def _explain(error: ValidationError, source: str | Path) -> ConfigError:
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])  # a slip leaves a gap, too
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        why = f"{key or 'recipe'}: {first['msg'].removeprefix('Value error, ')}"
        return ConfigError(source, why, _told_of(first["loc"]))
    near = _nearest(key)
    hint = f"Did you mean {near!r}?" if near else "docs/training.md lists the settings."
    return ConfigError(source, f"unknown setting {key!r}", hint)


def _told_of(path: Sequence[int | str]) -> str:
    """What the deepest setting on a path is; nothing where no description tells."""
    told = dict(_described(Recipe))
    for end in range(len(path), 0, -1):
        key = ".".join(map(str, path[:end]))
        if told.get(key):
            return f"{key} is: {told[key]}."
    return ""


def _nearest(key: str) -> str | None:
    """The known setting most like an unknown one: of the same section, or else the first of any."""
    section, _, last = key.rpartition(".")
    known = [(*name.rpartition("."),) for name, _ in _described(Recipe)]
    for names in ([name for name in known if name[0] == section], known):
        near = get_close_matches(last, [name[-1] for name in names], n=1, cutoff=0.5)
        if near:
            return next("".join(name) for name in names if name[-1] == near[0])
    return None


def _described(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Every setting by its dotted key, with its description."""
    for name, field in section.model_fields.items():
        yield prefix + name, field.description
        for kind in (field.annotation, *get_args(field.annotation)):  # a section, one or none, or several
            if isinstance(kind, type) and issubclass(kind, _Section):
                yield from _described(kind, f"{prefix}{name}.")
