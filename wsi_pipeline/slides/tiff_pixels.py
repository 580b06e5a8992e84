"""Pixels of TIFF pages: strips or tiles decoded one by one, each once, to 8-bit RGB on white."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideFormatError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.positional import PositionalFile

MAX_SEGMENT_BYTES = 512 << 20
"""Bound on one strip or tile, decoded."""

CACHE_BYTES = 64 << 20
"""Bound on the decoded strips and tiles that are kept for neighbouring boxes; the last one always is."""

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


def is_plain(level: TiffLevel) -> bool:
    """Whether a level is 8-bit grey or RGB without alpha, and not Aperio's JPEG 2000 in YCbCr."""
    page = level.page
    return page.dtype == np.uint8 and level.samples in (1, 3) and page.compression != _APERIO_JP2000_YCBC


def fullest_segment(level: TiffLevel) -> Box:
    """The strip or tile with the most compressed bytes, as far as it lies in the level."""
    page = level.pages[0]
    width, height, _ = _segment_shape(level.page)
    across = -(-level.size.width // width)
    # Where channels are stored apart, those of the first come first.
    count = across * -(-level.size.height // height)
    row, col = divmod(int(np.argmax(page.databytecounts[:count] or (0,))), across)
    return Box(col * width, row * height, width, height).intersection(Box(0, 0, level.size.width, level.size.height))


class Segment(NamedTuple):
    """One strip or tile, in pixels of its level; a plain tuple, for a block has hundreds of them."""

    page: Any
    number: int
    """Which strip or tile of its page."""
    channels: slice
    """Which of the level's channels it holds."""
    left: int
    top: int
    right: int
    """First column to the right, or the page's edge."""
    bottom: int

    def within(self, box: Box) -> bool:
        """Whether all of it lies inside `box`."""
        return self.left >= box.x and self.top >= box.y and self.right <= box.right and self.bottom <= box.bottom


Decoded = tuple[bool, NDArray[Any] | None]
"""Whether there was something to decode, and the pixels if they are to be kept."""


class SegmentReader:
    """Decodes the strips and tiles of one open file.

    Those that stick out over the box just read are kept: the next, neighbouring box needs them again. Those wholly
    inside it are not. So a slide that is read in boxes side by side has each tile decoded once.

    Args:
        file: The file's bytes.
        threads: Tiles of a box that are decoded at the same time. The decoders run without Python's lock.
    """

    def __init__(self, file: PositionalFile, threads: int = 1) -> None:
        self._file = file
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self.decodes = 0
        """Strips and tiles decoded so far."""

    def read(self, level: TiffLevel, box: Box) -> NDArray[np.uint8]:
        """RGB uint8 [box.height, box.width, 3] of a box inside the level; errors are those of the decoders."""
        canvas = np.empty((box.height, box.width, level.samples), level.page.dtype)
        needed = []
        for segment in _segments(level, box):
            pixels = self._kept.get((segment.page.offset, segment.number))
            if pixels is None:
                needed.append(segment)
            else:
                self._kept.move_to_end((segment.page.offset, segment.number))
                _place(canvas, box, segment, pixels)

        def fill(segment: Segment) -> Decoded:
            pixels = self._decode(segment)
            _place(canvas, box, segment, pixels)
            return pixels is not None, None if segment.within(box) else pixels

        for segment, (decoded, pixels) in zip(needed, self._map(fill, needed), strict=True):
            self.decodes += decoded
            if pixels is not None:
                self._keep((segment.page.offset, segment.number), pixels)
        return _to_rgb(canvas, level.page)

    def close(self) -> None:
        """End the threads; what they still decode is waited for, so that the file may be closed after it."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _map(self, function: Callable[[Segment], Decoded], segments: list[Segment]) -> Iterable[Decoded]:
        if self._threads == 1 or len(segments) == 1:
            return map(function, segments)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "tiles")
        return self._pool.map(function, segments)

    def _decode(self, segment: Segment) -> NDArray[Any] | None:
        """[rows, cols, samples] of one strip or tile; None where the file leaves it out."""
        page, index = segment.page, segment.number
        length = page.databytecounts[index]
        if not length:
            return None
        data = self._file.read(page.dataoffsets[index], length)
        if len(data) < length:
            raise EOFError(f"the file ends in the middle of tile {index}")
        # tifffile picks imagecodecs' decoder, colour space and predictor; on top of it that costs about 1 %.
        decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.keyframe.jpegheader)
        return None if decoded is None else decoded[0]

    def _keep(self, key: tuple[int, int], pixels: NDArray[Any]) -> None:
        self._kept[key] = pixels
        self._bytes += pixels.nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _place(canvas: NDArray[Any], box: Box, segment: Segment, pixels: NDArray[Any] | None) -> None:
    """Copy what of a strip or tile lies in `box` onto the canvas of the box; white where there is none."""
    left, top = max(box.x, segment.left), max(box.y, segment.top)
    right, bottom = min(box.right, segment.right), min(box.bottom, segment.bottom)
    here = canvas[top - box.y : bottom - box.y, left - box.x : right - box.x, segment.channels]
    if pixels is None:
        here[...] = np.iinfo(canvas.dtype).max
    else:
        here[...] = pixels[top - segment.top : bottom - segment.top, left - segment.left : right - segment.left]


def _segment_shape(page: Any) -> tuple[int, int, bool]:
    """Width and height of a page's strips or tiles, and whether each channel has its own."""
    planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength), planar
    return int(page.imagewidth), int(min(page.rowsperstrip, page.imagelength)), planar


def _segments(level: TiffLevel, box: Box) -> Iterator[Segment]:
    """The strips or tiles that meet `box`, those of one channel after those of another."""
    page = level.page
    width, height, planar = _segment_shape(page)
    across, down = -(-page.imagewidth // width), -(-page.imagelength // height)
    rows = range(box.y // height, (box.bottom - 1) // height + 1)
    cols = range(box.x // width, (box.right - 1) // width + 1)
    samples = 1 if planar else page.samplesperpixel
    for first, data_page in enumerate(level.pages):
        for channel in range(page.samplesperpixel if planar else 1):
            channels = slice(first + channel, first + channel + samples)
            for row in rows:
                top, bottom = row * height, min((row + 1) * height, page.imagelength)
                for col in cols:
                    yield Segment(
                        data_page,
                        (channel * down + row) * across + col,
                        channels,
                        col * width,
                        top,
                        min((col + 1) * width, page.imagewidth),
                        bottom,
                    )


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
