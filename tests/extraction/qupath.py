"""QuPath's exports made for the tests."""

import json
from pathlib import Path
from typing import Any

Feature = dict[str, Any]


def square(x: float, y: float, width: float, height: float | None = None) -> Feature:
    """A rectangle as a geometry."""
    right, bottom = x + width, y + (width if height is None else height)
    return {"type": "Polygon", "coordinates": [[[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]]}


def annotation(class_name: str | None, geometry: Any, **properties: Any) -> Feature:
    """A feature as QuPath 0.4 and later write it."""
    classification = {} if class_name is None else {"classification": {"name": class_name, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "8f5a6a3e-2d7c-4a8e-9a55-6f3d0a1b2c3d",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **classification, **properties},
    }


def write(path: Path, *features: Feature) -> Path:
    """A FeatureCollection."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}), encoding="utf-8")
    return path
