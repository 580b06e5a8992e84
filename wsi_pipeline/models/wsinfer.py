"""Bundles in the widespread WSInfer form: one TorchScript file and one JSON config."""

import json
import warnings
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zipfile import BadZipFile, ZipFile

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsi_pipeline.errors import BundleError
from wsi_pipeline.geometry import MAX_MPP, MIN_MPP
from wsi_pipeline.models.base import ModelBundle, check_sha256, file_sha256
from wsi_pipeline.models.card import Card, Side, Threshold, Weights, explain_validation

if TYPE_CHECKING:
    from torch import nn

DEFAULT_THRESHOLD = 0.5
_POSITIVE_NAMES = ("idc", "tumor", "tumour", "cancer", "carcinoma", "positive", "malignant")


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    spec_version: Literal["1.0"]
    architecture: str
    num_classes: Annotated[int, Field(ge=2)]
    class_names: tuple[str, ...]
    patch_size_pixels: Side
    spacing_um_px: Annotated[float, Field(ge=MIN_MPP, le=MAX_MPP)]
    transform: list[dict[str, Any]]


def load_wsinfer(folder: Path) -> ModelBundle:
    """Open a folder that holds one ``.pt`` (TorchScript) and one ``.json`` (spec_version 1.0).

    The positive class is the one with a tumour's name, else the last; its threshold is 0.5, as the form has none.

    Raises:
        BundleError: where a file is missing or wrong, or the weights are pickled and not TorchScript.
    """
    config_file = _only(folder, "*.json", "a JSON config")
    weights = _only(folder, "*.pt", "a TorchScript file (.pt)")
    config = _read_config(config_file)
    _refuse_pickle(weights)
    digest = file_sha256(weights)
    card = _card(folder, config, config_file, weights=Weights(file=weights.name, sha256=digest, dtype="float32"))

    def build() -> "nn.Module":
        import torch

        check_sha256(weights, digest)  # it may have been replaced since
        try:
            with warnings.catch_warnings():
                # TorchScript is what such bundles are; that torch would rather see them exported is not news to a user.
                warnings.simplefilter("ignore", FutureWarning)
                network: nn.Module = torch.jit.load(str(weights), map_location="cpu")
        except RuntimeError as error:
            raise BundleError(weights, f"cannot be loaded ({str(error).splitlines()[0]})", "Copy it again.") from error
        return network.eval()

    whole = sha256(config_file.read_bytes() + digest.encode()).hexdigest()
    return ModelBundle(card=card, path=folder, digest=whole, build=build)


def _card(folder: Path, config: _Config, file: Path, *, weights: Weights) -> Card:
    mean, std, input_px = _transform(config, file)
    try:
        return Card(
            name=folder.name,
            description=f"{config.architecture}, WSInfer form",
            architecture=config.architecture,
            class_names=config.class_names,
            positive_class=_positive(config.class_names),
            patch_size_px=config.patch_size_pixels,
            mpp=config.spacing_um_px,
            input_px=input_px,
            mean=mean,
            std=std,
            threshold=Threshold(value=DEFAULT_THRESHOLD, chosen="default: this form of bundle has none"),
            weights=weights,
        )
    except ValidationError as error:
        raise BundleError(file, explain_validation(error), "Mend the config.") from error


def _only(folder: Path, pattern: str, what: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise BundleError(
            folder,
            f"holds {len(found)} files {pattern}, where a bundle has one",
            f"A bundle is model.json + model.safetensors, or {what} with its companion (WSInfer).",
        )
    return found[0]


def _read_config(file: Path) -> _Config:
    try:
        config = _Config.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise BundleError(file, explain_validation(error), "The config does not follow WSInfer's form 1.0.") from error
    except (OSError, ValueError) as error:
        raise BundleError(file, f"is no readable JSON ({error})", "Copy the bundle again.") from error
    if len(config.class_names) != config.num_classes:
        raise BundleError(
            file, f"num_classes is {config.num_classes}, class_names has {len(config.class_names)}", "Mend the config."
        )
    return config


def _refuse_pickle(weights: Path) -> None:
    """TorchScript is a zip with a ``code`` folder; a pickled module or state dict has none."""
    try:
        with ZipFile(weights) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return
    except (BadZipFile, OSError):
        pass
    raise BundleError(
        weights,
        "is not TorchScript; pickled weights can run code and are not loaded",
        "Export the model with torch.jit.script or trace, or convert it to safetensors.",
    )


def _positive(names: tuple[str, ...]) -> str:
    def wanted(name: str) -> bool:
        lower = name.lower()
        return not lower.startswith(("no", "non")) and any(word in lower for word in _POSITIVE_NAMES)

    return next((name for name in names if wanted(name)), names[-1])


def _transform(config: _Config, file: Path) -> tuple[tuple[float, float, float], tuple[float, float, float], int]:
    """Mean, std and input side of ``Resize | ToTensor | Normalize``."""
    mean, std, side = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), config.patch_size_pixels
    for step in config.transform:
        name, arguments = step.get("name"), step.get("arguments") or {}
        try:
            if name == "Resize":
                size = arguments["size"]
                side = int(size if isinstance(size, int) else size[0])
            elif name == "Normalize":
                mean, std = (_triple(arguments[key]) for key in ("mean", "std"))
            elif name != "ToTensor":
                raise BundleError(file, f"unknown transform {name!r}", "Known: Resize, ToTensor, Normalize.")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(file, f"transform {name} has wrong arguments {arguments}", "Mend the config.") from error
    return mean, std, side


def _triple(values: list[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
