"""Regions and cells as GeoJSON that QuPath reads: stable ids, stable bytes, nothing it refuses.

QuPath 0.6 and later refuse a whole file for one invalid geometry, and read object type, name, class and
measurements from ``properties`` only. Coordinates are those of QuPath's image, which is the slide cropped to its
bounds.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.files import atomic_path
from wsi_pipeline.grid import Grid
from wsi_pipeline.outlines import SNAP_DECIMALS
from wsi_pipeline.regions import Region

IDC_COLOR = (200, 0, 0)
"""Red, green, blue of the class in QuPath (a name QuPath already has keeps QuPath's own colour)."""

_REGIONS_AT_ONCE = 2048
"""Regions whose outlines are held as Python's numbers."""

_GZIP_LEVEL = 4
"""Beyond this level, cells take much longer to pack and become hardly smaller."""


def write_regions(
    path: Path,
    regions: Sequence[Region],
    grid: Grid,
    *,
    class_name: str = "IDC",
    color: tuple[int, int, int] = IDC_COLOR,
    image_px: tuple[int, int] | None = None,
) -> None:
    """Write regions as locked QuPath annotations, whole or not at all; one line a region.

    Args:
        path: The ``.geojson`` file.
        regions: As `find_regions` gives them; none gives a valid, empty collection.
        grid: The grid they were found on; its extent is where QuPath's image starts.
        class_name: QuPath class; a ":" in it, which QuPath reads as a subclass, becomes "-".
        color: Red, green, blue of the class, 0 to 255.
        image_px: Width and height of QuPath's image, to be stated in the file; see `_collection`.

    Raises:
        OutputError: where the file cannot be written.
    """
    features = region_features(regions, grid, class_name=class_name, color=color)
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
        file.writelines(_collection((encode(feature) for feature in features), image_px))


def region_features(
    regions: Sequence[Region], grid: Grid, *, class_name: str = "IDC", color: tuple[int, int, int] = IDC_COLOR
) -> Iterator[dict[str, Any]]:
    """Each region as a GeoJSON feature, see `write_regions`. A region without area is left out."""
    name = _plain(class_name)
    geometries = _geometries(regions, grid)
    for region, geometry in zip(regions, geometries, strict=True):
        if geometry is None:
            continue
        measured = {
            f"Mean p({name})": round(region.mean_probability, 6),
            f"Max p({name})": round(region.max_probability, 6),
            "Area um2": round(region.area_um2, 3),
            "Cells": region.cells,
        }
        if region.mean_spread is not None:
            measured[f"Mean spread of p({name})"] = round(region.mean_spread, 6)
        yield {
            "type": "Feature",
            "id": region.id,
            "geometry": geometry,
            "properties": {
                "objectType": "annotation",
                "name": f"{name} region {region.number}",
                "isLocked": True,
                "classification": {"name": name, "color": list(color)},
                "measurements": measured,
            },
        }


def write_cells(
    path: Path,
    probability: NDArray[np.float32],
    grid: Grid,
    *,
    namespace: str,
    class_name: str = "IDC",
    spread: NDArray[np.float32] | None = None,
    image_px: tuple[int, int] | None = None,
) -> None:
    """Write every visited cell as a QuPath tile with its probability, for QuPath's measurement maps.

    The file is streamed, so memory stays flat, and its bytes depend on the arguments alone.

    Args:
        path: The ``.geojson.gz`` file.
        probability: float32 [rows, cols], NaN where not visited; such cells are left out.
        grid: The cells of the map.
        namespace: Digest of what the result depends on; ids are made from it and the cell's place.
        class_name: Class in the measurement's name, ``p(IDC)``.
        spread: float32 [rows, cols], a second measurement, ``spread of p(IDC)``.
        image_px: Width and height of QuPath's image, to be stated in the file; see `_collection`.

    Raises:
        OutputError: where the file cannot be written.
    """
    with (
        atomic_path(path) as part,
        part.open("wb") as raw,
        # No name and no time in the header: the same cells give the same bytes.
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as packed,
    ):
        names = [f"p({_plain(class_name)})", f"spread of p({_plain(class_name)})"]
        measured = {names[0]: probability} if spread is None else dict(zip(names, (probability, spread), strict=True))
        for text in _collection(_cell_batches(measured, grid, namespace), image_px):
            packed.write(text.encode())


def _collection(batches: Iterable[str], image_px: tuple[int, int] | None) -> Iterator[str]:
    """The text of a feature collection; each batch is one or more features, parted by commas.

    A file that leaves its result folder states the size of its image, so that a script can tell whether it is of
    another slide of the same name. It stands in the first line, where it is found without reading the rest. QuPath
    takes a collection's `features` and passes over whatever else it holds.
    """
    size = "" if image_px is None else f'"image_px":[{image_px[0]},{image_px[1]}],'
    yield f'{{"type":"FeatureCollection",{size}"features":['
    separator = "\n"
    for batch in batches:
        yield separator + batch
        separator = ",\n"
    yield "\n]}\n"


def _cell_batches(measured: Mapping[str, NDArray[np.float32]], grid: Grid, namespace: str) -> Iterator[str]:
    """The cells of each row as text. Filled-in templates, because a million dicts take half a minute."""
    digest = sha256(namespace.encode()).hexdigest()
    # A UUID of version 8 (RFC 9562): its last group counts the cell, the others are the namespace's.
    identity = f"{digest[:8]}-{digest[8:12]}-8{digest[12:15]}-8{digest[15:18]}-"
    numbers = ",".join(f"{json.dumps(name).replace('%', '%%')}:%.6g" for name in measured)
    template = (
        f'{{"type":"Feature","id":"{identity}%012x","geometry":{{"type":"Polygon","coordinates":'
        "[[[%d,%d],[%d,%d],[%d,%d],[%d,%d],[%d,%d]]]},"
        f'"properties":{{"objectType":"tile","isLocked":true,"measurements":{{{numbers}}}}}}}'
    )
    lefts, tops = (grid.col_edges - grid.extent.x).tolist(), (grid.row_edges - grid.extent.y).tolist()
    for row, values in enumerate(zip(*measured.values(), strict=True)):
        cols = np.flatnonzero(~np.isnan(values[0]))
        if not len(cols):
            continue
        top, bottom, first = tops[row], tops[row + 1], row * len(values[0])
        yield ",\n".join(
            template % (first + col, x, top, right, top, right, bottom, x, bottom, x, top, *scores)
            for col, scores, x, right in (
                (col, scores, lefts[col], lefts[col + 1])
                for col, *scores in zip(cols.tolist(), *(line[cols].tolist() for line in values), strict=True)
            )
        )


def _geometries(regions: Sequence[Region], grid: Grid) -> Iterator[dict[str, Any] | None]:
    """A GeoJSON geometry of each region in QuPath's frame, None where nothing with an area is left of it."""
    shapes = np.array([region.polygon for region in regions], dtype=object)
    # Adding zero turns -0.0, which would be written so, into 0.0.
    shapes = shapely.transform(shapes, lambda xy: np.round(xy - grid.origin, SNAP_DECIMALS) + 0.0)
    for n in np.flatnonzero(~shapely.is_valid(shapes) | (shapely.area(shapes) == 0)):
        shapes[n] = _mend(shapes[n])
    places = shapely.get_coordinates(shapes)
    whole = bool((places == np.rint(places)).all())  # cell edges, the usual case: shorter without ".0"
    del places
    # In parts, for numbers take several times more memory as Python's than in shapes.
    for start in range(0, len(shapes), _REGIONS_AT_ONCE):
        yield from _as_json(shapes[start : start + _REGIONS_AT_ONCE], whole=whole)


def _as_json(shapes: NDArray[np.object_], *, whole: bool) -> Iterator[dict[str, Any] | None]:
    """Polygons as GeoJSON, their coordinates as whole numbers or not."""
    parts, region_of = shapely.get_parts(shapely.orient_polygons(shapes), return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    numbers = xy.astype(np.int64).tolist() if whole else xy.tolist()
    polygons = _group(_group(numbers, ring_of, len(rings)), part_of, len(parts))
    for polygon in _group(polygons, region_of, len(shapes)):
        yield _geometry(polygon)


def _mend(polygon: shapely.Geometry) -> shapely.Geometry:
    """The polygons that an invalid one was meant to be, valid on the snapping raster; empty where there are none."""
    parts = shapely.get_parts(shapely.make_valid(polygon))
    areal = shapely.union_all(parts[shapely.area(parts) > 0])
    return shapely.set_precision(areal, 10.0**-SNAP_DECIMALS)


def _group(items: list[Any], owner: NDArray[np.intp], count: int) -> list[list[Any]]:
    """Consecutive items of the same owner together; one list for each of `count` owners, empty where it has none."""
    bounds = np.searchsorted(owner, np.arange(count + 1)).tolist()
    return [items[low:high] for low, high in pairwise(bounds)]


def _geometry(polygons: list[Any]) -> dict[str, Any] | None:
    if not polygons:
        return None
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _plain(class_name: str) -> str:
    return class_name.replace(":", "-")
