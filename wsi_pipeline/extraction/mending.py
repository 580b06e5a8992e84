"""Outlines that cross themselves, as people draw them: what they encircle."""

import shapely


def encircled(polygon: shapely.Polygon) -> shapely.Geometry:
    """What a polygon's outline encircles, be it twice, less what its holes do.

    `shapely.make_valid` would leave out what a lasso encircles twice, or back and forth, and would add what a hole
    encircles outside the outline.
    """
    holes = shapely.union_all([_inside(hole) for hole in polygon.interiors])
    return shapely.difference(_inside(polygon.exterior), holes)


def _inside(ring: shapely.LinearRing) -> shapely.Geometry:
    faces = shapely.get_parts(shapely.polygonize([shapely.node(ring)]))
    return shapely.coverage_union_all(faces)  # they share edges and nothing else
