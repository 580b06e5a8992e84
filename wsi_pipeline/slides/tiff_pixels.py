"""Pixels of TIFF pages: strips or tiles decoded one by one, each to 8-bit RGB on white."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideFormatError
from wsi_pipeline.geometry import Box, Size

MAX_SEGMENT_BYTES = 512 << 20
"""Bound on one strip or tile, decoded."""

CACHE_BYTES = 32 << 20
"""Decoded strips and tiles kept for the next, neighbouring box; the last one always is."""

_APERIO_JP2000_YCBC = 33003
_JPEG2000_AND_JPEG = {6, 7, 33003, 33004, 33005, 34712, 34892, 33007}


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffLevel:
    """One level: a page, or three pages that are its channels."""

    size: Size
    pages: tuple[Any, ...]
    """One `tifffile.TiffPage` with all channels, or one each for red, green and blue."""

    @property
    def page(self) -> Any:
        """What is true of all pages: size, compression, channels."""
        return self.pages[0].keyframe

    @property
    def samples(self) -> int:
        """Channels of the level, an alpha channel included."""
        return len(self.pages) * int(self.page.samplesperpixel)


def check_rgb(address: str, level: TiffLevel) -> None:
    """Refuse what is not a colour or grey picture of 8 or 16 bits.

    Raises:
        SlideFormatError: with the reason.
    """
    page = level.page
    photometric = tifffile.PHOTOMETRIC
    known = {photometric.RGB, photometric.MINISBLACK, photometric.YCBCR}
    bits = page.bitspersample
    why = ""
    if page.dtype not in (np.uint8, np.uint16) or bits not in (8, 16):
        why = f"its pixels are {bits}-bit {page.dtype}, not 8- or 16-bit whole numbers"
    elif level.samples not in (1, 3, 4) or page.imagedepth != 1:
        why = f"it has {level.samples} channels and a depth of {page.imagedepth}"
    elif page.photometric not in known:
        why = f"its colours are stored as {getattr(page.photometric, 'name', page.photometric)}"
    elif page.photometric == photometric.YCBCR and page.compression not in _JPEG2000_AND_JPEG:
        why = "its YCbCr colours are not compressed with JPEG"
    if why:
        raise SlideFormatError(address, f"is no RGB picture: {why}", "Convert it to an 8-bit RGB TIFF.")
    width, height, _ = _segment_shape(page)
    if width * height * page.samplesperpixel * page.dtype.itemsize > MAX_SEGMENT_BYTES:
        why = f"its pixels are stored in pieces of {width} x {height}, too large to read one at a time"
        raise SlideFormatError(address, why, "Convert it to a tiled TIFF, for example with vips tiffsave --tile.")


class SegmentReader:
    """Decodes strips and tiles of one open file and keeps the latest ones."""

    def __init__(self, tiff: tifffile.TiffFile) -> None:
        self._file = tiff.filehandle
        self._kept: OrderedDict[tuple[int, int], NDArray[Any] | None] = OrderedDict()
        self._bytes = 0

    def read(self, level: TiffLevel, box: Box) -> NDArray[np.uint8]:
        """RGB uint8 [box.height, box.width, 3] of a box inside the level; errors are those of the decoders."""
        dtype = level.page.dtype
        canvas = np.full((box.height, box.width, level.samples), np.iinfo(dtype).max, dtype)
        for first, page in enumerate(level.pages):
            for index, tile, channel in _segments(level.page, box):
                pixels = self._decode(page, index)
                if pixels is None:
                    continue
                here = tile.intersection(box)
                source = pixels[here.y - tile.y : here.bottom - tile.y, here.x - tile.x : here.right - tile.x]
                rows = slice(here.y - box.y, here.bottom - box.y)
                cols = slice(here.x - box.x, here.right - box.x)
                start = first + channel
                canvas[rows, cols, start : start + source.shape[2]] = source
        return _to_rgb(canvas, level.page)

    def _decode(self, page: Any, index: int) -> NDArray[Any] | None:
        """[rows, cols, samples] of one strip or tile; None where the file leaves it out."""
        key = page.offset, index
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        pixels = None
        length = page.databytecounts[index]
        if length:
            self._file.seek(page.dataoffsets[index])
            data = self._file.read(length)
            if len(data) < length:
                raise EOFError(f"the file ends in the middle of tile {index}")
            decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.keyframe.jpegheader)
            pixels = None if decoded is None else decoded[0]
        self._keep(key, pixels)
        return pixels

    def _keep(self, key: tuple[int, int], pixels: NDArray[Any] | None) -> None:
        self._kept[key] = pixels
        self._bytes += 0 if pixels is None else pixels.nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= 0 if dropped is None else dropped.nbytes


def _segment_shape(page: Any) -> tuple[int, int, bool]:
    """Width and height of a page's strips or tiles, and whether each channel has its own."""
    planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength), planar
    return int(page.imagewidth), int(min(page.rowsperstrip, page.imagelength)), planar


def _segments(page: Any, box: Box) -> Iterator[tuple[int, Box, int]]:
    """The strips or tiles that meet `box`: number, place (as far as it lies in the page), first channel."""
    width, height, planar = _segment_shape(page)
    across, down = -(-page.imagewidth // width), -(-page.imagelength // height)
    whole = Box(0, 0, page.imagewidth, page.imagelength)
    for channel in range(page.samplesperpixel if planar else 1):
        for row in range(box.y // height, (box.bottom - 1) // height + 1):
            for col in range(box.x // width, (box.right - 1) // width + 1):
                place = Box(col * width, row * height, width, height).intersection(whole)
                yield (channel * down + row) * across + col, place, channel


def _to_rgb(raw: NDArray[Any], page: Any) -> NDArray[np.uint8]:
    eight_bit = raw if raw.dtype == np.uint8 else (raw.astype(np.uint32) + 128) // 257
    canvas = np.asarray(eight_bit, np.uint8)
    if canvas.shape[2] == 1:
        return np.repeat(canvas, 3, axis=2)
    if page.compression == _APERIO_JP2000_YCBC:
        canvas = np.asarray(Image.fromarray(np.ascontiguousarray(canvas), "YCbCr").convert("RGB"))
    if canvas.shape[2] == 3:
        return canvas
    kind = page.extrasamples[0] if page.extrasamples else 0
    colour, alpha = canvas[..., :3].astype(np.uint16), canvas[..., 3:].astype(np.uint16)
    if kind == tifffile.EXTRASAMPLE.UNASSALPHA:
        colour = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    elif kind == tifffile.EXTRASAMPLE.ASSOCALPHA:
        colour = np.minimum(255, colour + (255 - alpha))
    return np.asarray(colour, np.uint8)
