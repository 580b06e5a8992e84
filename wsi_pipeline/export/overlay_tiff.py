"""The tinted and outlined slide as an RGB pyramid that every slide viewer opens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import shapely
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.export.options import DEFAULT_OVERLAY_UM
from wsi_pipeline.export.results import Result
from wsi_pipeline.files import atomic_path
from wsi_pipeline.geometry import Box, Mpp, Scale, Size
from wsi_pipeline.grid import Grid
from wsi_pipeline.outlines import lines_to_draw

if TYPE_CHECKING:
    from wsi_pipeline.slides import Slide

TILE_PX = 256
COARSEST_PX = 512
"""Levels are halved until the longer side is no more than this."""

BAND_TILES = 16
"""Tiles that are read from the slide at once, side by side."""

JPEG_QUALITY = 90
_LINE_PX = 2
_MARGIN_PX = 8
"""Read and drawn around a band, so that lines do not stop short at its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """One level of the pyramid."""

    size: Size
    scale: Scale
    """Level-0 pixels of the slide per pixel."""
    corner: tuple[int, int]
    """(x, y) of its first pixel in the raster at `scale`."""


def write_overlay(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.overlay.ome.tif``: tint and outlines over the slide, tiled, JPEG, levels halved.

    It shows what QuPath shows: the slide inside its bounds. Its levels are found both as SubIFDs, where OME-TIFF keeps
    them, and as pages, where OpenSlide looks. Outlines are two pixels wide at every level.

    Raises:
        SlideNotFoundError, ResultsMismatchError: where the slide is not there any more, or is another.
        SlideReadError: where it cannot be read.
        OutputError: where the file cannot be written.
    """
    import tifffile

    from wsi_pipeline.slides.assemble import chain_levels

    path = folder / f"{name}.overlay.ome.tif"
    grid = result.heatmap.grid
    with result.open_slide() as slide, atomic_path(path) as part:
        levels = _plan(grid, result.options.overlay_um)
        painter = _Painter(slide, result)
        count = sum(_tile_count(level.size) for level in levels)
        big = sum(level.size.width * level.size.height for level in levels) > 2**31
        with (
            tifffile.TiffWriter(part, byteorder="<", ome=False, bigtiff=big) as tiff,
            tqdm(total=count, desc=f"{name} overlay"[:40], unit="tile", disable=None, leave=False) as bar,
        ):
            for number, level in enumerate(levels):
                um = level.scale.x * grid.mpp.x, level.scale.y * grid.mpp.y
                tiff.write(
                    _watched(painter.tiles(level), bar),
                    shape=(level.size.height, level.size.width, 3),
                    dtype=np.uint8,
                    tile=(TILE_PX, TILE_PX),
                    photometric="rgb",
                    compression="jpeg",
                    compressionargs={"level": JPEG_QUALITY},
                    resolution=(1e4 / um[0], 1e4 / um[1]),
                    resolutionunit="CENTIMETER",
                    subfiletype=int(number > 0),
                    subifds=0 if number else len(levels) - 1,
                    description=None if number else _ome_xml(result, level, Mpp(*um)).encode(),
                    metadata=None,
                    software=False,
                )
        chain_levels(part)
    return [path]


def _plan(grid: Grid, pixel_um: float | None) -> list[_Level]:
    """The levels, finest first. Pixels are square, and never smaller than the slide's own."""
    own_um = max(grid.mpp.x, grid.mpp.y)
    um = max(pixel_um or DEFAULT_OVERLAY_UM, own_um)
    levels: list[_Level] = []
    while not levels or max(levels[-1].size.width, levels[-1].size.height) > COARSEST_PX:
        scale = Scale.to_mpp(grid.mpp, um * 2 ** len(levels))
        box = grid.extent
        width, height = max(1, int(box.width / scale.x)), max(1, int(box.height / scale.y))
        corner = round(box.x / scale.x), round(box.y / scale.y)
        levels.append(_Level(size=Size(width, height), scale=scale, corner=corner))
    return levels


def _tile_count(size: Size) -> int:
    return -(-size.width // TILE_PX) * -(-size.height // TILE_PX)


def _watched(tiles: Iterator[NDArray[np.uint8]], bar: Any) -> Iterator[NDArray[np.uint8]]:
    for tile in tiles:
        yield tile
        bar.update()


class _Painter:
    """Slide, tint and outlines of any box at any scale."""

    def __init__(self, slide: "Slide", result: Result) -> None:
        self._slide, self._probability, self._grid = slide, result.probability, result.heatmap.grid
        self._shapes = np.array([region.polygon for region in result.regions], dtype=object)

    def tiles(self, level: _Level) -> Iterator[NDArray[np.uint8]]:
        """Whole tiles, row by row; beyond the edge they hold what the slide has there."""
        lines = lines_to_draw(self._shapes, min(level.scale.x, level.scale.y))
        tree = shapely.STRtree(lines)
        across = -(-level.size.width // TILE_PX)
        for top in range(0, level.size.height, TILE_PX):
            for first in range(0, across, BAND_TILES):
                count = min(BAND_TILES, across - first)
                x, y = level.corner[0] + first * TILE_PX, level.corner[1] + top
                band = self._paint(Box(x, y, count * TILE_PX, TILE_PX), level.scale, lines, tree)
                for n in range(count):
                    yield np.ascontiguousarray(band[:, n * TILE_PX : (n + 1) * TILE_PX])

    def _paint(self, box: Box, scale: Scale, lines: NDArray[np.object_], tree: shapely.STRtree) -> NDArray[np.uint8]:
        """RGB [box.height, box.width, 3] of a box of the raster at `scale`."""
        from wsi_pipeline.render.maps import PROBABILITY

        pixels = self._slide.read(box, scale)
        pixels = PROBABILITY.over(pixels, self._cells_under(box, scale))
        wide = _MARGIN_PX * scale.x
        x0, y0, x1, y1 = box.x * scale.x, box.y * scale.y, box.right * scale.x, box.bottom * scale.y
        hit = tree.query(shapely.box(x0 - wide, y0 - wide, x1 + wide, y1 + wide))
        return _draw_lines(pixels, [(shapely.get_coordinates(lines[n]) - (x0, y0)) / (scale.x, scale.y) for n in hit])

    def _cells_under(self, box: Box, scale: Scale) -> NDArray[np.float32]:
        """[box.height, box.width]: probability of the cell under the centre of each pixel, NaN where there is none."""
        grid = self._grid
        found = []
        for edges, first, count, step in (
            (grid.row_edges, box.y, box.height, scale.y),
            (grid.col_edges, box.x, box.width, scale.x),
        ):
            index = np.searchsorted(edges, (first + np.arange(count) + 0.5) * step, side="right") - 1
            found.append(np.where(index < len(edges) - 1, index, -1))
        rows, cols = found
        values = self._probability[np.ix_(np.maximum(rows, 0), np.maximum(cols, 0))]
        return np.where((rows >= 0)[:, None] & (cols >= 0)[None, :], values, np.float32(np.nan))


def _draw_lines(pixels: NDArray[np.uint8], paths: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Outlines that show on every ground: dark with a white edge."""
    if not paths:
        return pixels
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for color, width in (((255, 255, 255), _LINE_PX * 2), ((26, 26, 26), _LINE_PX)):
        for path in paths:
            # Pillow counts from the middle of pixels.
            draw.line([(x - 0.5, y - 0.5) for x, y in path.tolist()], fill=color, width=width, joint="curve")
    return np.asarray(picture)


def _ome_xml(result: Result, level: _Level, um: Mpp) -> str:
    """OME metadata of one RGB plane."""
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    summary = result.summary
    name = f"{summary.slide}, p({result.class_name}) by {summary.model}"
    left, top = level.corner[0] * um.x, level.corner[1] * um.y
    about = f"{RESEARCH_USE}. Outlines at threshold {result.threshold:.4g} ({result.threshold_source})."
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{schema}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{schema} {schema}/ome.xsd" Creator="wsi-pipeline">'
        f'<Image ID="Image:0" Name={quoteattr(name)}>'
        f"<Description>{escape(about)}</Description>"
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" BigEndian="false" '
        f'SizeX="{level.size.width}" SizeY="{level.size.height}" SizeC="3" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="{um.x!r}" PhysicalSizeXUnit="µm" PhysicalSizeY="{um.y!r}" PhysicalSizeYUnit="µm">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
        f'<Plane TheZ="0" TheC="0" TheT="0" PositionX="{left!r}" PositionXUnit="µm" '
        f'PositionY="{top!r}" PositionYUnit="µm"/>'
        "</Pixels></Image></OME>"
    )
