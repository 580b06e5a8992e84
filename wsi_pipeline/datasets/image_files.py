"""Data sets whose samples are picture files, one each."""

from collections.abc import Sequence
from io import BytesIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.datasets.broken import all_in_one
from wsi_pipeline.datasets.store import PatchStore
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.files import BROKEN_FILE_ERRORS
from wsi_pipeline.slides.mosaic import png_size
from wsi_pipeline.slides.patch_files import HEAD_BYTES

# Pillow reports some broken PNGs as SyntaxError.
_DECODE_ERRORS: tuple[type[Exception], ...] = (
    *BROKEN_FILE_ERRORS, BadZipFile, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class ImageFiles(PatchDataset):
    """Samples whose names are paths of pictures in a `PatchStore`.

    Args:
        store: The files; all but the samples' are forgotten.
        layout: See `PatchDataset`, as the rest.
    """

    def __init__(
        self,
        store: PatchStore,
        *,
        layout: str,
        class_names: tuple[str, ...],
        positive_class: str,
        patch_size: Size,
        mpp: float | None,
        samples: Sequence[Sample],
        findings: Sequence[str],
        source: str = "",
        limits: tuple[str, ...] = (),
        group_kind: str = "case",
    ) -> None:
        self.layout, self.root = layout, store.root
        self.class_names, self.positive_class = class_names, positive_class
        self.patch_size, self.mpp, self.group_kind = patch_size, mpp, group_kind
        self.samples, self.findings = tuple(samples), tuple(findings)
        self.source, self.limits = source, limits
        store.keep(sample.name for sample in self.samples)
        self._store = store

    def read(self, index: int) -> NDArray[np.uint8]:
        """RGB pixels [height, width, 3] of a sample.

        Raises:
            DatasetError: where it cannot be decoded; its file is named.
        """
        name = self.samples[index].name
        return decode(self._store.read(name), self._store.address(name))


def decode(data: bytes, address: str) -> NDArray[np.uint8]:
    """RGB pixels [height, width, 3] of a picture's bytes.

    Args:
        data: PNG, TIFF or JPEG.
        address: Where it comes from, for messages.

    Raises:
        DatasetError: where it is no readable picture.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except _DECODE_ERRORS as error:
        why = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DatasetError(
            address, f"is no readable image ({why})", "Copy it again from its source, or remove it."
        ) from error


def png_sizes(store: PatchStore, names: Sequence[str], *, strict: bool = True) -> list[Size]:
    """What each PNG's first bytes say of its size.

    Raises:
        DatasetError: naming the first files that cannot be read, are no PNG, or of a size that no patch has, and
            counting all; where not `strict`, such files are left out.
    """
    sizes, errors = [], dict[str, DatasetError]()
    for name in tqdm(names, desc="sizes", unit="patch", disable=None, leave=False):
        try:
            size = png_size(store.head(name, HEAD_BYTES))
        except DatasetError as error:
            errors[name] = error
            continue
        if size is None:
            errors[name] = DatasetError(
                store.address(name), "is no readable PNG image", "Copy it again from its source, or remove it."
            )
        else:
            sizes.append(size)
    if errors and strict:
        raise all_in_one(store.root, errors, len(names))
    return sizes
