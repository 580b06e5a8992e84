"""What a person draws on a result: QuPath GeoJSON beside it, checked, written whole, never overwritten unseen.

The file is ``annotations.geojson`` in the slide's folder. QuPath takes it, and so does ``wsi-pipeline extract``.
"""

import json
import math
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.extraction.coverage import polygons_of
from wsi_pipeline.files import atomic_path
from wsi_pipeline.geometry import Size
from wsi_pipeline.viewer.foreign import NO_AREA, content, count_points, features_by_content, others, places
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.results import ANNOTATIONS, SlideEntry, is_inside

MAX_MENDED = 5_000
"""Points of an outline that crosses itself and is mended; beyond that, mending may take minutes."""

MAX_FEATURES, MAX_VERTICES, MAX_NAME, MAX_MEASUREMENTS = 10_000, 200_000, 200, 1_000
"""Bounds on what one file holds, on the length of a name in characters, and on what one annotation measures."""

SNAP_PX, _DECIMALS = 0.01, 2
"""Outlines are put on this raster, as in the files that a run writes for QuPath."""

COLORS = {"idc": (200, 0, 0), "non-idc": (0, 110, 180), "ignore*": (160, 160, 160), "region*": (0, 150, 80)}
"""Colour in QuPath by class, where the page gives none; names in small letters."""

_NONSENSE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, shapely.errors.ShapelyError),
)
_OTHER_COLOR = (120, 60, 160)
_NO_NUMBERS = {"NaN", "Infinity", "-Infinity"}
_OURS = {"objectType", "name", "isLocked", "classification", "measurements"}
_EMPTY = b'{"type":"FeatureCollection","features":[]}\n'


class Annotations:
    """Reads and writes annotations; of two writers who saw the same version, the second is refused."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._checking = Lock()  # one at a time: mending a tangle is a lot of work

    def read(self, entry: SlideEntry) -> tuple[bytes, str]:
        """The file and its entity tag; an empty collection where nothing has been drawn yet.

        Raises:
            RequestError: 404 where the file leads out of the results; 409 for a slide that failed.
        """
        path = _path(entry)
        data = path.read_bytes() if path.exists() else _EMPTY
        return data, version(data)

    def write(self, entry: SlideEntry, data: bytes, size: Size, seen: str | None) -> tuple[bytes, str]:
        """Replace the file by another version, whole or not at all.

        Args:
            entry: The result.
            data: A FeatureCollection, UTF-8 JSON, in pixels of the image as QuPath shows it.
            size: Of that image.
            seen: Entity tag of the version that the writer saw last.

        Returns:
            What was written, in its normal form, and its entity tag.

        Raises:
            RequestError: 412 where another version is there by now, 428 where the writer does not say what it saw, 422
                where the annotations are nonsense.
            OutputError: where the file cannot be written.
        """
        if seen is None:
            raise RequestError(428, entry.name, "the request does not say which version it replaces", "Send If-Match.")
        with self._checking:
            text = normal_form(entry.name, data, size, current=self.read(entry)[0])
        with self._lock:
            _, current = self.read(entry)
            if seen != current:
                hint = "Load them again: another tab or person has saved since."
                raise RequestError(412, entry.name, "the annotations have changed", hint, {"ETag": current})
            with atomic_path(_path(entry)) as part:
                part.write_bytes(text)
        return text, version(text)


def version(data: bytes) -> str:
    """The entity tag of a file's content."""
    return f'"{sha256(data).hexdigest()[:32]}"'


def normal_form(where: str, data: bytes, size: Size, current: bytes = _EMPTY) -> bytes:
    """Annotations as QuPath takes them: ids, classes with colours, valid polygons on a raster of 0.01 px.

    Outlines that cross themselves, as drawn by hand, are mended: what is encircled, be it twice, belongs.
    What another program has written stays as it is until it is changed here; then, what is not known here still stays.

    Args:
        where: Name of the slide, for messages.
        data: A FeatureCollection, UTF-8 JSON.
        size: Of the image; coordinates farther from it than its own size are refused.
        current: The file as it is now.

    Raises:
        RequestError: 422, naming the annotation at fault.
    """
    features = _features(where, data)
    there = features_by_content(current)
    ids, lines, vertices = [], [], 0
    for number, feature in enumerate(features, start=1):
        try:
            known = there.get(content(feature))
            kept = _feature(feature, size) if known is None else known | {"id": _id(feature.get("id"))}
            line = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            lines.append(line.encode())
            vertices += count_points((kept.get("geometry") or {}).get("coordinates"))
        except _NONSENSE as error:
            why = f"annotation {number} cannot be kept: {error}"
            raise RequestError(422, where, why, "Draw it again, or remove it.") from error
        ids.append(kept["id"])
        if vertices > MAX_VERTICES:
            raise RequestError(
                422, where, f"the outlines have more than {MAX_VERTICES:,} points", "Draw fewer or simpler."
            )
    if len(set(ids)) < len(ids):
        raise RequestError(422, where, "two annotations have one id", "Give each its own.")
    return b'{"type":"FeatureCollection","features":[\n' + b",\n".join(lines) + b"\n]}\n" if lines else _EMPTY


def _features(where: str, data: bytes) -> list[Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RequestError(422, where, f"the annotations are no JSON ({error})", "Send a FeatureCollection.") from error
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(features, list) or value.get("type") != "FeatureCollection":
        raise RequestError(422, where, "the annotations are no GeoJSON FeatureCollection", "Send a FeatureCollection.")
    if len(features) > MAX_FEATURES:
        raise RequestError(422, where, f"there are more than {MAX_FEATURES:,} annotations", "Remove some.")
    return features


def _feature(feature: Any, size: Size) -> dict[str, Any]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise ValueError("it is no Feature")
    given = feature.get("properties") or {}
    kind = given.get("objectType", "annotation")
    if kind != "annotation":
        raise ValueError(f"its objectType is {kind!r}, not 'annotation'")
    properties: dict[str, Any] = {"objectType": "annotation"}
    if given.get("name"):
        properties["name"] = _name(given["name"], "name")
    properties["isLocked"] = bool(given.get("isLocked", False))
    if given.get("classification"):
        properties["classification"] = _classification(given["classification"])
    if measurements := given.get("measurements"):
        properties["measurements"] = _measurements(measurements)
    shape: Any = feature.get("geometry")
    return {
        "type": "Feature",
        "id": _id(feature.get("id")),
        # Other programs write more: QuPath its metadata and descriptions, an outline's plane, that it is an ellipse.
        "geometry": _shape(shape, size) | others(shape, {"type", "coordinates", "bbox"}),
        "properties": properties | others(given, _OURS),
    }


def _shape(given: Any, size: Size) -> dict[str, Any]:
    without_area = isinstance(given, dict) and given.get("type") in NO_AREA
    return places(given, size) if without_area else _geometry(given, size)


def _id(given: Any) -> str:
    """A UUID: the given one, or a new one where there is none."""
    if given is None:
        return str(uuid4())
    try:
        return str(UUID(given))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError("its id is no UUID") from error


def _name(given: Any, what: str) -> str:
    """A name that QuPath shows as it is: a ":" in it, which means a subclass there, becomes "-"."""
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise ValueError(f"its {what} is no text")
    if len(given) > MAX_NAME:
        raise ValueError(f"its {what} has more than {MAX_NAME} characters")
    return given.strip().replace(":", "-")


def _classification(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, dict):
        raise ValueError("it has no class")  # noqa: TRY004  (one kind of error for all that is wrong)
    names = given.get("names")
    named: dict[str, Any]
    if isinstance(names, list) and names and "name" not in given:  # QuPath's derived classes, Tumor: Positive
        named, name = {"names": [_name(one, "class") for one in names]}, ""
    else:
        name = _name(given.get("name"), "class")
        named = {"name": name}
    color = given.get("color", COLORS.get(name.casefold(), _OTHER_COLOR))
    sides = len(color) if isinstance(color, list | tuple) else 0
    if sides not in {3, 4} or not all(type(v) is int and 0 <= v <= 255 for v in color):  # the fourth is opacity
        raise ValueError("the colour of its class is not [red, green, blue]")
    return {**named, "color": list(color)}


def _measurements(given: Any) -> dict[str, float | str]:
    if isinstance(given, list) and all(isinstance(one, dict) and {"name", "value"} <= one.keys() for one in given):
        given = {one["name"]: one["value"] for one in given}  # as QuPath wrote them before 0.4
    if not isinstance(given, dict) or len(given) > MAX_MEASUREMENTS:
        raise ValueError("its measurements are no small object")
    for key, value in given.items():
        number = (
            value in _NO_NUMBERS if isinstance(value, str) else type(value) in {int, float} and math.isfinite(value)
        )
        if not key.isprintable() or len(key) > MAX_NAME or not number:
            raise ValueError(f"its measurement {key[:MAX_NAME]!a} is no finite number with a name")
    return dict(given)


def _geometry(given: Any, size: Size) -> dict[str, Any]:
    """A Polygon or MultiPolygon as QuPath takes it."""
    if not isinstance(given, dict) or given.get("type") not in {"Polygon", "MultiPolygon"}:
        raise ValueError("it is no Polygon or MultiPolygon")
    drawn = shapely.MultiPolygon([_polygon(rings, size) for rings in _polygons(given)])
    shape = shapely.transform(drawn, lambda xy: np.round(xy, _DECIMALS) + 0.0)
    if not shape.is_valid or not shape.area:
        if shapely.get_num_coordinates(shape) > MAX_MENDED:
            raise ValueError(f"its outline crosses itself and has more than {MAX_MENDED:,} points")
        shape = polygons_of(shapely.set_precision(_encircled(shape), SNAP_PX))
    parts = [_rings(part) for part in shapely.get_parts(shapely.orient_polygons(shape))]
    if not parts:
        raise ValueError("it has no area")
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _encircled(shape: shapely.MultiPolygon) -> shapely.Geometry:
    """What the outlines encircle, less what the holes' do.

    `shapely.make_valid` would leave out what a lasso encircles twice, or back and forth.
    """
    holes = [_inside(hole) for part in shape.geoms for hole in part.interiors]
    shells = [_inside(part.exterior) for part in shape.geoms]
    return shapely.difference(shapely.union_all(shells), shapely.union_all(holes))


def _inside(ring: shapely.LinearRing) -> shapely.Geometry:
    faces = shapely.get_parts(shapely.polygonize([shapely.node(ring)]))
    return shapely.coverage_union_all(faces)  # they share edges and nothing else


def _polygons(geometry: dict[str, Any]) -> list[Any]:
    coordinates = geometry["coordinates"]
    found = coordinates if geometry["type"] == "MultiPolygon" else [coordinates]
    if not isinstance(found, list) or not found:
        raise ValueError("it has no coordinates")
    return found


def _polygon(rings: Any, size: Size) -> shapely.Polygon:
    if not isinstance(rings, list) or not rings:
        raise ValueError("it has no outline")
    if sum(len(ring) for ring in rings) > MAX_VERTICES:
        raise ValueError(f"its outline has more than {MAX_VERTICES:,} points")
    shell, *holes = [_ring(ring, size) for ring in rings]
    return shapely.Polygon(shell, holes)


def _ring(points: Any, size: Size) -> NDArray[np.float64]:
    xy = np.array([point[:2] for point in points], np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) < 3:
        raise ValueError("an outline has fewer than three points")
    if not np.isfinite(xy).all():
        raise ValueError("its coordinates are no finite numbers")
    far = np.array([size.width, size.height])
    if (xy < -far).any() or (xy > 2 * far).any():
        raise ValueError("it lies far outside the slide")
    return xy


def _rings(polygon: shapely.Polygon) -> list[list[list[float]]]:
    """Coordinates of a polygon's rings; adding zero turns -0.0 into 0.0."""
    return [
        (np.round(np.asarray(ring.coords), _DECIMALS) + 0.0).tolist() for ring in (polygon.exterior, *polygon.interiors)
    ]


def _path(entry: SlideEntry) -> Path:
    entry.require_done()
    path = entry.folder / ANNOTATIONS
    if not is_inside(path, entry.root):
        raise RequestError(404, entry.name, f"its {ANNOTATIONS} leads out of the results", "Remove the link.")
    return path
