"""The pixels of a case: its patches, each at its place, decoded when a box touches it."""

import struct
from collections import OrderedDict
from collections.abc import Sequence
from io import BytesIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.files import BROKEN_FILE_ERRORS
from wsi_pipeline.slides.kaggle import PATCH_PX, Patch
from wsi_pipeline.slides.patch_files import PatchFiles

MAX_PATCH_PX = 1024
"""A file that says it is larger is no patch, but may be a decompression bomb."""

CACHE_BYTES = 32 << 20
"""Decoded patches kept for the next box: some 4,000, more than nearly every case has."""

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"

# Pillow reports some broken PNGs as SyntaxError.
_DECODE_ERRORS: tuple[type[Exception], ...] = (*BROKEN_FILE_ERRORS, BadZipFile, SyntaxError)


def png_size(head: bytes) -> Size | None:
    """Width and height that the first 24 bytes of a PNG tell; None where they are no believable patch's."""
    if not head.startswith(_PNG_START) or len(head) < len(_PNG_START) + 8:
        return None
    width, height = struct.unpack_from(">2L", head, len(_PNG_START))
    return Size(width, height) if 0 < width <= MAX_PATCH_PX and 0 < height <= MAX_PATCH_PX else None


class Mosaic:
    """Patches in their places.

    Args:
        address: The case, for messages.
        files: Where the patches are; not closed by the mosaic.
        patches: The patches; where two overlap, the later one is seen.
        sizes: The size of each; None where the file is no PNG.
        patch_px: Side of a full-size patch, which files that are no PNG are taken for.
    """

    def __init__(
        self,
        address: str,
        files: PatchFiles,
        patches: Sequence[Patch],
        sizes: Sequence[Size | None],
        patch_px: int = PATCH_PX,
    ) -> None:
        self._address, self._files, self._patches = address, files, patches
        full = Size(patch_px, patch_px)
        self.boxes = tuple(
            Box(patch.x, patch.y, (size or full).width, (size or full).height)
            for patch, size in zip(patches, sizes, strict=True)
        )
        """Where each patch lies, level-0 pixels."""
        edges = np.array([(box.x, box.y, box.right, box.bottom) for box in self.boxes], np.int64)
        self._left, self._top, self._right, self._bottom = edges.T
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def read(self, box: Box, unreadable: list[Box] | None = None) -> NDArray[np.uint8]:
        """RGB uint8 [box.height, box.width, 3], white where no patch is.

        Args:
            box: Level-0 pixels.
            unreadable: The places of patches that cannot be decoded are added here, and they are left white;
                without it they are an error.

        Raises:
            SlideReadError: naming the patch that cannot be decoded.
        """
        out = np.full((box.height, box.width, 3), 255, np.uint8)
        touched = (self._left < box.right) & (self._right > box.x) & (self._top < box.bottom) & (self._bottom > box.y)
        for index in np.flatnonzero(touched):
            place = self.boxes[index]
            try:
                pixels = self._pixels(int(index))
            except SlideReadError:
                if unreadable is None:
                    raise
                unreadable.append(place)
                continue
            here = place.intersection(box)
            out[here.y - box.y : here.bottom - box.y, here.x - box.x : here.right - box.x] = pixels[
                here.y - place.y : here.bottom - place.y, here.x - place.x : here.right - place.x
            ]
        return out

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        pixels = self._kept[index] = self._decode(index)
        self._bytes += pixels.nbytes
        while self._bytes > CACHE_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
        return pixels

    def _decode(self, index: int) -> NDArray[np.uint8]:
        member = self._patches[index].member
        try:
            data = self._files.read(member)
            # Checked before Pillow sees it, which would unpack any size.
            if png_size(data) != self.boxes[index].size:
                raise ValueError("it is no PNG file of a patch")
            with Image.open(BytesIO(data), formats=("PNG",)) as image:
                return np.asarray(image.convert("RGB"))
        except _DECODE_ERRORS as error:
            raise SlideReadError(
                self._address,
                f"the patch {member} cannot be decoded: {error}",
                "Copy the patch again from its source, or remove it: its place is then a hole.",
            ) from error
