"""Slides of the TIFF family read with tifffile, local or at any fsspec address."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideFormatError, WsiPipelineError
from wsi_pipeline.geometry import Box, Size, SlideInfo
from wsi_pipeline.slides.files import (
    BROKEN_FILE_ERRORS,
    TIFF_MAGIC,
    fingerprint,
    is_remote,
    open_bytes,
    pyramid,
    remote_errors,
    resolution,
    slide_id,
)
from wsi_pipeline.slides.positional import PositionalFile
from wsi_pipeline.slides.raster import RasterSlide
from wsi_pipeline.slides.tiff_pixels import SegmentReader, TiffLevel, check_rgb, fullest_segment, is_plain

_UM_PER_UNIT = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_UM_PER_RESOLUTION_UNIT = {"INCH": 25_400.0, "CENTIMETER": 10_000.0, "MILLIMETER": 1_000.0, "MICROMETER": 1.0}


class TiffReader(RasterSlide):
    """A pyramid in a TIFF file: SVS, Philips, OME-TIFF, NDPI, and classic pyramids of pages or SubIFDs.

    Args:
        address: A local path or an fsspec address (``s3://``, ``https://``, ``memory://`` ...).
        mpp: Resolution of level 0 in µm/px, where the file's is missing or wrong.
        threads: Tiles decoded at the same time; more than one pays where fewer slides are open than there are cores.

    Raises:
        SlideNotFoundError: where there is no such file.
        SlideFormatError: where it is no TIFF, is broken, or is no RGB picture.
        ResolutionError: where `mpp` is nonsense.
    """

    def __init__(self, address: str | Path, mpp: float | None = None, *, threads: int = 1) -> None:
        self._address = str(address)
        self._threads = threads
        self._decode_errors = BROKEN_FILE_ERRORS
        if is_remote(self._address):
            self._decode_errors += remote_errors()
        self._file = open_bytes(self._address)
        try:
            self._open(mpp)
        except WsiPipelineError:
            self._file.close()
            raise
        except self._decode_errors as error:
            self._file.close()
            hint = "The file may be incomplete: copy it again from its source."
            raise SlideFormatError(self._address, f"cannot be opened as TIFF: {error}", hint) from error

    def _open(self, mpp: float | None) -> None:
        if self._file.read(4) not in TIFF_MAGIC:
            raise SlideFormatError(self._address, "is no TIFF file", "Check that it is what its name says.")
        self._file.seek(0)
        # An OME-TIFF may name other files for its other planes: none but this one is opened.
        self._tiff = tifffile.TiffFile(self._file, name=Path(self._address).name, _multifile=False)
        vendor = _vendor(self._address, self._tiff)
        self._levels = _levels(self._address, self._tiff)
        for level in self._levels:
            check_rgb(self._address, level)
        self._segments = SegmentReader(PositionalFile(self._file), self._threads)
        size = self._levels[0].size
        warnings: list[str] = []
        resolved, source = resolution(self._address, mpp, _mpp(self._tiff, vendor), warnings)
        self.info = SlideInfo(
            slide_id=slide_id(self._address),
            path=self._address,
            size=size,
            mpp=resolved,
            mpp_source=source,
            levels=pyramid([level.size for level in self._levels]),
            bounds=Box(0, 0, size.width, size.height),
            vendor=vendor,
            reader="tiff",
            fingerprint=fingerprint(self._file),
            warnings=tuple(warnings),
        )

    @property
    def decodes(self) -> int:
        """Native strips and tiles decoded so far."""
        return self._segments.decodes

    @property
    def plain(self) -> bool:
        """Whether all levels are 8-bit grey or RGB pictures without alpha, in a compression all readers agree on."""
        return all(is_plain(level) for level in self._levels)

    @property
    def leaves_out_tiles(self) -> bool:
        """Whether any level lacks strips or tiles."""
        return any(0 in page.databytecounts for level in self._levels for page in level.pages)

    def fullest_tile(self, level: int) -> Box:
        """The strip or tile with the most compressed bytes, where most is to be seen; in pixels of the level."""
        return fullest_segment(self._levels[level])

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Pixels of one level; see `RasterSlide.read_level`."""
        if self._file.closed:
            raise self.read_error(level, box, "the slide is closed")
        try:
            return self._segments.read(self._levels[level], box)
        except self._decode_errors as error:
            raise self.read_error(level, box, error) from error

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        self._segments.close()
        self._tiff.close()
        self._file.close()


def _vendor(address: str, tiff: tifffile.TiffFile) -> str:
    if tiff.is_scn or tiff.is_bif:
        kind = "Leica SCN" if tiff.is_scn else "Ventana BIF"
        raise SlideFormatError(
            address, f"{kind} is read with OpenSlide only", "Copy it to a local disk and use --reader auto."
        )
    kinds = (("aperio", tiff.is_svs), ("philips", tiff.is_philips), ("hamamatsu", tiff.is_ndpi), ("ome", tiff.is_ome))
    return next((name for name, is_kind in kinds if is_kind), "generic-tiff")


def _levels(address: str, tiff: tifffile.TiffFile) -> list[TiffLevel]:
    """The levels of the first picture, finest first."""
    if tiff.is_svs and tiff.pages.first.is_tiled:
        return _aperio_levels(tiff)
    if not tiff.series:
        raise SlideFormatError(address, "holds no picture", "It may be damaged or cut short: copy it again.")
    series = tiff.series[0]
    levels = [_level(address, level) for level in series.levels]
    # A pyramid of plain pages, which nothing in the file declares as one: each a whole reduction of the first.
    if not (tiff.is_svs or tiff.is_ndpi or tiff.is_ome or tiff.is_philips):
        for other in (level for further in tiff.series[1:] for level in further.levels):
            if other.axes == series.axes and _is_reduction(levels, other):
                levels.append(_level(address, other))
    return levels


def _aperio_levels(tiff: tifffile.TiffFile) -> list[TiffLevel]:
    """All tiled pages, as in OpenSlide: only the pictures beside the slide are in strips. Focal planes are left out."""
    levels: list[TiffLevel] = []
    page: Any
    for page in tiff.pages:
        size = Size(int(page.imagewidth), int(page.imagelength))
        if page.is_tiled and (
            not levels or (size.width < levels[-1].size.width and page.dtype == levels[0].page.dtype)
        ):
            levels.append(TiffLevel(size=size, pages=(page,)))
    return levels


def _is_reduction(levels: list[TiffLevel], other: Any) -> bool:
    width, height = other.keyframe.imagewidth, other.keyframe.imagelength
    base, last = levels[0].size, levels[-1].size
    factor = round(min(base.width / width, base.height / height))
    fits = factor > 1 and abs(base.width / factor - width) <= 1 and abs(base.height / factor - height) <= 1
    return bool(fits and width < last.width and other.dtype == levels[0].page.dtype)


def _level(address: str, series: Any) -> TiffLevel:
    pages = tuple(series.pages)
    # Axes of length 1 say nothing.
    axes = "".join(axis for axis, length in zip(series.axes, series.shape, strict=True) if length > 1 or axis in "YX")
    one_page = len(pages) == 1 and axes in ("YXS", "YX", "CYX", "SYX")
    if any(page is None for page in pages) or not (one_page or (len(pages) == 3 and axes in ("CYX", "SYX"))):
        why = f"holds {len(pages)} pages with the axes {series.axes} ({'x'.join(map(str, series.shape))})"
        raise SlideFormatError(address, f"is no RGB picture: {why}", "Convert it to an 8-bit RGB TIFF.")
    page = pages[0].keyframe
    return TiffLevel(size=Size(int(page.imagewidth), int(page.imagelength)), pages=pages)


def _mpp(tiff: tifffile.TiffFile, vendor: str) -> tuple[float, float] | None:
    """What the file says about its resolution, µm/px along x and y."""
    readers = {"aperio": _aperio_mpp, "ome": _ome_mpp, "philips": _philips_mpp}
    try:
        found = readers[vendor](tiff) if vendor in readers else None
    except (ValueError, KeyError, ET.ParseError):
        found = None
    # Aperio's tags hold the resolution of a screen.
    return found or (None if vendor == "aperio" else _tag_mpp(tiff))


def _aperio_mpp(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    for part in tiff.pages.first.description.split("|")[1:]:
        name, _, value = part.partition("=")
        if name.strip() == "MPP":
            return float(value), float(value)
    return None


def _ome_mpp(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    pixels = ET.fromstring(tiff.ome_metadata or "<none/>").find(".//{*}Pixels")  # noqa: S314  (expat bounds expansion)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib or "PhysicalSizeY" not in pixels.attrib:
        return None
    x, y = (
        float(pixels.attrib[f"PhysicalSize{axis}"]) * _UM_PER_UNIT[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
        for axis in "XY"
    )
    return x, y


def _philips_mpp(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    root = ET.fromstring(tiff.philips_metadata or "<none/>")  # noqa: S314  (expat bounds expansion)
    for attribute in root.iterfind(".//Attribute[@Name='DICOM_PIXEL_SPACING']"):
        y, x = (float(value.strip('"')) * 1e3 for value in (attribute.text or "").split())
        return x, y
    return None


def _tag_mpp(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    tags = tiff.pages.first.tags
    um = _UM_PER_RESOLUTION_UNIT.get(getattr(tags.valueof("ResolutionUnit"), "name", ""))
    x, y = tags.valueof("XResolution"), tags.valueof("YResolution")
    if um is None or not x or not y or 0 in (*x, *y):
        return None
        # In this order of operations the last digit is OpenSlide's.
    return um / (x[0] / x[1]), um / (y[0] / y[1])
