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
from dataclasses import dataclass
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

BRIGHTEST_SPREAD = 0.2
"""Standard deviation of a probability that is shown as the highest: few cells lie above. (One that is anything between
0 and 1, equally often, has 0.29.)"""

_COLOUR_WANTED, _COLOUR_OTHER, _COLOUR_SPREAD = "FF0000", "808080", "00FFFF"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel as viewers show it."""

    label: str
    color: str = _COLOUR_OTHER
    """RGB, hexadecimal."""
    active: bool = False
    """Whether it is shown when the image is opened."""
    brightest: float = 1.0
    """Value shown at full brightness; 0 is black."""


def map_channels(class_names: Sequence[str], positive: str, *, spread: bool, unrefined: bool) -> list[Channel]:
    """The channels of a heatmap in their order: the classes, then what further layers it has.

    Args:
        class_names: One channel each.
        positive: The class that the map is about: shown first, in red.
        spread: Whether there is a layer of the spread of its probability.
        unrefined: Whether there is a layer of its probability before the second stage.
    """
    channels = [Channel(label=channel_name(name)) for name in class_names]
    number = list(class_names).index(positive)
    channels[number] = Channel(label=channel_name(positive), color=_COLOUR_WANTED, active=True)
    if spread:
        label = f"spread of {channel_name(positive)}"
        channels.append(Channel(label=label, color=_COLOUR_SPREAD, brightest=BRIGHTEST_SPREAD))
    if unrefined:
        channels.append(Channel(label=f"{channel_name(positive)} before context"))
    return channels


def image_attributes(ngff: str, name: str, grid: Grid, channels: Sequence[Channel]) -> dict[str, Any]:
    """Attributes of the heatmap's group.

    Args:
        ngff: ``0.5`` or ``0.4``.
        name: Name of the image for people.
        grid: Its cells.
        channels: What it holds.
    """
    shown = [
        {
            "label": channel.label,
            "color": channel.color,
            "active": channel.active,
            "window": {"min": 0, "max": 1, "start": 0, "end": channel.brightest},
        }
        for channel in channels
    ]
    return _wrap(ngff, {"multiscales": [_multiscale(ngff, name, grid, "mean")], "omero": {"channels": shown}})


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


def ome_xml(name: str, grid: Grid, channels: Sequence[Channel]) -> bytes:
    """The OME-XML from which Bio-Formats, and so QuPath, takes the pixel size of an NGFF 0.4 image. UTF-8."""
    rows, cols = grid.shape
    root = ET.Element("OME", {"xmlns": _OME_NAMESPACE, "Creator": "wsi-pipeline"})
    image = ET.SubElement(root, "Image", {"ID": "Image:0", "Name": name})
    # Bio-Formats reads the axes c, y, x as X, Y, C with T and Z of one behind.
    sizes = {"SizeX": cols, "SizeY": rows, "SizeC": len(channels), "SizeT": 1, "SizeZ": 1}
    pixels = ET.SubElement(
        image,
        "Pixels",
        {"ID": "Pixels:0", "DimensionOrder": "XYCTZ", "Type": "float", "BigEndian": "false"}
        | {axis: str(size) for axis, size in sizes.items()}
        | {f"PhysicalSize{axis}": repr(grid.cell_um) for axis in "XY"}
        | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
    )
    for number, channel in enumerate(channels):
        named = {"ID": f"Channel:0:{number}", "Name": channel.label, "SamplesPerPixel": "1"}
        ET.SubElement(pixels, "Channel", named | {"Color": str(_signed_rgba(channel.color))})
    ET.SubElement(pixels, "MetadataOnly")
    text: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text


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
