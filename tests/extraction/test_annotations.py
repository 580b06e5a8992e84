"""Annotation files in the forms that QuPath and its users give them."""

import gzip
import json
import unicodedata

import pytest
import shapely
from qupath import annotation, square, write

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.extraction.annotations import find_annotations, read_annotations


def areas(path) -> dict[str, list[float]]:
    return {name: [shape.area for shape in shapes] for name, shapes in read_annotations(path).shapes.items()}


@pytest.mark.parametrize(
    "name",
    [
        "a.geojson",
        "a.json",
        "a.geojson.gz",
        "a.json.gz",
        "a.svs.geojson",
        "a.svs.json",
        "A.GeoJSON",
        "a.SVS.geojson.gz",
    ],
)
def test_a_slides_file_is_found_by_its_name(tmp_path, name):
    for other in ("ab.geojson", "b.geojson", "a.txt", "a.svs", "a.geojson.bak", ".a.geojson"):
        (tmp_path / other).touch()
    (tmp_path / name).touch()
    assert find_annotations(tmp_path, "slides/a.svs", "a") == tmp_path / name


def test_accents_are_found_however_they_are_encoded(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Fäll é 3.geojson") for form in ("NFC", "NFD"))
    assert composed != decomposed
    (tmp_path / decomposed).touch()
    case = composed.removesuffix(".geojson")
    assert find_annotations(tmp_path, f"{case}.svs", case).name == decomposed


def test_a_file_is_taken_as_it_is(tmp_path):
    path = write(tmp_path / "any name.txt")
    assert find_annotations(path, "a.svs", "a") == path


def test_no_file_or_several_are_refused_by_name(tmp_path):
    (tmp_path / "b.geojson").touch()
    with pytest.raises(DatasetError, match=r"a\.svs: has no annotations\. Expected a\.geojson.*it holds b\.geojson"):
        find_annotations(tmp_path, "a.svs", "a")
    (tmp_path / "a.geojson").touch()
    (tmp_path / "a.json").touch()
    with pytest.raises(DatasetError, match=r"several annotation files: a\.geojson, a\.json"):
        find_annotations(tmp_path, "a.svs", "a")
    with pytest.raises(DatasetError, match="does not exist"):
        find_annotations(tmp_path / "nowhere", "a.svs", "a")


def test_collections_lists_and_single_features_packed_or_not_are_the_same(tmp_path):
    features = [annotation("IDC", square(0, 0, 10)), annotation("Stroma", square(5, 5, 2))]
    forms = [{"type": "FeatureCollection", "features": features}, features]
    for n, form in enumerate(forms):
        text = json.dumps(form).encode("utf-8-sig" if n else "utf-8")
        (tmp_path / "plain.json").write_bytes(text)
        (tmp_path / "packed.geojson").write_bytes(gzip.compress(text))
        for name in ("plain.json", "packed.geojson"):
            assert areas(tmp_path / name) == {"IDC": [100], "Stroma": [4]}
    (tmp_path / "one.json").write_text(json.dumps(features[0]))
    assert areas(tmp_path / "one.json") == {"IDC": [100]}


def test_geometries_of_all_kinds(tmp_path):
    hole = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
    with_hole = {"type": "Polygon", "coordinates": [*square(0, 0, 10)["coordinates"], hole]}
    two = {"type": "MultiPolygon", "coordinates": [square(0, 0, 1)["coordinates"], square(5, 5, 2)["coordinates"]]}
    nested = {
        "type": "GeometryCollection",
        "geometries": [two, {"type": "GeometryCollection", "geometries": [with_hole]}],
    }
    deep = {"type": "Polygon", "coordinates": [[[x, y, 0] for x, y in square(0, 0, 3)["coordinates"][0]]]}
    open_ring = {"type": "Polygon", "coordinates": [square(0, 0, 4)["coordinates"][0][:-1]]}
    kinds = [with_hole, two, nested, deep, open_ring]
    path = write(tmp_path / "a.geojson", *(annotation(f"class {n}", kind) for n, kind in enumerate(kinds)))
    assert areas(path) == {"class 0": [96], "class 1": [5], "class 2": [96], "class 3": [9], "class 4": [16]}
    assert read_annotations(path).notes == ()


def test_what_has_no_area_is_passed_over_with_a_word(tmp_path):
    point = {"type": "Point", "coordinates": [1, 1]}
    path = write(
        tmp_path / "a.geojson",
        annotation("IDC", point),
        annotation("IDC", {"type": "MultiPoint", "coordinates": [[1, 1]]}),
        annotation("IDC", {"type": "LineString", "coordinates": [[1, 1], [2, 2]]}),
        annotation("IDC", {"type": "GeometryCollection", "geometries": [point, square(0, 0, 1)]}),
        annotation("IDC", {"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [1, 1]]]}),
        annotation("IDC", {"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [3, 3], [1, 1]]]}),
        annotation("IDC", {"type": "Polygon", "coordinates": []}),
        annotation("IDC", None),
    )  # fmt: skip
    assert areas(path) == {"IDC": [1]}
    assert read_annotations(path).notes == (
        "In a.geojson, annotations without a shape, passed over: 1.",
        "In a.geojson, annotations without an area, passed over: 3.",
        "In a.geojson, points and lines, which have no area, passed over: 4.",
    )


def test_outlines_that_cross_themselves_are_mended(tmp_path):
    bowtie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    path = write(tmp_path / "a.geojson", annotation("IDC", bowtie))
    found = read_annotations(path)
    (shape,) = found.shapes["IDC"]
    assert shape.is_valid
    assert shape.area == pytest.approx(50)
    assert found.notes == ("In a.geojson, outlines that cross themselves, mended: 1.",)


@pytest.mark.parametrize(
    ("holes", "area"),
    [
        ([[[50, 50], [150, 50], [150, 150], [50, 150]]], 7500),
        ([[[200, 200], [250, 200], [250, 250], [200, 250]]], 10_000),
        ([[[10, 10], [50, 10], [50, 50], [10, 50]], [[30, 30], [70, 30], [70, 70], [30, 70]]], 7200),
    ],
)
def test_a_hole_takes_away_and_adds_nothing(tmp_path, holes, area):
    outline = [[0, 0], [100, 0], [100, 100], [0, 100]]
    path = write(tmp_path / "a.geojson", annotation("IDC", {"type": "Polygon", "coordinates": [outline, *holes]}))
    assert areas(path) == {"IDC": [pytest.approx(area)]}


@pytest.mark.parametrize(
    ("outline", "area"),
    [
        ("0 0, 100 0, 100 60, 40 60, 40 40, 60 40, 60 100, 0 100", 8400),  # crosses itself: what it holds twice belongs
        ("0 0, 100 0, 100 100, 0 100, 0 0, 100 0, 100 100, 0 100", 10_000),  # drawn twice
        ("0 0, 100 0, 100 100, 0 100, 0 50, 30 50, 30 70, 70 70, 70 30, 30 30, 30 50, 0 50", 8400),  # around a lumen
        ("0 0, 100 0, 100 100, 50 100, 70 50, 30 50, 50 100, 0 100", 9000),  # a lumen that touches the edge
    ],
)
def test_what_one_outline_winds_around_belongs_and_a_lumen_does_not(tmp_path, outline, area):
    ring = [[float(value) for value in point.split()] for point in outline.split(", ")]
    path = write(tmp_path / "a.geojson", annotation("IDC", {"type": "Polygon", "coordinates": [ring]}))
    assert areas(path) == {"IDC": [pytest.approx(area)]}


def test_what_is_no_feature_is_told(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([annotation("IDC", square(0, 0, 1)), square(0, 0, 9), 1, "a", None]), encoding="utf-8")
    found = read_annotations(path)
    assert found.counts == {"IDC": 1}
    assert found.notes == ("In a.geojson, things that are no features, passed over: 4.",)
    nested = annotation("IDC", square(0, 0, 9), childObjects={"features": [annotation("Stroma", square(0, 0, 2))]})
    assert areas(write(tmp_path / "b.geojson", nested)) == {"IDC": [81], "Stroma": [4]}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": "abc"}), encoding="utf-8")
    assert read_annotations(path).notes == ("In a.geojson, things that are no features, passed over: 1.",)


def test_a_class_that_is_no_name_is_refused_by_number(tmp_path):
    path = write(tmp_path / "a.geojson", annotation(None, square(0, 0, 1), classification=["IDC"]))
    with pytest.raises(DatasetError, match=r"annotation 1 is broken \(its class is \['IDC'\]"):
        read_annotations(path)


def test_classes_as_every_version_writes_them(tmp_path):
    forms = [
        {"name": "IDC", "colorRGB": -3670016}, {"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Stroma", None, {},
        {"name": " Köln "},
    ]  # fmt: skip
    features = [annotation(None, square(0, 0, 1), classification=form) for form in forms]
    features.append({"type": "Feature", "geometry": square(0, 0, 1)})
    counts = read_annotations(write(tmp_path / "a.geojson", *features)).counts
    assert counts == {"IDC": 1, "Tumor: Positive": 1, "Stroma": 1, "Unclassified": 3, "Köln": 1}


def test_cells_and_detections_are_no_annotations(tmp_path):
    cell = annotation("IDC", square(0, 0, 1))
    others = [json.loads(json.dumps(cell)) for _ in range(3)]
    others[0]["properties"]["objectType"] = "cell"
    others[1]["properties"] = {"object_type": "tile"}
    others[2].update(id="PathDetectionObject", properties={})
    old = annotation("IDC", square(0, 0, 2))
    old.update(id="PathAnnotationObject", properties={"classification": {"name": "IDC"}})
    path = write(tmp_path / "a.geojson", *others, old)
    assert areas(path) == {"IDC": [4]}
    assert read_annotations(path).notes == (
        "In a.geojson, objects that are no annotations (cells, detections, tiles): 3.",
    )


@pytest.mark.parametrize("key", ["childObjects", "children"])
def test_objects_nested_below_others_are_found(tmp_path, key):
    grandchild = annotation("Fold", square(1, 1, 1))
    child = annotation("Stroma", square(1, 1, 2), **{key: [grandchild]})
    parent = annotation("IDC", square(0, 0, 10), **{key: [child]})
    assert areas(write(tmp_path / "a.geojson", parent)) == {"IDC": [100], "Stroma": [4], "Fold": [1]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no GeoJSON file"),
        (b"{", "is no GeoJSON file"),
        (b"\xff\xfe\x00", "is no GeoJSON file"),
        (b"\x1f\x8b\x08damaged", "is no GeoJSON file"),
        (b"3", "is no GeoJSON file of features"),
        (b'{"type": "Polygon", "coordinates": []}', "is no GeoJSON file of features"),
        (b"[" * 200_000, "is no GeoJSON file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, why):
    path = tmp_path / "a.geojson"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"a\.geojson: {why}"):
        read_annotations(path)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, float("nan")], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [10**400, 0], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1e300, 0], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0], [1], [1], [0]]]},
        {"type": "Polygon", "coordinates": [[0, 1, 2, 3]]},
        {"type": "Polygon"},
        {"type": "Circle", "coordinates": [0, 0]},
        {"coordinates": []},
        "POLYGON ((0 0, 1 0, 1 1, 0 0))",
    ],
)
def test_broken_geometries_are_refused_by_number(tmp_path, geometry):
    path = write(tmp_path / "a.geojson", annotation("IDC", square(0, 0, 1)), annotation("IDC", geometry))
    with pytest.raises(DatasetError, match=r"a\.geojson: annotation 2 is broken"):
        read_annotations(path)


@pytest.mark.parametrize("properties", [["x"], "x", 3])
def test_properties_that_are_none_are_refused_by_number(tmp_path, properties):
    feature = annotation("IDC", square(0, 0, 1)) | {"properties": properties}
    path = write(tmp_path / "a.geojson", annotation("IDC", square(0, 0, 1)), feature)
    with pytest.raises(DatasetError, match=r"a\.geojson: annotation 2 is broken"):
        read_annotations(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_annotations(tmp_path / "none.geojson")


def test_an_ellipse_keeps_its_area(tmp_path):
    ring = shapely.get_coordinates(shapely.Point(50, 50).buffer(30)).tolist()
    path = write(
        tmp_path / "a.geojson", annotation("IDC", {"type": "Polygon", "isEllipse": True, "coordinates": [ring]})
    )
    assert areas(path)["IDC"][0] == pytest.approx(shapely.Polygon(ring).area, rel=1e-4)
