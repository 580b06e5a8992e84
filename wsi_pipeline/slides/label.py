"""The picture of a slide's label. It may bear a patient's name: nothing reads it unless a user asks for it."""

from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

MAX_PX = 16_000_000
"""A larger picture is none of a label."""


def read_label(path: str | Path) -> NDArray[np.uint8] | None:
    """The label, or the picture of the whole glass; RGB uint8 [height, width, 3], None where the file has neither."""
    try:
        with openslide.OpenSlide(path) as slide:
            for name in ("label", "macro"):
                image = slide.associated_images.get(name)
                if image is not None and image.width * image.height <= MAX_PX:
                    return np.asarray(image.convert("RGB"))
    except openslide.OpenSlideError:
        return None
    return None
