"""Write a case of IDC patches as one picture that slide viewers open: a pyramidal OME-TIFF, and its labels."""

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import quoteattr

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.errors import OutputError
from wsi_pipeline.files import SPACE_HINT, atomic_path
from wsi_pipeline.geometry import Box, Scale, Size
from wsi_pipeline.slides.discover import LABELS_SUFFIX
from wsi_pipeline.slides.patch_slide import PatchSlide

TILE_PX = 256

COARSEST_PX = 512
"""Levels are halved until the longer side is no more than this."""

PixelReader = Callable[[Box, int], NDArray[np.uint8]]
"""(box, factor) -> the pixels of a box of the raster at `factor`."""


def assemble_case(address: str | Path, folder: str | Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write the picture and the labels of one case.

    ``<case>.ome.tif`` holds the patches' own pixels, compressed without loss (deflate), white where no patch is.
    ``<case>.labels.ome.tif`` is a mask of the same size and resolution, uint8: 1 on patches with IDC, 0 on patches
    without, 255 where no patch is. Both are tiled pyramids, whose coarser levels are averages in the picture and
    every n-th pixel in the mask.

    Args:
        address: A case's folder, a zip that holds one case, or ``path::case`` for one of several.
        folder: Where to write; made where it does not exist.
        overwrite: Replace pictures that are there.

    Returns:
        The paths of the picture and of the mask.

    Raises:
        SlideNotFoundError, SlideFormatError, DatasetError: where there is no such case; see `PatchSlide`.
        SlideReadError: where a patch cannot be decoded.
        OutputError: where a picture is there already, or cannot be written. Nothing is left half written.
    """
    folder = Path(folder)
    with PatchSlide(address) as slide:
        info = slide.info
        picture, labels = (folder / f"{info.slide_id}{suffix}" for suffix in (".ome.tif", LABELS_SUFFIX))
        for path in (picture, labels):
            if path.exists() and not overwrite:
                raise OutputError(path, "is there already", "Choose another folder, or replace it with --overwrite.")

        def read_labels(box: Box, factor: int) -> NDArray[np.uint8]:
            fine = Box(box.x * factor, box.y * factor, box.width * factor, box.height * factor)
            return slide.label_pixels(fine)[::factor, ::factor]

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(folder, f"cannot be made ({error.strerror or error})", SPACE_HINT) from error
        with ExitStack() as stack:
            parts = [stack.enter_context(atomic_path(path)) for path in (picture, labels)]
            _write_pyramid(parts[0], slide, lambda box, factor: slide.read(box, Scale(factor, factor)), samples=3)
            _write_pyramid(parts[1], slide, read_labels, samples=1)
    return picture, labels


def _write_pyramid(path: Path, slide: PatchSlide, read: PixelReader, *, samples: int) -> None:
    """Write an OME-TIFF whose levels are found as SubIFDs and as pages; see `chain_levels`."""
    size, mpp = slide.info.size, slide.info.require_mpp()
    factors = _factors(size)
    shape = (size.height, size.width, 3) if samples == 3 else (size.height, size.width)
    with tifffile.TiffWriter(path, byteorder="<", ome=False) as writer:
        for factor in factors:
            level = (size.height // factor, size.width // factor, *shape[2:])
            writer.write(
                _tiles(read, Size(level[1], level[0]), factor),
                shape=level,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb" if samples == 3 else "minisblack",
                compression="deflate",
                # Neighbouring pixels of a picture are alike, those of a mask are the same.
                predictor=samples == 3,
                resolution=(1e4 / (mpp.x * factor), 1e4 / (mpp.y * factor)),
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
                subifds=len(factors) - 1 if factor == 1 else 0,
                description=_ome_xml(slide, samples).encode() if factor == 1 else None,
                metadata=None,
                software=False,
            )
    chain_levels(path)


def _factors(size: Size) -> list[int]:
    """1, 2, 4 ... until the picture is small."""
    factors = [1]
    while max(size.width, size.height) / factors[-1] > COARSEST_PX and min(size.width, size.height) >= 2 * factors[-1]:
        factors.append(factors[-1] * 2)
    return factors


def _tiles(read: PixelReader, size: Size, factor: int) -> Iterator[NDArray[np.uint8]]:
    """Whole tiles, row by row; beyond the edge they hold what the slide has there: white, or no label."""
    for y in range(0, size.height, TILE_PX):
        for x in range(0, size.width, TILE_PX):
            yield np.ascontiguousarray(read(Box(x, y, TILE_PX, TILE_PX), factor))


def chain_levels(path: Path) -> None:
    """Let the first page be followed by its SubIFDs.

    OME-TIFF keeps the coarser levels in SubIFDs, where Bio-Formats and tifffile look for them; OpenSlide looks only
    at the chain of pages. Here both lead to the same levels, marked as reduced, which Bio-Formats passes over in
    the chain.
    """
    with tifffile.TiffFile(path) as tiff:
        page, form, order = tiff.pages.first, tiff.tiff, tiff.byteorder
        if not page.subifds:
            return
        first = page.subifds[0]
        count = len(page.tags)
    with path.open("r+b") as file:
        file.seek(page.offset + form.tagnosize + count * form.tagsize)
        file.write(struct.pack(order + form.offsetformat[-1], first))


def _ome_xml(slide: PatchSlide, samples: int) -> str:
    """OME metadata of one 8-bit plane, RGB or grey, the same for the same case."""
    info, mpp = slide.info, slide.info.require_mpp()
    name = info.slide_id if samples == 3 else f"{info.slide_id} labels (1 IDC, 0 no IDC, 255 no patch)"
    identity = uuid5(NAMESPACE_URL, f"{info.fingerprint}:{samples}")
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{schema}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{schema} {schema}/ome.xsd" UUID="urn:uuid:{identity}" Creator="wsi-pipeline">'
        f'<Image ID="Image:0" Name={quoteattr(name)}>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" BigEndian="false" '
        f'SizeX="{info.size.width}" SizeY="{info.size.height}" SizeC="{samples}" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="{mpp.x:g}" PhysicalSizeXUnit="µm" PhysicalSizeY="{mpp.y:g}" PhysicalSizeYUnit="µm">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="{samples}"/><TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    )
