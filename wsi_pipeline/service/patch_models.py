"""Networks that answer single patches, in the worker."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import InferenceSettings
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.evaluation.match import class_order
from wsi_pipeline.explanation.contact import draw_contact_sheet
from wsi_pipeline.explanation.gradcam import GradCam
from wsi_pipeline.explanation.patches import ExplainedPatches, Patch, find_class
from wsi_pipeline.inference import Predictor, choose, choose_device
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.models.card import Card
from wsi_pipeline.scoring.metrics import call

_KEPT = 2
"""Networks held at once: so many models can be compared without loading one for each patch."""

_FORMATS, _MODES = ("PNG", "JPEG"), frozenset({"RGB", "RGBA", "P"})


@dataclass(kw_only=True)
class _Ready:
    predictor: Predictor
    cam: GradCam | None = None
    card: Card = field(init=False)

    def __post_init__(self) -> None:
        self.card = self.predictor.bundle.card


class PatchModels:
    """Bundles by the names that requests use.

    Args:
        bundles: Folder, or name of a shipped one, by that name.
        inference: How networks run.

    Raises:
        BundleError: where one cannot be opened.
        ConfigError: where the device is not there, or the engine does not suit it.
    """

    def __init__(self, bundles: Mapping[str, str], inference: InferenceSettings) -> None:
        choose(inference)
        self._bundles: dict[str, ModelBundle] = {name: load_bundle(path) for name, path in bundles.items()}
        for bundle in self._bundles.values():
            _ = bundle.view
        self._inference = inference
        self._ready: OrderedDict[str, _Ready] = OrderedDict()

    def facts(self) -> list[dict[str, Any]]:
        """What a user must know of each model."""
        return [
            {
                "name": name,
                "title": bundle.card.name,
                "description": bundle.card.description,
                "digest": bundle.digest,
                "class_names": list(bundle.card.class_names),
                "positive_class": bundle.card.positive_class,
                "threshold": bundle.card.threshold.value,
                "patch_px": bundle.card.patch_size_px,
                "mpp": bundle.card.mpp,
                "limits": list(bundle.card.limits),
            }
            for name, bundle in self._bundles.items()
        ]

    def predict(self, name: str, data: bytes) -> dict[str, Any]:
        """Probabilities of one patch.

        Raises:
            DatasetError: where the image cannot be read or has another size.
            InferenceError: where the network fails.
        """
        ready = self._get(name)
        pixels, notes = read_patch(data, ready.card)
        probabilities, called, index = _look(ready, pixels, None)
        return {
            "model": name,
            "probabilities": {
                known: float(value) for known, value in zip(ready.card.class_names, probabilities, strict=True)
            },
            "positive_class": ready.card.positive_class,
            "probability": float(probabilities[index]),
            "threshold": ready.card.threshold.value,
            "called": called,
            "notes": [*notes, *_notes(ready.card)],
        }

    def explain(self, name: str, data: bytes, class_name: str | None) -> bytes:
        """Grad-CAM of one patch on a sheet, PNG.

        Raises:
            DatasetError: where the image cannot be read or has another size.
            ConfigError: where the model has no such class.
            BundleError: where the network cannot be explained.
            InferenceError: where it fails.
        """
        ready = self._get(name)
        pixels, notes = read_patch(data, ready.card)
        if ready.cam is None:
            ready.cam = GradCam(ready.predictor.bundle, ready.predictor.device, batch_size=1)
        probabilities, called, index = _look(ready, pixels, class_name)
        evidence = ready.cam.maps(pixels[None], index)
        found = ExplainedPatches(
            pixels=pixels[None],
            evidence=evidence,
            positions=ready.cam.positions,
            patches=(Patch(name="uploaded patch", label=None, called=called, probability=float(probabilities[index])),),
            card=ready.card,
            class_name=ready.card.class_names[index],
            notes=(*notes, f"image taken to be at {ready.card.mpp:g} µm/px"),
        )
        with TemporaryDirectory() as folder:
            draw_contact_sheet(Path(folder, "patch.png"), found)
            return Path(folder, "patch.png").read_bytes()

    def _get(self, name: str) -> _Ready:
        ready = self._ready.pop(name, None)
        if ready is None:
            ready = _Ready(
                predictor=Predictor(
                    bundle=self._bundles[name],
                    device=choose_device(self._inference.device),
                    batch_size=1,
                    engine=self._inference.engine,
                    precision=self._inference.precision,
                )
            )
        self._ready[name] = ready
        while len(self._ready) > _KEPT:
            self._ready.popitem(last=False)
        return ready


def read_patch(data: bytes, card: Card) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels of a patch, RGB [side, side, 3], and what was done to get them.

    Nothing is decoded before the size in the file's head is the model's.

    Raises:
        DatasetError: where the file is no PNG or JPEG picture in colour, is damaged, or has another size.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            _check_form(image.size, image.mode, card)
            if not image.has_transparency_data:
                return np.array(image.convert("RGB")), []
            above = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return np.array(above.convert("RGB")), ["transparent pixels were taken for white"]
    except DatasetError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError("patch", "is far too large", "Submit a slide as a job.") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DatasetError("patch", "is no PNG or JPEG picture that can be read", "Send one as the body.") from error


def _check_form(size: tuple[int, int], mode: str, card: Card) -> None:
    side = card.patch_size_px
    if size != (side, side):
        why = f"is {size[0]} x {size[1]} px; {card.name} sees {side} x {side} px at {card.mpp:g} µm/px"
        raise DatasetError("patch", why, "Cut and scale the patch to that.")
    if mode not in _MODES:
        raise DatasetError("patch", f"has pixels of the form {mode}", "Send 8 bits each of RGB.")


def _look(ready: _Ready, pixels: NDArray[np.uint8], class_name: str | None) -> tuple[NDArray[np.float32], str, int]:
    """Probabilities of all classes, the class that is called, and the index of the one asked for."""
    card, classes = ready.card, class_order(ready.card)
    index = find_class(card, class_name)
    found = ready.predictor.probabilities(pixels[None])
    called = call(found[:, [card.class_names.index(name) for name in classes]], card.threshold.value)
    return found[0], classes[called[0]], index


def _notes(card: Card) -> list[str]:
    if card.context is None:
        return []
    return [
        "by the patch alone: on a slide, a second stage looks at the neighbourhood too, and the threshold is of that"
    ]
