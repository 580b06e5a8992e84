"""What an OME-Zarr image says about itself, and how its levels are made. Pure: arrays in, JSON and arrays out.

Coordinates are micrometres from the centre of the slide's first level-0 pixel, the pixel-centre convention of NGFF.
A heatmap cell is one pixel of the heatmap. Along one axis, with the grid's origin o and level-0 pixels of p µm, cell
k covers level-0 pixels o + k * cell_um / p up to, not including, o + (k + 1) * cell_um / p. The centre of those
pixels is o * p + (k + 1/2) * cell_um - p / 2. Pixel k of the level with factor f stands for f cells, so

    scale = f * cell_um,    translation = o * p + (f * cell_um - p) / 2.

Cells are square in µm, so the scale is the same along both axes even where pixels are not square; the translation is
not. For 50 px cells at 0.25 µm/px and no offset: scale 12.5, translation 6.125.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.grid import Grid

MAX_TOP_LEVEL_PX = 256
"""Levels are added until the longer side is at most this."""

TISSUE_LABELS = {
    0: ("no tissue", (0, 0, 0, 0)),
    1: ("tissue", (0, 158, 115, 96)),
    255: ("tissue, could not be read", (128, 128, 128, 255)),
}
"""Values of the tissue label: name and colour (RGBA)."""

UNREAD_LABEL = 255

_COLOUR_WANTED, _COLOUR_OTHER = "FF0000", "808080"
_AXES = [
    {"name": "c", "type": "channel"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
_OME_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """(rows, cols) of every level, finest first; each is half the one before, rounded up."""
    shapes = [shape]
    while max(shapes[-1]) > MAX_TOP_LEVEL_PX:
        rows, cols = shapes[-1]
        shapes.append(((rows + 1) // 2, (cols + 1) // 2))
    return shapes


def halve_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each 2 x 2 square over the values that are not NaN; NaN where none is.

    Args:
        values: float32, [rows, cols].

    Returns:
        float32, [ceil(rows / 2), ceil(cols / 2)].
    """
    shape = (values.shape[0] + 1) // 2, (values.shape[1] + 1) // 2
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for part in _quarters(values):
        here = slice(part.shape[0]), slice(part.shape[1])
        known = ~np.isnan(part)
        total[here] += np.where(known, part, 0)
        count[here] += known
    return np.divide(total, count, out=np.full(shape, np.nan, np.float32), where=count > 0)


def halve_max(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Highest label of each 2 x 2 square: tissue before glass, and a gap in the reading never disappears.

    Args:
        labels: uint8, [rows, cols].

    Returns:
        uint8, [ceil(rows / 2), ceil(cols / 2)].
    """
    highest = np.zeros(((labels.shape[0] + 1) // 2, (labels.shape[1] + 1) // 2), np.uint8)
    for part in _quarters(labels):
        here = highest[: part.shape[0], : part.shape[1]]
        np.maximum(here, part, out=here)
    return highest


def _quarters(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The four views that hold the same corner of every 2 x 2 square; those of an odd edge are one shorter."""
    for row in (0, 1):
        for col in (0, 1):
            yield values[row::2, col::2]


def image_attributes(ngff: str, name: str, grid: Grid, class_names: Sequence[str]) -> dict[str, Any]:
    """Attributes of the heatmap's group.

    Args:
        ngff: ``0.5`` or ``0.4``.
        name: Name of the image for people.
        grid: Its cells.
        class_names: One channel each; the last one is shown first, in red.
    """
    channels = [
        {
            "label": channel_name(label),
            "color": _COLOUR_WANTED if wanted else _COLOUR_OTHER,
            "active": wanted,
            "window": {"min": 0, "max": 1, "start": 0, "end": 1},
        }
        for label, wanted in _classes(class_names)
    ]
    return _wrap(ngff, {"multiscales": [_multiscale(ngff, name, grid, "mean")], "omero": {"channels": channels}})


def tissue_attributes(ngff: str, grid: Grid) -> dict[str, Any]:
    """Attributes of the group of the tissue label."""
    label: dict[str, Any] = {
        "source": {"image": "../../"},
        "colors": [{"label-value": value, "rgba": list(rgba)} for value, (_, rgba) in TISSUE_LABELS.items()],
        "properties": [{"label-value": value, "class": name} for value, (name, _) in TISSUE_LABELS.items()],
    }
    if ngff == "0.4":
        label["version"] = ngff
    return _wrap(ngff, {"multiscales": [_multiscale(ngff, "tissue", grid, "max")], "image-label": label})


def labels_attributes(ngff: str) -> dict[str, Any]:
    """Attributes of the group that lists the labels."""
    return _wrap(ngff, {"labels": ["tissue"]})


def channel_name(class_name: str) -> str:
    """What viewers call the channel of a class."""
    return f"p({class_name})"


def ome_xml(name: str, grid: Grid, class_names: Sequence[str]) -> bytes:
    """The OME-XML from which Bio-Formats, and so QuPath, takes the pixel size of an NGFF 0.4 image. UTF-8."""
    rows, cols = grid.shape
    root = ET.Element("OME", {"xmlns": _OME_NAMESPACE, "Creator": "wsi-pipeline"})
    image = ET.SubElement(root, "Image", {"ID": "Image:0", "Name": name})
    # Bio-Formats reads the axes c, y, x as X, Y, C with T and Z of one behind.
    sizes = {"SizeX": cols, "SizeY": rows, "SizeC": len(class_names), "SizeT": 1, "SizeZ": 1}
    pixels = ET.SubElement(
        image,
        "Pixels",
        {"ID": "Pixels:0", "DimensionOrder": "XYCTZ", "Type": "float", "BigEndian": "false"}
        | {axis: str(size) for axis, size in sizes.items()}
        | {f"PhysicalSize{axis}": repr(grid.cell_um) for axis in "XY"}
        | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
    )
    for number, (label, wanted) in enumerate(_classes(class_names)):
        colour = {"Color": str(_signed_rgba(_COLOUR_WANTED if wanted else _COLOUR_OTHER))}
        channel = {"ID": f"Channel:0:{number}", "Name": channel_name(label), "SamplesPerPixel": "1"}
        ET.SubElement(pixels, "Channel", channel | colour)
    ET.SubElement(pixels, "MetadataOnly")
    text: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text


def _classes(class_names: Sequence[str]) -> list[tuple[str, bool]]:
    """Each class, and whether it is the one the map is looked at for: the last."""
    return [(label, number == len(class_names) - 1) for number, label in enumerate(class_names)]


def _signed_rgba(rgb: str) -> int:
    """An opaque colour as OME-XML writes it: RGBA as a signed 32-bit number."""
    return int.from_bytes(bytes.fromhex(rgb + "FF"), "big", signed=True)


def _multiscale(ngff: str, name: str, grid: Grid, downscaling: str) -> dict[str, Any]:
    corner_um = [grid.extent.y * grid.mpp.y, grid.extent.x * grid.mpp.x]
    datasets = []
    for level in range(len(level_shapes(grid.shape))):
        side_um = grid.cell_um * 2**level
        shift = [start + (side_um - mpp) / 2 for start, mpp in zip(corner_um, (grid.mpp.y, grid.mpp.x), strict=True)]
        transforms = [
            {"type": "scale", "scale": [1.0, side_um, side_um]},
            {"type": "translation", "translation": [0.0, *shift]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    version = {"version": ngff} if ngff == "0.4" else {}
    return {**version, "name": name, "type": downscaling, "axes": _AXES, "datasets": datasets}


def _wrap(ngff: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """From 0.5 on, everything stands under one key, with the version."""
    return attributes if ngff == "0.4" else {"ome": {"version": ngff, **attributes}}
