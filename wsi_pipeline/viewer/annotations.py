"""What a person draws on a result: QuPath GeoJSON beside it, checked, written whole, never overwritten unseen.

The file is ``annotations.geojson`` in the slide's folder. QuPath takes it, and so does ``wsi-pipeline extract``.
"""

import json
import math
import stat
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

import shapely

from wsi_pipeline.errors import OutputError
from wsi_pipeline.files import atomic_path
from wsi_pipeline.geometry import Size
from wsi_pipeline.viewer.drawn import Effort, kept_geometry
from wsi_pipeline.viewer.foreign import NO_AREA, content, count_points, features_by_content, others, places
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.results import ANNOTATIONS, SlideEntry, is_inside
from wsi_pipeline.viewer.turns import Turns

MAX_BYTES = 64 << 20
"""A file larger than this was not written here, and is not read."""

MAX_FEATURES, MAX_VERTICES, MAX_NAME, MAX_MEASUREMENTS = 10_000, 200_000, 200, 1_000
"""Bounds on what one file holds, on the length of a name in characters, and on what one annotation measures."""

COLORS = {"idc": (200, 0, 0), "non-idc": (0, 110, 180), "ignore*": (160, 160, 160), "region*": (0, 150, 80)}
"""Colour in QuPath by class, where the page gives none; names in small letters."""

_NONSENSE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, shapely.errors.ShapelyError),
)
_AT_ONCE, _WAITING = 1, 8
_OTHER_COLOR = (120, 60, 160)
_NO_NUMBERS = {"NaN", "Infinity", "-Infinity"}
_OURS = {"objectType", "name", "isLocked", "classification", "measurements"}
_EMPTY = b'{"type":"FeatureCollection","features":[]}\n'


class Annotations:
    """Reads and writes annotations; of two writers who saw the same version, the second is refused."""

    def __init__(self) -> None:
        self._lock = Lock()
        # Mending a tangle is a lot of work: whoever sends many keeps no more threads busy than these.
        self._turns = Turns(("annotations", "too many are being saved at once"), at_once=_AT_ONCE, waiting=_WAITING)

    def read(self, entry: SlideEntry) -> tuple[bytes, str]:
        """The file and its entity tag; an empty collection where nothing has been drawn yet.

        Raises:
            RequestError: 404 where the file leads out of the results; 409 for a slide that failed; 422 where it is no
                file of at most `MAX_BYTES`.
            OutputError: where it cannot be read.
        """
        path = _path(entry)
        data = _content(entry.name, path)
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
            RequestError: 412 where another version is there by now, 428 where the writer does not say what it saw, 503
                where too many are being saved already, 422 where the annotations are nonsense.
            OutputError: where the file cannot be written.
        """
        if seen is None:
            raise RequestError(428, entry.name, "the request does not say which version it replaces", "Send If-Match.")
        with self._turns.take():
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
    ids, lines, vertices, effort = [], [], 0, Effort(max_points=MAX_VERTICES)
    for number, feature in enumerate(features, start=1):
        try:
            known = there.get(content(feature))
            kept = _feature(feature, size, effort) if known is None else known | {"id": _id(feature.get("id"))}
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


def _feature(feature: Any, size: Size, effort: Effort) -> dict[str, Any]:
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
    return {
        "type": "Feature",
        "id": _id(feature.get("id")),
        # Other programs write more: QuPath its metadata and descriptions, an outline's plane, that it is an ellipse.
        "geometry": _shape(feature.get("geometry"), size, effort),
        "properties": properties | others(given, _OURS),
    }


def _shape(given: Any, size: Size, effort: Effort) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError("it is no Polygon or MultiPolygon")  # noqa: TRY004  (one kind of error for all)
    shape = places(given, size) if given.get("type") in NO_AREA else kept_geometry(given, size, effort)
    return shape | others(given, {"type", "coordinates", "bbox"})


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
    named: dict[str, Any]
    names = given.get("names")
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


def _path(entry: SlideEntry) -> Path:
    entry.require_done()
    path = entry.folder / ANNOTATIONS
    if not is_inside(path, entry.root):
        raise RequestError(404, entry.name, f"its {ANNOTATIONS} leads out of the results", "Remove the link.")
    return path


def _content(where: str, path: Path) -> bytes:
    """The file; an empty collection where there is none."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
            why = f"its {ANNOTATIONS} is no file of at most {MAX_BYTES >> 20} MiB"
            raise RequestError(422, where, why, "Move it away, or draw fewer and simpler outlines.")
        return path.read_bytes()
    except FileNotFoundError:
        return _EMPTY
    except OSError as error:
        raise OutputError(path, f"cannot be read ({error.strerror})", "Check its permissions.") from error
