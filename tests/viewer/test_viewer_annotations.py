"""What is drawn: taken by QuPath and by `extract`, nonsense refused by name, nothing overwritten unseen."""

import json
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qupath_rules import check_geojson
from shapely.geometry import mapping, shape

from wsi_pipeline.cli import OK, main
from wsi_pipeline.errors import OutputError
from wsi_pipeline.extraction.annotations import read_annotations
from wsi_pipeline.geometry import Size
from wsi_pipeline.viewer import annotations as module
from wsi_pipeline.viewer import drawn as drawn_module
from wsi_pipeline.viewer.annotations import normal_form
from wsi_pipeline.viewer.problems import RequestError

SIZE = Size(1000, 800)
SQUARE = [[300, 300], [500, 300], [500, 500], [300, 500], [300, 300]]


def drawn(coordinates=None, *, kind: str = "Polygon", name: object = "IDC", **more) -> dict:
    properties = {"objectType": "annotation", "classification": {"name": name}} | more.pop("properties", {})
    geometry = {"type": kind, "coordinates": [SQUARE] if coordinates is None else coordinates}
    return {"type": "Feature", "id": str(uuid4()), "geometry": geometry, "properties": properties} | more


def collection(*features) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()


def normal(*features) -> list[dict]:
    value = json.loads(normal_form("a slide", collection(*features), SIZE))
    check_geojson(value)
    return value["features"]


def exteriors(area) -> list[shapely.LinearRing]:
    return [part.exterior for part in shapely.get_parts(area)]


class TestNormalForm:
    def test_ids_names_and_measurements_stay(self):
        feature = drawn(properties={"name": "missed: duct", "isLocked": True, "measurements": {"Mean p(IDC)": 0.25}})
        (kept,) = normal(feature)
        assert kept["id"] == feature["id"]
        assert kept["properties"] == {
            "objectType": "annotation",
            "name": "missed- duct",
            "isLocked": True,
            "classification": {"name": "IDC", "color": [200, 0, 0]},
            "measurements": {"Mean p(IDC)": 0.25},
        }
        assert shape(kept["geometry"]).equals(shapely.Polygon(SQUARE))

    def test_an_id_is_given_where_there_is_none(self):
        (kept,) = normal(drawn(id=None))
        assert UUID(kept["id"])

    def test_it_is_its_own_normal_form(self):
        first = normal_form("a slide", collection(drawn(), drawn(name="non-IDC")), SIZE)
        assert normal_form("a slide", first, SIZE) == first
        assert normal_form("a slide", collection(), SIZE) == b'{"type":"FeatureCollection","features":[]}\n'

    def test_a_lasso_that_crosses_itself_is_mended(self):
        (kept,) = normal(drawn([[[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]]))
        assert kept["geometry"]["type"] == "MultiPolygon"
        assert shape(kept["geometry"]).area == pytest.approx(5000)

    def test_an_open_ring_is_closed_and_holes_stay(self):
        hole = [[350, 350], [400, 350], [400, 400]]
        (kept,) = normal(drawn([SQUARE[:-1], hole]))
        assert shape(kept["geometry"]).area == 200 * 200 - 50 * 50 / 2

    @settings(max_examples=60, deadline=None)
    @given(
        hnp.arrays(
            "f8",
            st.tuples(st.integers(3, 12), st.just(2)),
            elements=st.integers(-70_000, 150_000).map(lambda n: n / 97),
        ),
    )
    def test_whatever_is_drawn_is_valid_or_refused(self, points):
        outline = shapely.Polygon(points)
        slack = 0.05 * (outline.length + 1)  # on a raster of 0.01 px no edge moves by more than that
        try:
            (kept,) = normal(drawn([points.tolist()]))
        except RequestError:
            assert shapely.make_valid(outline).area < slack
            return
        area = shape(kept["geometry"])
        # All that lies inside by the rule of odd crossings; no hole; and no edge that nobody drew.
        assert shapely.make_valid(outline).difference(area).area <= slack
        assert shapely.union_all([shapely.Polygon(ring) for ring in exteriors(area)]).difference(area).area <= slack
        assert area.boundary.difference(outline.exterior.buffer(0.05)).length <= slack

    @pytest.mark.parametrize(
        ("feature", "why"),
        [
            (drawn([[[0, 0], [1, 1]]]), "fewer than three points"),
            (drawn([[[0, 0], [5, 5], [9, 9]]]), "no area"),
            (drawn([[[0, 0], [0.001, 0], [0, 0.001]]]), "no area"),
            (drawn([]), "no coordinates|no outline"),
            (drawn([[[0, 0], [math.nan, 0], [0, 9]]]), "finite"),
            (drawn([[[0, 0], [math.inf, 0], [0, 9]]]), "finite"),
            (drawn([[[0, 0], [10**400, 0], [0, 9]]]), "cannot be kept"),
            (drawn([[[0, 0], [5000, 0], [0, 9]]]), "far outside"),
            (drawn([[[0, 0], ["x", 0], [0, 9]]]), "cannot be kept"),
            (drawn([[[0], [1], [2]]]), "cannot be kept"),
            (drawn([[0, 1, 2]]), "cannot be kept"),
            (drawn({"a": 1}), "cannot be kept"),
            (drawn([[0, 0]], kind="Circle"), "no Polygon"),
            (drawn([], kind="MultiPoint"), "no coordinates"),
            (drawn([math.nan, 0], kind="Point"), "finite"),
            (drawn([5000, 0], kind="Point"), "far outside"),
            (drawn({"a": 1}, kind="Point"), "cannot be kept"),
            (drawn([[1], [2]], kind="LineString"), "cannot be kept"),
            (drawn(geometry=None), "no Polygon"),
            (drawn(geometry={"type": "Polygon"}), "cannot be kept"),
            (drawn(name=""), "class"),
            (drawn(name="x" * 201), "200 characters"),
            (drawn(name="a\nb"), "no text"),
            (drawn(name=7), "no text"),
            (drawn(properties={"classification": [1]}), "no class"),
            (drawn(properties={"classification": {"names": ["a", 7]}}), "class is no text"),
            (drawn(properties={"classification": {"name": "IDC", "color": [1, 2, 300]}}), "colour"),
            (drawn(properties={"classification": {"name": "IDC", "color": "red"}}), "colour"),
            (drawn(properties={"measurements": {"a": math.nan}}), "finite"),
            (drawn(properties={"measurements": {"a": True}}), "finite"),
            (drawn(properties={"measurements": [1]}), "measurements"),
            (drawn(properties={"measurements": [{"name": "a", "value": "b"}]}), "finite"),
            (drawn(properties={"metadata": {"a": math.nan}}), "cannot be kept"),
            (drawn(properties={"metadata": {"a": "\ud800"}}), "cannot be kept"),
            (drawn(properties={"measurements": {"\ud800": 1}}), "name"),
            (drawn(properties={"objectType": "cell"}), "objectType"),
            (drawn() | {"properties": [1]}, "cannot be kept"),
            (drawn(id="region 1"), "UUID"),
            (drawn(id=7), "UUID"),
            ({"type": "Point"}, "no Feature"),
            ("text", "no Feature"),
        ],
    )  # fmt: skip
    def test_nonsense_is_refused_by_number(self, feature, why):
        with pytest.raises(RequestError, match=why) as refused:
            normal_form("a slide", collection(drawn(), feature), SIZE)
        assert refused.value.status == 422
        assert "annotation 2" in refused.value.why

    @pytest.mark.parametrize(
        "data",
        [b"", b"{", b"[]", b"\xff", b'{"type":"FeatureCollection"}', b'{"features":[]}', b"[" * 100_000,
         b'{"type":"Feature","features":[]}', b'"text"'],
    )  # fmt: skip
    def test_what_is_no_collection(self, data):
        with pytest.raises(RequestError) as refused:
            normal_form("a slide", data, SIZE)
        assert refused.value.status == 422

    def test_two_of_one_id(self):
        feature = drawn()
        with pytest.raises(RequestError, match="one id"):
            normal_form("a slide", collection(feature, feature), SIZE)

    def test_a_lasso_that_laps_itself_has_no_hole(self):
        twice = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0], [50, 0], [50, 50], [0, 50], [0, 0]]
        (kept,) = normal(drawn([twice]))
        assert shape(kept["geometry"]).area == 100 * 100

    def test_a_hole_that_crosses_itself_stays_a_hole(self):
        hole = [[310, 310], [350, 350], [350, 310], [310, 350], [310, 310]]
        (kept,) = normal(drawn([SQUARE, hole]))
        assert shape(kept["geometry"]).area == pytest.approx(200 * 200 - 800)

    def test_bounds(self, monkeypatch):
        monkeypatch.setattr(drawn_module, "MAX_MENDED", 3)
        assert normal_form("a slide", collection(drawn([[[0, 0], [9, 9], [9, 0], [0, 9]]])), SIZE)
        with pytest.raises(RequestError, match="crosses itself"):
            normal_form("a slide", collection(drawn([[[0, 0], [9, 9], [9, 0], [0, 9], [-1, 5]]])), SIZE)
        monkeypatch.setattr(module, "MAX_FEATURES", 3)
        with pytest.raises(RequestError, match="more than 3 annotations"):
            normal_form("a slide", collection(*[drawn() for _ in range(4)]), SIZE)
        monkeypatch.setattr(module, "MAX_VERTICES", 12)
        assert normal_form("a slide", collection(drawn(), drawn()), SIZE)
        with pytest.raises(RequestError, match="more than 12 points"):
            normal_form("a slide", collection(drawn(), drawn(), drawn()), SIZE)
        with pytest.raises(RequestError, match="more than 12 points"):
            normal_form("a slide", collection(drawn([SQUARE * 3])), SIZE)


class TestEffort:
    """However an outline is knotted, a request is answered soon."""

    @pytest.fixture(autouse=True)
    def soon(self):
        start = time.monotonic()
        yield
        assert time.monotonic() - start < 20

    def tangle(self, points: int, seed: int = 0) -> list[list[float]]:
        rng = np.random.default_rng(seed)
        return (rng.random((points, 2)) * (SIZE.width, SIZE.height)).round(2).tolist()

    def test_a_tangle_is_refused_before_it_is_mended(self):
        """5,000 random points cross themselves some three million times."""
        with pytest.raises(RequestError, match=r"annotation 1 cannot be kept: its .* too often"):
            normal_form("a slide", collection(drawn([self.tangle(5_000)])), SIZE)

    def test_many_small_tangles_are_one_large_one(self):
        """Each would be mended."""
        tangles = [drawn([self.tangle(300, seed)]) for seed in range(40)]
        normal_form("a slide", collection(tangles[0]), SIZE)
        with pytest.raises(RequestError, match="crosses itself too often"):
            normal_form("a slide", collection(*tangles), SIZE)

    def test_as_many_crossings_as_are_mended(self):
        side = 400
        rng = np.random.default_rng(0)
        hatched = [[x, (n % 2) * 700 + rng.random() * 50] for n, x in enumerate(np.linspace(0, 900, side // 2))]
        hatched += [[(n % 2) * 900 + rng.random() * 50, y] for n, y in enumerate(np.linspace(700, 0, side // 2))]
        (kept,) = normal(drawn([hatched]))
        assert shape(kept["geometry"]).is_valid

    def test_a_comb_of_slanting_teeth_is_valid_and_yet_too_much(self):
        """No edge crosses another, but the boxes of all of them meet: GEOS would look at each pair."""
        size = Size(100_000, 100_000)
        left = np.arange(10_000) * 4.0
        teeth = np.stack([np.stack([left, left * 0], 1), np.stack([left + 50_000, left * 0 + 50_000], 1)], 1)
        teeth = np.concatenate([teeth, teeth[:, ::-1] + (2, 0)], 1).reshape(-1, 2)
        with pytest.raises(RequestError, match="too often"):
            normal_form("a slide", collection(drawn([[*teeth.tolist(), [90_000, 90_000], [0, 60_000]]])), size)

    def test_points_are_counted_before_anything_is_mended(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_VERTICES", 1_000)
        monkeypatch.setattr(drawn_module, "_valid", lambda *_: pytest.fail("too late"))
        with pytest.raises(RequestError, match="more than 1,000 points"):
            normal_form("a slide", collection(drawn([self.tangle(1_001)])), SIZE)

    def test_holes_are_counted(self):
        holes = [[[x, y], [x + 1, y], [x, y + 1]] for x in range(310, 490, 3) for y in range(310, 490, 3)]
        assert normal_form("a slide", collection(drawn([SQUARE, *holes[:1_999]])), SIZE)
        with pytest.raises(RequestError, match="more than 2,000 outlines and holes"):
            normal_form("a slide", collection(drawn([SQUARE, *holes[:2_000]])), SIZE)

    def test_a_large_outline_is_nothing_special(self):
        """A circle of 150,000 points, and the staircase along cells that a marked region is."""
        angle = np.linspace(0, 2 * np.pi, 150_000, endpoint=False)
        circle = np.stack([50_000 + 40_000 * np.cos(angle), 50_000 + 40_000 * np.sin(angle)], 1)
        stairs = [[50.0 * ((n + 1) // 2), 50.0 * (n // 2)] for n in range(4_000)]
        features = drawn([circle.tolist()]), drawn([[*stairs, [100_050, 0]]])
        value = json.loads(normal_form("a slide", collection(*features), Size(100_000, 100_000)))
        assert len(value["features"][0]["geometry"]["coordinates"][0]) == 150_001
        assert len(value["features"][1]["geometry"]["coordinates"][0]) >= 4_000


QUPATH = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {  # what QuPath 0.5 writes of points, without a class
                "type": "Feature",
                "id": "8a1d6f06-9e39-4c9a-9c56-70e8e0b8a3d1",
                "geometry": {"type": "MultiPoint", "coordinates": [[100.5, 90], [120, 95]]},
                "properties": {"objectType": "annotation"},
            },
            {  # an ellipse of a derived class, described
                "type": "Feature",
                "id": "0b1c66a5-32d1-4df7-9f9d-3f8a3c5f6ed2",
                "geometry": {"type": "Polygon", "coordinates": [SQUARE], "isEllipse": True, "plane": {"c": -1, "z": 1}},
                "properties": {
                    "objectType": "annotation",
                    "name": "seen: twice",
                    "color": [1, 2, 3],
                    "classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
                    "measurements": {"Area µm^2": 2500.0, "Ratio": "NaN"},
                    "metadata": {"ANNOTATION_DESCRIPTION": "for the meeting"},
                },
            },
            {  # of QuPath 0.3: no UUID, measurements as a list
                "type": "Feature",
                "id": "PathAnnotationObject",
                "geometry": {"type": "LineString", "coordinates": [[1, 2], [3.25, 4]]},
                "properties": {"classification": {"name": "Line"}, "measurements": [{"name": "Length", "value": 2.0}]},
            },
            {  # no annotation at all
                "type": "Feature",
                "id": "5d0ce3a0-7a3c-4e0c-8d3a-b7b0f9d1c111",
                "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
                "properties": {"objectType": "detection", "isLocked": True},
            },
        ],
    },
    indent=2,
).encode()


def as_a_browser_sends(file: bytes) -> list[dict]:
    """Whole numbers have no fraction in JavaScript, and the page gives ids where there are none."""
    features = json.loads(file, parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text))
    sent = features["features"]
    for feature in sent:
        if feature["id"] == "PathAnnotationObject":
            feature["id"] = str(uuid4())
    return sent


class TestFilesOfOtherPrograms:
    def test_what_is_not_touched_stays_as_it_is(self):
        sent = as_a_browser_sends(QUPATH)
        kept = json.loads(normal_form("a slide", collection(*sent, drawn()), SIZE, current=QUPATH))["features"]
        for before, now in zip(json.loads(QUPATH)["features"], kept[:-1], strict=True):
            assert now | {"id": before["id"]} == before
        assert kept[-1]["properties"]["classification"]["name"] == "IDC"
        again = normal_form("a slide", collection(*kept), SIZE, current=collection(*kept))
        assert json.loads(again)["features"] == kept

    def test_what_is_touched_keeps_what_is_not_known_here(self):
        points, ellipse, line, _ = as_a_browser_sends(QUPATH)
        for feature in (points, ellipse, line):
            feature["properties"]["name"] = "changed"
        found = json.loads(normal_form("a slide", collection(points, ellipse, line), SIZE, current=QUPATH))["features"]
        assert [feature["properties"].pop("name") for feature in found] == ["changed"] * 3
        assert found[0]["geometry"] == points["geometry"]
        assert "classification" not in found[0]["properties"]
        assert {key: found[1]["geometry"][key] for key in ("isEllipse", "plane")} == {
            "isEllipse": True,
            "plane": {"c": -1, "z": 1},
        }
        assert found[1]["properties"] == {
            "objectType": "annotation",
            "isLocked": False,
            "color": [1, 2, 3],
            "classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
            "measurements": {"Area µm^2": 2500, "Ratio": "NaN"},
            "metadata": {"ANNOTATION_DESCRIPTION": "for the meeting"},
        }
        assert found[2]["geometry"] == line["geometry"]
        assert found[2]["properties"]["measurements"] == {"Length": 2}

    def test_what_was_never_in_the_file_is_checked_as_ever(self):
        *_, detection = as_a_browser_sends(QUPATH)
        with pytest.raises(RequestError, match="objectType"):
            normal_form("a slide", collection(detection), SIZE)

    @pytest.mark.parametrize("current", [b"", b"\xff", b"[]", b'{"features":7}', b"[" * 100_000, b'{"features":["x"]}'])
    def test_a_file_that_is_none_holds_nothing(self, current):
        assert normal_form("a slide", collection(drawn()), SIZE, current=current)

    def test_the_viewer_saves_beside_them(self, viewer, find, results):
        file = results / "plain" / "röt 1" / "annotations.geojson"
        file.write_bytes(QUPATH)
        url = f"/api/slides/{find(viewer)}/annotations"
        loaded = viewer.get(url)
        sent = as_a_browser_sends(loaded.content)
        saved = viewer.put(url, content=collection(*sent, drawn()), headers={"If-Match": loaded.headers["etag"]})
        assert saved.status_code == 200
        assert len(saved.json()["features"]) == 5
        assert saved.json()["features"][1] == json.loads(QUPATH)["features"][1]


class TestSaving:
    @pytest.fixture
    def url(self, viewer, find) -> str:
        return f"/api/slides/{find(viewer)}/annotations"

    @pytest.fixture
    def file(self, results) -> Path:
        return results / "plain" / "röt 1" / "annotations.geojson"

    def save(self, viewer, url, data: bytes, tag: str):
        return viewer.put(url, content=data, headers={"If-Match": tag, "Content-Type": "application/geo+json"})

    def test_what_was_drawn_is_there_again(self, viewer, url, file):
        empty = viewer.get(url)
        assert empty.json() == {"type": "FeatureCollection", "features": []}
        assert not file.exists()
        saved = self.save(viewer, url, collection(drawn()), empty.headers["etag"])
        assert saved.status_code == 200
        assert saved.content == file.read_bytes() == viewer.get(url).content
        assert viewer.get(url).headers["etag"] == saved.headers["etag"] != empty.headers["etag"]
        again = self.save(viewer, url, collection(drawn(), drawn()), saved.headers["etag"])
        assert again.status_code == 200
        assert len(viewer.get(url).json()["features"]) == 2
        assert [path.name for path in file.parent.iterdir() if "annotations" in path.name] == ["annotations.geojson"]

    def test_two_tabs_do_not_overwrite_each_other(self, viewer, url, file):
        seen = viewer.get(url).headers["etag"]
        first = self.save(viewer, url, collection(drawn(name="first")), seen)
        before = file.read_bytes()
        second = self.save(viewer, url, collection(drawn(name="second")), seen)
        assert second.status_code == 412
        assert second.headers["etag"] == first.headers["etag"]
        assert "another tab" in second.json()["error"]["hint"]
        assert file.read_bytes() == before
        assert self.save(viewer, url, collection(drawn(name="second")), second.headers["etag"]).status_code == 200

    def test_a_file_changed_by_another_program_is_not_overwritten(self, viewer, url, file):
        tag = self.save(viewer, url, collection(drawn()), viewer.get(url).headers["etag"]).headers["etag"]
        file.write_bytes(collection(drawn(name="from QuPath")))
        assert self.save(viewer, url, collection(), tag).status_code == 412

    @pytest.mark.parametrize("tag", [None, "*", '"x"', ""])
    def test_who_does_not_say_what_was_seen_is_refused(self, viewer, url, file, tag):
        headers = {} if tag is None else {"If-Match": tag}
        answer = viewer.put(url, content=collection(drawn()), headers=headers)
        assert answer.status_code == (428 if tag is None else 412)
        assert not file.exists()

    def test_nonsense_leaves_the_file_alone(self, viewer, url, file):
        tag = self.save(viewer, url, collection(drawn()), viewer.get(url).headers["etag"]).headers["etag"]
        before = file.read_bytes()
        refused = self.save(viewer, url, collection(drawn([[[0, 0], [1, 1]]])), tag)
        assert refused.status_code == 422
        assert "annotation 1" in refused.json()["error"]["why"]
        assert file.read_bytes() == before

    def test_a_disk_that_is_full_leaves_the_file_alone(self, viewer, url, file, monkeypatch):
        tag = self.save(viewer, url, collection(drawn()), viewer.get(url).headers["etag"]).headers["etag"]
        before = file.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("wsi_pipeline.files.sync", full)
        refused = self.save(viewer, url, collection(), tag)
        assert refused.status_code == 507
        assert OutputError.__name__ not in refused.text
        assert "No space left" in refused.json()["error"]["why"]
        assert file.read_bytes() == before
        assert [path.name for path in file.parent.iterdir() if "part" in path.name] == []

    def test_it_does_not_follow_a_link_out_of_the_results(self, viewer, url, file, tmp_path):
        outside = tmp_path / "outside.geojson"
        outside.write_bytes(collection(drawn(name="secret")))
        file.symlink_to(outside)
        before = outside.read_bytes()
        assert viewer.get(url).status_code == 404
        assert self.save(viewer, url, collection(), f'"{"0" * 32}"').status_code == 404
        assert outside.read_bytes() == before

    def test_who_sends_too_many_leaves_threads_for_the_others(self, viewer, url, monkeypatch):
        go, real = threading.Event(), module.normal_form

        def slow(*args, **more):
            go.wait(20)
            return real(*args, **more)

        monkeypatch.setattr(module, "normal_form", slow)
        tag = viewer.get(url).headers["etag"]
        with ThreadPoolExecutor(30) as threads:
            asked = [threads.submit(self.save, viewer, url, collection(), tag) for _ in range(30)]
            while sum(ask.done() for ask in asked) < 21:
                threading.Event().wait(0.01)
            assert viewer.get("/api/run").status_code == 200
            go.set()
            answers = [ask.result() for ask in asked]
        assert sorted({answer.status_code for answer in answers}) in ([200, 412, 503], [200, 503])
        busy = [answer for answer in answers if answer.status_code == 503]
        assert len(busy) == 21
        assert busy[0].headers["retry-after"]
        assert self.save(viewer, url, collection(drawn()), viewer.get(url).headers["etag"]).status_code == 200

    def test_a_file_of_any_size_or_kind_is_not_read(self, viewer, url, file, monkeypatch):
        monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
        file.write_bytes(b" " * ((1 << 20) + 1))
        for answer in (viewer.get(url), self.save(viewer, url, collection(), '"x"')):
            assert answer.status_code == 422
            assert "1 MiB" in answer.json()["error"]["why"]
        file.unlink()
        os.mkfifo(file)
        assert viewer.get(url).status_code == 422  # nobody writes into it: reading would wait for ever
        file.unlink()
        file.mkdir()
        assert viewer.get(url).status_code == 422

    def test_a_failed_slide_takes_none(self, viewer, find):
        url = f"/api/slides/{find(viewer, name='broken')}/annotations"
        assert viewer.get(url).status_code == 409
        assert self.save(viewer, url, collection(drawn()), '"x"').status_code == 409

    def test_another_run_of_the_slide_keeps_them(self, viewer, url, file):
        self.save(viewer, url, collection(drawn()), viewer.get(url).headers["etag"])
        from wsi_pipeline.outputs import remove_derived

        remove_derived(file.parent)
        assert file.exists()

    def test_extract_cuts_patches_by_them(self, viewer, url, file, slide, tmp_path):
        """QuPath's frame, the class and the area survive: labels are those of the square that was drawn."""
        self.save(viewer, url, collection(drawn()), viewer.get(url).headers["etag"])
        read = read_annotations(file)
        assert read.counts == {"IDC": 1}
        assert read.notes == ()
        assert read.shapes["IDC"][0].equals(shapely.MultiPolygon([shapely.Polygon(SQUARE)]))
        command = ["extract", str(slide), "--annotations", str(file), "--out", str(tmp_path / "patches")]
        small = ["--tissue-min-area-um2", "500", "--tissue-min-hole-um2", "500", "--tissue-closing-um", "4"]
        assert main([*command, *small]) == OK
        positive = {path.stem.split("_", 1)[1] for path in (tmp_path / "patches").glob("*/1/*.png")}
        expected = {f"idx5_x{x + 1}_y{y + 1}_class1" for x in range(300, 500, 50) for y in range(300, 500, 50)}
        assert positive == expected

    def test_what_the_pipeline_found_can_be_marked_as_wrong(self, viewer, url, find):
        found = viewer.get(f"/api/slides/{find(viewer)}/regions").json()["features"]
        assert found
        marked = [
            {**feature, "properties": {**feature["properties"], "classification": {"name": "non-IDC"}}}
            for feature in found
        ]
        saved = self.save(viewer, url, collection(*marked), viewer.get(url).headers["etag"]).json()
        check_geojson(saved)
        for before, after in zip(found, saved["features"], strict=True):
            assert after["id"] == before["id"]
            assert after["properties"]["measurements"] == before["properties"]["measurements"]
            assert mapping(shape(after["geometry"]).normalize()) == mapping(shape(before["geometry"]).normalize())
