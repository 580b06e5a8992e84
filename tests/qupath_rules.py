"""What QuPath accepts, as a check that can be run on any GeoJSON file or object.

Each rule raises AssertionError with the number of the feature and what is wrong with it.
"""

import gzip
import json
import math
from pathlib import Path
from typing import Any
from uuid import UUID

import shapely
from shapely.geometry import shape

OBJECT_TYPES = {"annotation", "detection", "tile", "cell"}
PROPERTIES = {"objectType", "name", "isLocked", "classification", "measurements"}


def read_geojson(path: Path) -> Any:
    """Parse a ``.geojson`` or ``.geojson.gz`` file; NaN and Infinity as bare words are no JSON."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    assert not content.startswith(b"\xef\xbb\xbf"), "QuPath's parser takes no byte order mark"

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys), f"a key stands twice in {keys}"
        return dict(pairs)

    return json.loads(content.decode("utf-8"), parse_constant=refuse, object_pairs_hook=once)


def check_geojson(collection: Any, size: tuple[int, int] | None = None) -> None:
    """Check a whole FeatureCollection.

    Args:
        collection: As it was parsed.
        size: (width, height) of QuPath's image, which is the slide inside its bounds: nothing may lie outside.
    """
    # QuPath takes the features of a collection and passes over the rest; an export states there how large its image is.
    assert set(collection) - {"image_px"} == {"type", "features"}
    if "image_px" in collection:
        check_image_px(collection["image_px"], size)
    assert collection["type"] == "FeatureCollection"
    ids = []
    for number, feature in enumerate(collection["features"]):
        try:
            check_feature(feature)
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise AssertionError(f"feature {number}: {error!r}") from error
        ids.append(feature["id"])
    assert len(set(ids)) == len(ids), "ids are not unique"
    if size is not None:
        check_inside(collection, size)
    tiles = [f["properties"] for f in collection["features"] if f["properties"]["objectType"] == "tile"]
    # Measurement maps are made of what every tile has.
    assert len({tuple(tile["measurements"]) for tile in tiles}) <= 1, "tiles differ in their measurements"


def check_image_px(given: Any, size: tuple[int, int] | None) -> None:
    """Width and height of the image, as a script finds them."""
    assert isinstance(given, list)
    assert len(given) == 2
    assert all(type(side) is int and side > 0 for side in given), given
    assert size is None or tuple(given) == size, given


def check_inside(collection: Any, size: tuple[int, int]) -> None:
    """Nothing lies outside the image."""
    for number, feature in enumerate(collection["features"]):
        left, top, right, bottom = shape(feature["geometry"]).bounds
        assert left >= 0, f"feature {number} lies outside the image"
        assert top >= 0, f"feature {number} lies outside the image"
        assert right <= size[0], f"feature {number} lies outside the image"
        assert bottom <= size[1], f"feature {number} lies outside the image"


def check_feature(feature: Any) -> None:
    """Check one object."""
    # Whatever stands beside `properties` is ignored by QuPath, so nothing may.
    assert set(feature) == {"type", "id", "geometry", "properties"}, sorted(feature)
    assert feature["type"] == "Feature"
    assert str(UUID(feature["id"])) == feature["id"], "id is no UUID"
    check_geometry(feature["geometry"])
    check_properties(feature["properties"])


def check_geometry(geometry: Any) -> None:
    """Polygon, or MultiPolygon of several parts: closed, snapped, valid, with an area, right-handed."""
    assert set(geometry) == {"type", "coordinates"}
    assert geometry["type"] in {"Polygon", "MultiPolygon"}, geometry["type"]
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    assert geometry["type"] == "Polygon" or len(polygons) > 1, "a MultiPolygon of one part"
    for polygon in polygons:
        assert polygon, "no rings"
        for n, ring in enumerate(polygon):
            check_ring(ring, hole=n > 0)
    solid = shape(geometry)
    assert solid.is_valid, shapely.is_valid_reason(solid)
    assert solid.area > 0, "no area"


def check_ring(ring: Any, *, hole: bool) -> None:
    assert len(ring) >= 4, "fewer than four points"
    assert ring[0] == ring[-1], "not closed"
    for point in ring:
        assert len(point) == 2
        for value in point:
            assert isinstance(value, int | float)
            assert not isinstance(value, bool)
            assert math.isfinite(value)
            assert value == round(value, 2), f"{value} is not snapped to 0.01 px"
            assert repr(value) != "-0.0"
    line = shapely.LinearRing(ring)
    assert shapely.Polygon(line).area > 0, "ring without area"
    assert line.is_ccw is not hole, "wrong orientation"


def check_properties(properties: Any) -> None:
    assert set(properties) <= PROPERTIES, sorted(properties)
    assert properties["objectType"] in OBJECT_TYPES
    assert isinstance(properties.get("isLocked", False), bool)
    if "name" in properties:
        check_name(properties["name"])
    if properties["objectType"] == "annotation":
        assert "classification" in properties
    if properties["objectType"] == "tile":
        assert properties.get("measurements"), "a tile without measurements"
        assert properties["isLocked"] is True
    if "classification" in properties:
        check_classification(properties["classification"])
    if "measurements" in properties:
        check_measurements(properties["measurements"])


def check_classification(classification: Any) -> None:
    assert set(classification) == {"name", "color"}, "name and color go together"
    check_name(classification["name"])
    color = classification["color"]
    assert isinstance(color, list)
    assert len(color) == 3
    assert all(type(value) is int and 0 <= value <= 255 for value in color), color


def check_name(name: Any) -> None:
    assert isinstance(name, str)
    assert name.strip()
    assert ":" not in name, "QuPath reads ':' as a subclass"


def check_measurements(measurements: Any) -> None:
    assert isinstance(measurements, dict)
    for key, value in measurements.items():
        assert isinstance(key, str)
        assert key.strip(), "a measurement without a name"
        assert value == "NaN" or (type(value) in (int, float) and math.isfinite(value)), f"{key}: {value!r}"
