"""Single image files with the evidence in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets import fit_size
from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.evaluation.match import class_order
from wsi_pipeline.evaluation.predict import Unreadable
from wsi_pipeline.explanation.gradcam import GradCam
from wsi_pipeline.explanation.patches import (
    LEAKY_NOTE,
    MAX_PATCHES,
    ExplainedPatches,
    Patch,
    find_class,
    tell_unreadable,
)
from wsi_pipeline.geometry import Size
from wsi_pipeline.inference import Predictor, default_batch
from wsi_pipeline.inference.devices import Device
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.scoring.metrics import call

MAX_IMAGE_PX = 100_000_000
"""A larger picture is no patch; slides are explained as slides."""


def explain_images(
    bundle: ModelBundle,
    paths: Sequence[Path],
    *,
    device: Device,
    class_name: str | None = None,
    batch: int | None = None,
) -> ExplainedPatches:
    """Explain image files. They are taken to be at the model's resolution, which a file of this kind does not tell.

    Larger images are cut to their middle, smaller ones continued in white, as those of data sets are. What cannot be
    read is left out: a warning names it, and a note counts it.

    Raises:
        ConfigError: where there are too many, or the model has no such class.
        DatasetError: where no file is an image that can be read; the first is named.
        BundleError: where the network cannot be explained.
        InferenceError: where it fails.
    """
    card, index, classes = bundle.card, find_class(bundle.card, class_name), class_order(bundle.card)
    if not 1 <= len(paths) <= MAX_PATCHES:
        raise ConfigError("images", f"{len(paths)} are not between 1 and {MAX_PATCHES}", "Give some of them.")
    side, (paths, images, unreadable) = card.patch_size_px, _read_images(paths)
    pixels = np.stack([fit_size(image, Size(side, side)) for image in images])
    cam = GradCam(bundle, device, batch_size=batch)
    predictor = Predictor(bundle=bundle, device=device, batch_size=batch or default_batch(card, device, len(paths)))
    found = predictor.probabilities(pixels)
    called = call(found[:, [card.class_names.index(name) for name in classes]], card.threshold.value)
    fitted = sum(image.shape[:2] != (side, side) for image in images)
    notes = [f"images taken to be at {card.mpp:g} µm/px" if card.mpp else "images of unknown resolution"]
    if fitted:
        notes.append(f"{fitted} of {len(images)} cut or continued in white to {side} x {side} px")
    if card.leaky:
        notes.append(LEAKY_NOTE)
    return ExplainedPatches(
        pixels=pixels,
        evidence=cam.maps(pixels, index),
        positions=cam.positions,
        patches=tuple(
            Patch(name=path.name, label=None, called=classes[called[n]], probability=float(found[n, index]))
            for n, path in enumerate(paths)
        ),
        card=card,
        class_name=card.class_names[index],
        notes=(*notes, *tell_unreadable(unreadable)),
    )


def _read_images(paths: Sequence[Path]) -> tuple[list[Path], list[NDArray[np.uint8]], list[Unreadable]]:
    """The files that can be read, their pixels, RGB [height, width, 3], and the other files.

    Raises:
        DatasetError: where none can be read; the first is named.
    """
    kept, images, errors = list[Path](), list[NDArray[np.uint8]](), dict[Path, DatasetError]()
    for path in paths:
        try:
            images.append(_read_image(path))
            kept.append(path)
        except DatasetError as error:
            errors[path] = error
    if not kept:
        raise next(iter(errors.values()))
    return kept, images, [Unreadable(name=str(path), why=error.why) for path, error in errors.items()]


def _read_image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_IMAGE_PX:
                raise DatasetError(path, "is too large for a patch", "Explain slides with --slide.")
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DatasetError(path, "does not exist", "Check the path.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(path, "is no image that can be read", "Give PNG, JPEG or TIFF files.") from error
