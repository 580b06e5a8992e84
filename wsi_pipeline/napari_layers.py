"""A result in napari: slide, map, spread, tissue and regions, in register, in µm.

napari's own reader of OME-Zarr leaves out where a map begins on its slide; here every layer carries its place.
World coordinates are µm from the centre of the slide's first pixel, as in the OME-Zarr map. napari is not imported
here: layers are given as (data, attributes, kind), and a viewer is whatever has ``add_image`` and its like.
"""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.export.options import ExportOptions
from wsi_pipeline.export.results import Result
from wsi_pipeline.geometry import Box, Level, Mpp
from wsi_pipeline.grid import Grid
from wsi_pipeline.render.maps import PROBABILITY, SPREAD, Tint

if TYPE_CHECKING:
    from wsi_pipeline.slides import Slide

LayerData = tuple[Any, dict[str, Any], str]
"""Data, attributes and kind of a layer, the form that napari's plugins use."""

_CHUNK_PX = 1024
_UNITS = ("µm", "µm")


def add_result(
    viewer: Any,
    folder: str | Path,
    *,
    threshold: float | None = None,
    smooth_um: float | None = None,
    slide: bool = True,
) -> list[Any]:
    """Add a finished result to a napari viewer, with a scale bar.

    Args:
        viewer: A ``napari.Viewer``.
        folder: A slide's result folder.
        threshold: Probability from which a cell is in a region; None for the run's.
        smooth_um: Smoothing of the outlines, µm; None for the run's.
        slide: Whether to show the slide; without it, the slide's file is not needed.

    Returns:
        The new layers, lowest first.

    Raises:
        ResultsMismatchError, OutputError: where the result is not finished or damaged.
        SlideNotFoundError: where the slide is not where the run found it.
    """
    layers = result_layers(folder, threshold=threshold, smooth_um=smooth_um, slide=slide)
    added = [getattr(viewer, f"add_{kind}")(data, **attributes) for data, attributes, kind in layers]
    scale_bar, text = _overlays(viewer)
    scale_bar.visible = True
    text.text = RESEARCH_USE
    text.visible = True
    return added


def _overlays(viewer: Any) -> tuple[Any, Any]:
    """Scale bar and text, which napari 0.9 has moved."""
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", None)
    if overlays is None:
        return viewer.scale_bar, viewer.text_overlay
    return overlays.scale_bar, overlays.text


def result_layers(
    folder: str | Path, *, threshold: float | None = None, smooth_um: float | None = None, slide: bool = True
) -> list[LayerData]:
    """The layers of a finished result, lowest first: slide, tissue, probability, spread (if any), regions.

    Arguments and errors are those of `add_result`. The slide is read lazily, tile by tile, through dask.
    """
    result = Result.open(Path(folder), ExportOptions(threshold=threshold, smooth_um=smooth_um))
    heatmap = result.heatmap
    name, place = result.summary.slide, _place_of_cells(heatmap.grid)
    layers = [slide_layer(result.open_slide(), name)] if slide else []
    tissue = np.where(heatmap.unread(), ngff.UNREAD_LABEL, heatmap.tissue).astype(np.uint8)
    layers.append((tissue, place | {"name": f"{name}: tissue", "opacity": 0.3, "visible": False}, "labels"))
    layers.append(_map_layer(result.probability, place, f"{name}: p({result.class_name})", PROBABILITY))
    if result.spread is not None:
        hidden = _map_layer(result.spread, place, f"{name}: spread of p({result.class_name})", SPREAD)
        hidden[1]["visible"] = False
        layers.append(hidden)
    layers.append(_region_layer(result, name))
    return layers


def slide_layer(slide: "Slide", name: str) -> LayerData:
    """A slide as a multiscale RGB layer that is read lazily.

    Args:
        slide: An open slide whose resolution is known; it stays open as long as the layer lives.
        name: Name of the layer.

    Raises:
        ResolutionError: where the slide's resolution is not known.
    """
    import dask.array as da

    mpp = slide.info.require_mpp()
    lock = Lock()  # a slide is read by one thread at a time, whichever level it is
    levels = [
        da.from_array(  # type: ignore[no-untyped-call]
            _LevelPixels(slide, level),
            chunks=(_CHUNK_PX, _CHUNK_PX, 3),
            lock=lock,
            name=False,
            meta=np.empty((0, 0, 0), np.uint8),
        )
        for level in slide.info.levels
    ]
    attributes = {
        "name": name,
        "rgb": True,
        "multiscale": True,
        "scale": (mpp.y, mpp.x),
        "units": _UNITS,
        "contrast_limits": (0, 255),
    }
    return levels, attributes, "image"


class _LevelPixels:
    """One level of a slide as dask takes arrays: a shape, and what lies in a slice."""

    ndim, dtype = 3, np.dtype(np.uint8)

    def __init__(self, slide: "Slide", level: Level) -> None:
        self._slide, self._level = slide, level
        self.shape = (level.size.height, level.size.width, 3)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        (top, bottom, _), (left, right, _) = (key[axis].indices(self.shape[axis]) for axis in (0, 1))
        box = Box(left, top, max(0, right - left), max(0, bottom - top))
        return self._slide.read(box, self._level.scale)[..., key[2]]


def _place_of_cells(grid: Grid) -> dict[str, Any]:
    """Scale, and where the centre of the first cell lies."""
    shift = [
        start * mpp + (grid.cell_um - mpp) / 2
        for start, mpp in ((grid.extent.y, grid.mpp.y), (grid.extent.x, grid.mpp.x))
    ]
    return {"scale": (grid.cell_um, grid.cell_um), "translate": tuple(shift), "units": _UNITS}


def _map_layer(values: NDArray[np.float32], place: dict[str, Any], name: str, tint: Tint) -> LayerData:
    """A map in the colours of this package's pictures: the lower a value, the more the tissue shows through."""
    attributes = place | {
        "name": name,
        "colormap": tint.rgba(),
        "contrast_limits": (0.0, tint.top),
        "blending": "translucent",
        "interpolation2d": "nearest",
    }
    return values, attributes, "image"


def _region_layer(result: Result, name: str) -> LayerData:
    """Every outline, holes too, as a closed path with its region's measurements."""
    mpp: Mpp = result.heatmap.grid.mpp
    paths: list[NDArray[np.float64]] = []
    features: dict[str, list[Any]] = {
        "region": [],
        "hole": [],
        "area_um2": [],
        "mean_probability": [],
    }
    for region in result.regions:
        for number, ring in enumerate(shapely.get_rings(region.polygon)):
            paths.append(shapely.get_coordinates(ring)[:, ::-1])
            for key, value in (
                ("region", region.number),
                ("hole", number > 0),
                ("area_um2", region.area_um2),
                ("mean_probability", region.mean_probability),
            ):
                features[key].append(value)
    attributes = {
        "name": f"{name}: {result.class_name} regions at {result.threshold:.3g}",
        "shape_type": "path",
        "scale": (mpp.y, mpp.x),
        # Corners of pixels, while napari counts from the pixels' centres.
        "translate": (-mpp.y / 2, -mpp.x / 2),
        "units": _UNITS,
        "edge_color": "black",
        "edge_width": _line_px(result.heatmap.grid),
        "face_color": "transparent",
        "opacity": 1.0,
        "features": features,
        "ndim": 2,
    }
    return paths or None, attributes, "shapes"


def _line_px(grid: Grid) -> float:
    """Width of outlines in level-0 pixels: a tenth of a cell, but seen on the whole slide."""
    longest = max(grid.extent.width, grid.extent.height)
    return max(min(grid.step) / 10, longest / 1500)
