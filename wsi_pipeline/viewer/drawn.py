"""Outlines as people draw them, made into what QuPath takes: checked, mended where they cross themselves.

How long checking and mending an outline takes follows from how often its edges meet, not from how many points it has:
a tangle of a few thousand points crosses itself millions of times. So meetings are counted first, which is cheap.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.extraction.coverage import polygons_of
from wsi_pipeline.geometry import Size

MAX_RINGS = 2_000
"""Outlines and holes of one annotation."""

MAX_MEETINGS, MAX_MENDED = 5_000_000, 100_000
"""Pairs of edges whose boxes meet, over all annotations of one request; and the same over those that must be mended."""

SNAP_PX, _DECIMALS = 0.01, 2
"""Outlines are put on this raster, as in the files that a run writes for QuPath."""

_PAIRS_AT_ONCE = 2_000_000


@dataclass(slots=True, kw_only=True)
class Effort:
    """What the annotations of one request have cost so far."""

    max_points: int
    points: int = 0
    meetings: int = 0
    mended: int = 0
    """Meetings of those that were mended."""


def kept_geometry(given: Any, size: Size, effort: Effort) -> dict[str, Any]:
    """A Polygon or MultiPolygon as QuPath takes it.

    Args:
        given: GeoJSON, pixels.
        size: Of the image; coordinates farther from it than its own size are refused.
        effort: What this one costs is added to it.

    Raises:
        ValueError: where it is none, or would take too long. Nonsense raises what it happens to raise in Python.
    """
    if not isinstance(given, dict) or given.get("type") not in {"Polygon", "MultiPolygon"}:
        raise ValueError("it is no Polygon or MultiPolygon")
    found = polygons(given)
    effort.points += count_points(found)
    if effort.points > effort.max_points:
        raise ValueError(f"with it, the outlines have more than {effort.max_points:,} points")
    if sum(len(rings) for rings in found) > MAX_RINGS:
        raise ValueError(f"it has more than {MAX_RINGS:,} outlines and holes")
    drawn = shapely.MultiPolygon([_polygon(rings, size) for rings in found])
    shape = _valid(shapely.transform(drawn, lambda xy: np.round(xy, _DECIMALS) + 0.0), effort)
    parts = [_rings(part) for part in shapely.get_parts(shapely.orient_polygons(shape))]
    if not parts:
        raise ValueError("it has no area")
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def polygons(geometry: dict[str, Any]) -> list[Any]:
    """The polygons of a Polygon or MultiPolygon, each a list of rings."""
    coordinates = geometry["coordinates"]
    found = coordinates if geometry["type"] == "MultiPolygon" else [coordinates]
    if not isinstance(found, list) or not found:
        raise ValueError("it has no coordinates")
    return found


def count_points(found: list[Any]) -> int:
    """Points of polygons."""
    return sum(len(ring) for rings in found for ring in rings)


def count_meetings(shape: shapely.MultiPolygon, limit: int) -> int:
    """Pairs of edges, but for one and the next, whose boxes meet; the count ends once it is above `limit`."""
    xy, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shape)), return_index=True)
    ends = np.stack([xy[:-1], xy[1:]], axis=1)[ring[:-1] == ring[1:]]
    edges = shapely.linestrings(ends)
    tree = shapely.STRtree(edges)
    step, count = max(1, _PAIRS_AT_ONCE // max(1, len(edges))), 0
    for start in range(0, len(edges), step):
        one, other = tree.query(edges[start : start + step])
        count += int(np.count_nonzero(other > one + start + 1))
        if count > limit:
            break
    return count


def _valid(shape: shapely.MultiPolygon, effort: Effort) -> shapely.Geometry:
    met = count_meetings(shape, MAX_MEETINGS - effort.meetings)
    effort.meetings += met
    if effort.meetings > MAX_MEETINGS:
        raise ValueError("its edges run over each other too often")
    if shape.is_valid and shape.area:
        return shape
    effort.mended += met
    if effort.mended > MAX_MENDED:
        raise ValueError("its outline crosses itself too often")
    return polygons_of(shapely.set_precision(_encircled(shape), SNAP_PX))


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


def _polygon(rings: Any, size: Size) -> shapely.Polygon:
    if not isinstance(rings, list) or not rings:
        raise ValueError("it has no outline")
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
