"""What other programs write into annotations, QuPath above all: kept, though the page knows nothing of it.

An annotation that the page sends back as it was in the file stays so, whatever it is. One that was changed keeps what
is not known here; points and lines, which are not drawn in the page, keep their places.
"""

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import shapely

from wsi_pipeline.geometry import Size

MAX_POINTS = 200_000
"""Of one annotation of points or lines."""

NO_AREA = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
"""Geometries without an outline."""

_NO_FEATURES = (ValueError, TypeError, LookupError, RecursionError)


def features_by_content(file: bytes) -> dict[Hashable, dict[str, Any]]:
    """The features of a GeoJSON file by what they say; none where it is no FeatureCollection."""
    try:
        return {content(feature): feature for feature in json.loads(file)["features"] if isinstance(feature, dict)}
    except _NO_FEATURES:
        return {}


def content(feature: Any) -> Hashable:
    """What a feature says but for its id, which the page gives where a file has none.

    A browser writes 1.0 as 1 and QuPath orders keys in its own way: what means the same is equal here.

    Raises:
        RecursionError: where it is nested too deeply.
    """
    return _frozen(others(feature, {"id"}) if isinstance(feature, dict) else feature)


def others(given: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """All of an object but what is known here."""
    return {key: value for key, value in given.items() if key not in known}


def places(given: dict[str, Any], size: Size) -> dict[str, Any]:
    """Points or lines, GeoJSON, as they are.

    Args:
        given: A geometry whose type is in `NO_AREA`.
        size: Of the image; coordinates farther from it than its own size are refused.

    Raises:
        ValueError: where they are none. Nonsense raises what it happens to raise in Python.
    """
    xy = shapely.get_coordinates(shapely.geometry.shape(given))
    if not 0 < len(xy) <= MAX_POINTS:
        raise ValueError(f"it has no coordinates, or more than {MAX_POINTS:,} points")
    if not np.isfinite(xy).all():
        raise ValueError("its coordinates are no finite numbers")
    far = np.array([size.width, size.height])
    if (xy < -far).any() or (xy > 2 * far).any():
        raise ValueError("it lies far outside the slide")
    return {"type": given["type"], "coordinates": given["coordinates"]}


def count_points(coordinates: Any) -> int:
    """How many points there are in coordinates, however deep they lie."""
    if not isinstance(coordinates, list) or not coordinates:
        return 0
    return 1 if isinstance(coordinates[0], int | float) else sum(count_points(part) for part in coordinates)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((key, _frozen(part)) for key, part in value.items())
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    frozen: Hashable = value
    return frozen
