"""Slides read with OpenSlide: SVS, NDPI, MRXS, SCN, BIF, VMS, Philips, Trestle, DICOM, Zeiss, generic TIFF."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideFormatError
from wsi_pipeline.geometry import Box, Size, SlideInfo
from wsi_pipeline.slides.files import TIFF_MAGIC, fingerprint, open_bytes, pyramid, resolution, slide_id
from wsi_pipeline.slides.raster import RasterSlide

_LATTICE = 512
"""Pitch in level pixels at which levels of a fractional downsample are read; see `OpenSlideReader._pieces`."""

_BAND = 256, 1024
"""Fewest and most rows of a level read at once: a band that stays in the processor's cache while it is converted is
up to a third faster than a large one."""


class OpenSlideReader(RasterSlide):
    """A local slide in any format that OpenSlide knows.

    Args:
        path: The slide's file; of a DICOM series any file, of MRXS and VMS the index file.
        mpp: Resolution of level 0 in µm/px, where the file's is missing or wrong.

    Raises:
        SlideNotFoundError: where the file does not exist.
        SlideFormatError: where OpenSlide cannot open it.
        ResolutionError: where `mpp` is nonsense.
    """

    def __init__(self, path: str | Path, mpp: float | None = None) -> None:
        self._path = str(path)
        self._closed = False
        with open_bytes(self._path) as file:
            self._handle: openslide.OpenSlide | None = _open(self._path)
            properties = dict(self._handle.properties)
            # One TIFF file has one fingerprint, whichever reader opens it.
            extra = "" if file.read(4) in TIFF_MAGIC else _other_parts(Path(path), properties)
            digest = fingerprint(file, extra)
        self._downsamples = self._handle.level_downsamples
        self._bands = [_band_rows(properties, level) for level in range(len(self._downsamples))]
        sizes = [Size(*size) for size in self._handle.level_dimensions]
        warnings: list[str] = []
        resolved, source = resolution(self._path, mpp, _mpp(properties), warnings)
        self.info = SlideInfo(
            slide_id=slide_id(self._path),
            path=self._path,
            size=sizes[0],
            mpp=resolved,
            mpp_source=source,
            levels=pyramid(sizes),
            bounds=_bounds(properties, sizes[0], warnings),
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            reader="openslide",
            fingerprint=digest,
            warnings=tuple(warnings),
        )

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Pixels of one level; see `RasterSlide.read_level`."""
        if self._closed:
            raise self.read_error(level, box, "the slide is closed")
        out = np.empty((box.height, box.width, 3), np.uint8)
        try:
            if self._handle is None:
                self._handle = openslide.OpenSlide(self._path)
            for start, piece in self._pieces(level, box):
                # From the lattice's corner to the end of the piece; what lies before the piece is cut off.
                left, top = piece.x - start.x, piece.y - start.y
                size = left + piece.width, top + piece.height
                pixels = _on_white(self._handle.read_region(self._location(level, start), level, size))
                y, x = piece.y - box.y, piece.x - box.x
                out[y : y + piece.height, x : x + piece.width] = pixels[top:, left:]
        except openslide.OpenSlideError as error:
            # A handle that has failed once fails for ever.
            if self._handle is not None:
                self._handle.close()
            self._handle = None
            raise self.read_error(level, box, error) from error
        return out

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        self._closed = True
        if self._handle is not None:
            self._handle.close()
        self._handle = None

    def _location(self, level: int, start: Box) -> tuple[int, int]:
        return round(start.x * self._downsamples[level]), round(start.y * self._downsamples[level])

    def _pieces(self, level: int, box: Box) -> Iterator[tuple[Box, Box]]:
        """What to read `box` in: for each piece where reading starts, and the piece itself.

        OpenSlide takes whole level-0 pixels and interpolates where they do not fall on a pixel of the level. On
        levels of a fractional downsample every read starts on a fixed lattice, so that a pixel always has the
        same value.
        """
        if float(self._downsamples[level]).is_integer():
            # In bands of whole native tiles: OpenSlide, Pillow and numpy each hold a copy of what is read at once.
            rows = self._bands[level]
            for y in range(box.y // rows * rows, box.bottom, rows):
                band = Box(box.x, y, box.width, rows).intersection(box)
                yield band, band
            return
        for y in range(box.y // _LATTICE * _LATTICE, box.bottom, _LATTICE):
            for x in range(box.x // _LATTICE * _LATTICE, box.right, _LATTICE):
                cell = Box(x, y, _LATTICE, _LATTICE)
                yield cell, cell.intersection(box)


def _open(path: str) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideFormatError(path, "is in no slide format that OpenSlide knows", "Check the file.") from error
    except openslide.OpenSlideError as error:
        hint = "The file may be incomplete: copy it again from its source."
        raise SlideFormatError(path, f"OpenSlide cannot open it: {error}", hint) from error


def _band_rows(properties: Mapping[str, str], level: int) -> int:
    """Rows of a level to read at once: whole native tiles, where OpenSlide tells their height."""
    fewest, most = _BAND
    tile = int(properties.get(f"openslide.level[{level}].tile-height", fewest))
    return min(most, tile * -(-fewest // tile)) if tile > 0 else fewest


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    """RGB of an RGBA picture laid on white."""
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return np.asarray(image.convert("RGB"))
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=alpha)
    return np.asarray(white)


def _mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    try:
        return float(properties[openslide.PROPERTY_NAME_MPP_X]), float(properties[openslide.PROPERTY_NAME_MPP_Y])
    except (KeyError, ValueError):
        return None


def _bounds(properties: Mapping[str, str], size: Size, warnings: list[str]) -> Box:
    """The scanned part of level 0; the whole slide where the file says nothing, or nothing sensible."""
    whole = Box(0, 0, size.width, size.height)
    keys = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    if not all(key in properties for key in keys):
        return whole
    try:
        bounds = Box(*(int(properties[key]) for key in keys)).intersection(whole)
    except ValueError:
        bounds = Box(0, 0, 0, 0)
    if bounds.width and bounds.height:
        return bounds
    warnings.append("The file's bounds lie outside the slide; the whole slide is used.")
    return whole


def _other_parts(path: Path, properties: Mapping[str, str]) -> str:
    """What tells the content of the files beside `path` that belong to the slide."""
    folder = path.with_suffix("")
    parts = [str(properties.get(openslide.PROPERTY_NAME_QUICKHASH1))]
    if path.suffix.lower() == ".mrxs" and folder.is_dir():
        parts += sorted(f"{part.name}={part.stat().st_size}" for part in folder.iterdir() if part.is_file())
    return ";".join(parts)


def detect_vendor(path: str) -> str | None:
    """OpenSlide's name for the format of a local file; None where it knows none."""
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return vendor
