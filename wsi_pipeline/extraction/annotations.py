"""Annotations as QuPath exports them: the file of a slide, and its areas by class."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.extraction.coverage import polygons_of
from wsi_pipeline.extraction.rules import UNCLASSIFIED, fold

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
"""Endings of annotation files; what is inside counts, packed or not."""

SNAP_PX = 0.01
"""Outlines are put on this raster, on which intersections are exact and never fail."""

FARTHEST_PX = 10_000_000
"""No image is as large: coordinates beyond are nonsense, on which the arithmetic of areas would fail in silence."""

_EXPORT_HINT = "Export them from QuPath again: File > Export objects as GeoJSON."
_ANNOTATION = frozenset({"annotation", "pathannotationobject", "unknown"})
_OTHER_OBJECTS = frozenset(
    {"detection", "cell", "tile", "tmacore", "tma_core", "root", "pathdetectionobject", "pathcellobject",
     "pathtileobject", "tmacoreobject", "pathrootobject"}
)  # fmt: skip
"""Object types of QuPath that a person has not drawn; older versions name them in ``id`` or ``object_type``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationFile:
    """The annotations of one slide."""

    path: Path
    digest: str
    """SHA-256 (hex) of the file's bytes."""
    shapes: dict[str, tuple[shapely.MultiPolygon, ...]]
    """By class, valid, in pixels of QuPath's image, which is the slide cut to its bounds."""
    notes: tuple[str, ...]
    """What was passed over or mended, a sentence each."""

    @property
    def counts(self) -> dict[str, int]:
        """How many annotations there are of each class."""
        return {name: len(shapes) for name, shapes in self.shapes.items()}


def find_annotations(source: Path, slide_path: str, case: str) -> Path:
    """The annotation file of a slide.

    In a folder it has the slide's name with or without the slide's ending: for ``a.svs`` that is ``a.geojson`` or
    ``a.svs.geojson``, or the same with one of the other `SUFFIXES`. Case and the encoding of accents do not matter.

    Args:
        source: A folder, or the file itself.
        slide_path: The slide's address.
        case: The slide's name.

    Raises:
        DatasetError: where there is none, or more than one.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise DatasetError(source, "does not exist", "Name a folder of annotations, or a file, with --annotations.")
    names = {fold(case), fold(slide_path.replace("\\", "/").rsplit("/", 1)[-1])}
    files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    annotated = {path: stem for path in files if (stem := _stem(path.name)) is not None}
    found = [path for path, stem in annotated.items() if stem in names]
    if not found:
        others = ", ".join(path.name for path in list(annotated)[:3])
        hint = f"Expected {case}.geojson in {source}"
        raise DatasetError(slide_path, "has no annotations", f"{hint}; it holds {others or 'none of any slide'}.")
    if len(found) > 1:
        why = f"has several annotation files: {', '.join(path.name for path in found)}"
        raise DatasetError(slide_path, why, f"Keep one of them in {source}.")
    return found[0]


def _stem(name: str) -> str | None:
    """The name of an annotation file without its ending, folded; None where it has no such ending."""
    lower = name.lower()
    ending = max((suffix for suffix in SUFFIXES if lower.endswith(suffix)), key=len, default=None)
    return None if ending is None else fold(name[: -len(ending)])


def read_annotations(path: Path) -> AnnotationFile:
    """Read an annotation file: a FeatureCollection, a list of features or one feature, packed with gzip or not.

    Only areas count: points and lines are passed over, and so are objects that are no annotations (cells,
    detections, tiles). Rings that cross themselves are mended. Ellipses are polygons in QuPath's export already.

    Raises:
        DatasetError: where the file cannot be read, is no GeoJSON, or holds coordinates that are no numbers.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(path, f"cannot be read ({error.strerror})", "Check its permissions.") from error
    shapes: dict[str, list[shapely.MultiPolygon]] = {}
    passed: Counter[str] = Counter()
    for number, feature in enumerate(_features(_parse(path, data)), start=1):
        if feature is None:
            passed["things that are no features, passed over"] += 1
            continue
        try:
            if _object_type(feature) in _OTHER_OBJECTS:
                passed["objects that are no annotations (cells, detections, tiles)"] += 1
                continue
            shape, oddities = _shape(feature.get("geometry"))
            name = _class_name(feature)
        except (TypeError, ValueError, OverflowError, AttributeError, KeyError, ShapelyError) as error:
            raise DatasetError(path, f"annotation {number} is broken ({error})", _EXPORT_HINT) from error
        passed.update(oddities)
        if not shape.is_empty:
            shapes.setdefault(name, []).append(shape)
    return AnnotationFile(
        path=path,
        digest=sha256(data).hexdigest(),
        shapes={name: tuple(found) for name, found in sorted(shapes.items())},
        notes=tuple(f"In {path.name}, {what}: {count}." for what, count in sorted(passed.items())),
    )


def _parse(path: Path, data: bytes) -> Any:
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        value = json.loads(data.decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise DatasetError(path, f"is no GeoJSON file ({error})", _EXPORT_HINT) from error
    if isinstance(value, list) or (isinstance(value, dict) and value.get("type") in {"Feature", "FeatureCollection"}):
        return value
    raise DatasetError(path, "is no GeoJSON file of features", _EXPORT_HINT)


def _features(value: Any) -> Iterator[dict[str, Any] | None]:
    """Every feature, those nested below others included; None for what should be one and is none."""
    if isinstance(value, list):
        for item in value:
            yield from _features(item)
    elif isinstance(value, dict) and value.get("type") == "Feature":
        yield value
        properties = value.get("properties")
        if isinstance(properties, dict):
            for key in ("childObjects", "children"):
                yield from _features(properties.get(key) or [])
    elif isinstance(value, dict) and "features" in value:
        yield from _features(value["features"] or [])
    else:
        yield None


def _object_type(feature: dict[str, Any]) -> str:
    properties = feature.get("properties") or {}
    for kind in (
        properties.get("objectType"),
        properties.get("object_type"),
        properties.get("type"),
        feature.get("id"),
    ):
        if isinstance(kind, str) and kind.lower() in _ANNOTATION | _OTHER_OBJECTS:
            return kind.lower()
    return "annotation"


def _class_name(feature: dict[str, Any]) -> str:
    """The class; QuPath joins the names of a derived class by a colon."""
    given = (feature.get("properties") or {}).get("classification")
    if isinstance(given, dict):
        given = given.get("name") or ": ".join(given.get("names") or ())
    if given is not None and not isinstance(given, str | int):
        raise TypeError(f"its class is {given!r}")
    return str(given or "").strip() or UNCLASSIFIED


def _shape(geometry: Any) -> tuple[shapely.MultiPolygon, list[str]]:
    """The area of a geometry, empty where it has none, and what is odd about it."""
    if geometry is None:
        return shapely.MultiPolygon(), ["annotations without a shape, passed over"]
    parts = list(_simple(geometry))
    polygons = [_polygon(coordinates) for kind, coordinates in parts if kind == "Polygon"]
    oddities = []
    if len(polygons) < len(parts):
        oddities.append("points and lines, which have no area, passed over")
    if not all(polygon.is_valid for polygon in polygons):
        oddities.append("outlines that cross themselves, mended")
    valid = [polygon if polygon.is_valid else _mended(polygon) for polygon in polygons]
    shape = polygons_of(shapely.set_precision(shapely.union_all(valid), SNAP_PX))
    if polygons and shape.is_empty:
        oddities = ["annotations without an area, passed over"]
    return shape, oddities


def _mended(polygon: shapely.Polygon) -> shapely.Geometry:
    """What an outline that crosses itself winds around, be it twice, less what its holes do.

    As one outline with its holes, `shapely.make_valid` would add what a hole holds outside it.
    """
    rings = [shapely.Polygon(ring) for ring in (polygon.exterior, *polygon.interiors)]
    shell, *holes = shapely.make_valid(rings, method="structure", keep_collapsed=False)
    area: shapely.Geometry = shapely.difference(shell, shapely.union_all(holes))
    return area


def _simple(geometry: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The simple parts of a geometry: kind and coordinates."""
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _simple(part)
    elif kind == "MultiPolygon":
        for part in geometry["coordinates"]:
            yield "Polygon", part
    elif kind in {"Polygon", "Point", "MultiPoint", "LineString", "MultiLineString"}:
        yield kind, geometry["coordinates"]
    else:
        raise ValueError(f"{kind!r} is no kind of geometry")


def _polygon(rings: Sequence[Any]) -> shapely.Polygon:
    """A polygon of its rings, which is empty where its outline has fewer than three points."""
    arrays = [_ring(ring) for ring in rings]
    if not arrays or arrays[0] is None:
        return shapely.Polygon()
    return shapely.Polygon(arrays[0], [hole for hole in arrays[1:] if hole is not None])


def _ring(points: Sequence[Any]) -> NDArray[np.float64] | None:
    if len(points) < 3:
        return None
    xy = np.array([point[:2] for point in points], np.float64)
    if xy.ndim != 2 or not np.isfinite(xy).all():
        raise ValueError("its coordinates are no finite numbers")
    if np.abs(xy).max() > FARTHEST_PX:
        raise ValueError(f"it reaches {np.abs(xy).max():.3g} px far, farther than any slide")
    return xy if len(xy) > 3 or (xy[0] != xy[-1]).any() else None
