"""Coverage of squares by shapes, against shapely's own intersections and closed forms."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.extraction.coverage import Lattice, area_coverage, polygons_of


def by_intersection(shape: shapely.MultiPolygon, lattice: Lattice) -> np.ndarray:
    """What `area_coverage` gives, square by square."""
    (x, y), (width, height) = lattice.corner, lattice.step
    cols, rows = np.meshgrid(np.arange(lattice.cols), np.arange(lattice.rows))
    squares = shapely.box(x + cols * width, y + rows * height, x + (cols + 1) * width, y + (rows + 1) * height)
    return shapely.area(shapely.intersection(shape, squares)) / (width * height)


points = st.tuples(st.integers(-3000, 13000), st.integers(-3000, 13000)).map(lambda xy: (xy[0] / 100, xy[1] / 100))
on_lattice = st.tuples(st.integers(-2, 12), st.integers(-2, 12)).map(lambda xy: (xy[0] * 10.0, xy[1] * 10.0))


@st.composite
def shapes(draw):
    """Several polygons with holes, some along the lattice's own lines."""
    rings = draw(st.lists(st.lists(st.one_of(points, on_lattice), min_size=3, max_size=9), min_size=1, max_size=4))
    polygons = [shapely.set_precision(shapely.make_valid(shapely.Polygon(ring)), 0.01) for ring in rings]
    shape = polygons[0]
    for n, polygon in enumerate(polygons[1:]):
        shape = shapely.union(shape, polygon) if n % 2 else shapely.symmetric_difference(shape, polygon)
    return polygons_of(shape)


@given(
    shape=shapes(),
    corner=st.one_of(st.just((0.0, 0.0)), points),
    step=st.tuples(st.sampled_from([10.0, 7.3]), st.sampled_from([10.0, 31.7])),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_coverage_is_the_area_of_each_intersection(shape, corner, step, rows, cols):
    lattice = Lattice(corner=corner, step=step, rows=rows, cols=cols)
    np.testing.assert_allclose(area_coverage(shape, lattice), by_intersection(shape, lattice), atol=2e-8)


def test_a_disc_covers_its_area_and_squares_inside_wholly():
    lattice = Lattice(corner=(0, 0), step=(10, 10), rows=40, cols=50)
    disc = shapely.MultiPolygon([shapely.Point(230, 190).buffer(150, quad_segs=512)])
    coverage = area_coverage(disc, lattice)
    assert coverage.sum() * 100 == pytest.approx(np.pi * 150**2, rel=1e-5)
    assert coverage[19, 23] == 1
    assert coverage[0, 0] == 0


def test_half_a_square_is_half_to_the_last_digit():
    lattice = Lattice(corner=(3.7, -1.9), step=(49.6275903, 31.1), rows=30, cols=30)
    x, y = lattice.corner[0], lattice.corner[1]
    half = shapely.box(x, y, x + 12.5 * lattice.step[0], y + 7 * lattice.step[1])
    coverage = area_coverage(shapely.MultiPolygon([half]), lattice)
    assert (coverage[:7, 12] == 0.5).all()
    assert (coverage[:7, :12] == 1).all()
    assert coverage[:7, 13:].max() == coverage[7:].max() == 0


def test_nothing_covers_nothing():
    lattice = Lattice(corner=(0, 0), step=(10, 10), rows=3, cols=4)
    assert area_coverage(shapely.MultiPolygon(), lattice).shape == (3, 4)
    assert not area_coverage(shapely.MultiPolygon([shapely.box(-50, -50, -10, 90)]), lattice).any()


def test_points_and_lines_are_dropped():
    collection = shapely.GeometryCollection(
        [shapely.Point(1, 1), shapely.LineString([(0, 0), (5, 5)]), shapely.MultiPolygon([shapely.box(0, 0, 2, 2)])]
    )
    assert polygons_of(collection).equals(shapely.box(0, 0, 2, 2))
    assert polygons_of(shapely.Point(1, 1)).is_empty
