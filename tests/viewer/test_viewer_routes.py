"""The HTTP interface against the files of the results."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from qupath_rules import check_geojson

from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.slides import open_slide
from wsi_pipeline.viewer import maps as maps_module
from wsi_pipeline.viewer import regions as regions_module
from wsi_pipeline.viewer import results as results_module


def summary_of(results, run: str) -> dict:
    return json.loads((results / run / "röt 1" / "summary.json").read_text(encoding="utf-8"))


def error_of(answer) -> dict[str, str]:
    error = answer.json()["error"]
    assert set(error) == {"where", "why", "hint"}
    assert answer.headers["cache-control"] == "no-store"
    return error


class TestDescriptions:
    def test_a_viewer_without_its_javascript_says_so_as_it_starts(self, open_viewer, results, monkeypatch, caplog):
        monkeypatch.setattr("wsi_pipeline.viewer.app.WEB", results)
        open_viewer(results)
        assert "built without OpenSeadragon" in caplog.text
        assert "python hatch_build.py" in caplog.text

    def test_the_rows_are_those_of_the_summaries(self, viewer, results):
        listing = viewer.get("/api/run").json()
        assert listing["title"] == "results"
        assert listing["research_use"] == "For research use only"
        assert [run["name"] for run in listing["runs"]] == ["plain", "tta"]
        names = {run["id"]: run["name"] for run in listing["runs"]}
        rows = {(names[row["run"]], row["name"]): row for row in listing["slides"]}
        for run in ("plain", "tta"):
            summary, row = summary_of(results, run), rows[run, "röt 1"]
            assert row["status"] == "done"
            assert row["error"] is None
            shared = row.keys() & summary.keys()
            assert {"idc_mm2", "idc_fraction", "tissue_mm2", "regions", "threshold", "model"} <= shared
            assert {key: row[key] for key in shared} == {key: summary[key] for key in shared}
            assert row["has_spread"] is (run == "tta")
        failed = rows["plain", "broken"]
        assert failed["status"] == "failed"
        assert failed["error"]["why"]
        assert failed["idc_mm2"] is None

    def test_the_first_slide_can_be_opened_ahead(self, viewer, results):
        state = viewer.app.state.viewer
        assert state.pool.open == 0
        state.warm_up()
        assert state.pool.open == 1
        for file in results.rglob("summary.json"):
            file.write_text("damaged")
        state.results.look_again()
        state.warm_up()  # says nothing: the gallery does

    def test_a_path_that_is_no_utf8(self, viewer, find, results):
        file = results / "plain" / "röt 1" / "summary.json"
        path = "/slides/caf\udce9.svs"
        file.write_text(json.dumps(summary_of(results, "plain") | {"path": path}), encoding="ascii")
        answer = viewer.get(f"/api/slides/{find(viewer, 'plain')}")
        assert (answer.status_code, answer.json()["summary"]["path"]) == (200, path)

    def test_a_slide(self, viewer, find, made, slide):
        plain, tta = find(viewer, "plain"), find(viewer, "tta")
        facts = viewer.get(f"/api/slides/{plain}").json()
        grid = Heatmap.open(made / "plain" / "röt 1" / "heatmap.zarr").grid
        assert (facts["width"], facts["height"], facts["mpp"]) == (1000, 800, [0.25, 0.25])
        assert (facts["tile_size"], facts["overlap"], facts["max_level"]) == (254, 1, 10)
        assert (facts["grid"]["rows"], facts["grid"]["cols"]) == grid.shape
        assert (facts["grid"]["origin"], facts["grid"]["step"]) == ([0, 0], [50, 50])
        assert (facts["class_name"], facts["threshold"], facts["threshold_source"]) == ("IDC", 0.85, "user")
        assert facts["slide_available"] is True
        assert facts["slide_problem"] is None
        assert facts["show_label"] is False
        assert facts["same_slide"] == [tta]
        assert viewer.get(f"/api/slides/{tta}").json()["same_slide"] == [plain]
        assert facts["summary"]["path"] == str(slide)
        assert facts["region_settings"] == {"low_threshold": None, "min_region_um2": 200, "smooth_um": 0}

    def test_a_failed_slide_has_its_error_and_nothing_else(self, viewer, find):
        failed = find(viewer, name="broken")
        facts = viewer.get(f"/api/slides/{failed}").json()
        assert facts["status"] == "failed"
        assert facts["error"]["where"].endswith("broken.tiff")
        for part in (
            "thumbnail.jpg",
            "tiles/0/0_0.jpg",
            "probability",
            "regions",
            "annotations",
            "card",
            "overlay.png",
        ):
            answer = viewer.get(f"/api/slides/{failed}/{part}")
            assert answer.status_code == 409, part
            assert "failed in the run" in error_of(answer)["why"]

    def test_the_card_of_a_model_without_one_is_what_the_run_noted(self, viewer, find, results):
        card = viewer.get(f"/api/slides/{find(viewer)}/card").json()
        record = json.loads((results / "plain" / "run.json").read_text(encoding="utf-8"))
        assert card["name"] == record["bundle"]["name"]
        assert card["run"]["digest"] == record["bundle"]["digest"]
        assert card["same_as_run"] is None
        assert "path" not in card["run"]

    @pytest.mark.parametrize("change", [False, True])
    def test_the_card_of_a_bundle_and_whether_it_is_the_runs(self, viewer, find, results, tmp_path, change):
        from hashlib import sha256

        from wsi_pipeline.models import card as cards

        shipped = cards.__file__.replace("card.py", "bundles/idc-resnet18/model.json")
        (tmp_path / "bundle").mkdir()
        data = shutil.copy(shipped, tmp_path / "bundle" / "model.json").read_bytes()
        parsed = json.loads(data)
        digest = sha256(data + parsed["weights"]["sha256"].encode()).hexdigest()
        for file, edit in (
            (results / "plain" / "run.json", {"bundle": {"name": parsed["name"], "path": str(tmp_path / "bundle")}}),
            (results / "plain" / "röt 1" / "summary.json", {"model": parsed["name"]}),
        ):
            value = json.loads(file.read_text(encoding="utf-8")) | edit
            if "identity" in value:
                value["identity"]["bundle"] = digest
            file.write_text(json.dumps(value), encoding="utf-8")
        if change:
            (tmp_path / "bundle" / "model.json").write_text(json.dumps(parsed | {"description": "altered"}))
        card = viewer.get(f"/api/slides/{find(viewer)}/card").json()
        assert card["name"] == parsed["name"]
        assert card["metrics"] == parsed["metrics"]
        assert card["same_as_run"] is not change

    def test_a_file_that_is_no_card_is_not_shown(self, viewer, find, results, tmp_path):
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "model.json").write_text('{"name": "redness", "password": "x"}')
        file = results / "plain" / "run.json"
        record = json.loads(file.read_text(encoding="utf-8"))
        record["bundle"]["path"] = str(secret)
        file.write_text(json.dumps(record), encoding="utf-8")
        assert "password" not in viewer.get(f"/api/slides/{find(viewer)}/card").text


class TestPictures:
    def test_a_tile_is_the_slide_there(self, viewer, find, slide):
        base = f"/api/slides/{find(viewer)}"
        with open_slide(slide) as opened:
            pixels = opened.read_level(0, opened.info.bounds)
        answer = viewer.get(f"{base}/tiles/10/1_2.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        tile = np.asarray(Image.open(BytesIO(answer.content))).astype(int)
        assert tile.shape == (256, 256, 3)
        assert np.abs(tile - pixels[2 * 254 - 1 : 3 * 254 + 1, 253 : 2 * 254 + 1]).mean() < 6
        with Image.open(BytesIO(viewer.get(f"{base}/thumbnail.jpg").content)) as thumbnail:
            assert thumbnail.size == (512, 410)

    def test_tiles_are_kept_by_the_browser(self, viewer, find):
        url = f"/api/slides/{find(viewer)}/tiles/10/0_0.jpg"
        first = viewer.get(url)
        assert first.headers["cache-control"].startswith("private, max-age=")
        again = viewer.get(url, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert viewer.get(url, headers={"If-None-Match": '"other"'}).status_code == 200

    @pytest.mark.parametrize(
        "tile",
        ["11/0_0", "10/4_0", "10/0_4", "0/1_0", "-1/0_0", "10/-1_0", "10/0_-1", "10/99999999999999999999_0", "41/0_0",
         "10/0", "x/0_0", "10/1.5_0", "1e1/0_0", "10/0_0.jpg/..", "10/%30_0%00"],
    )  # fmt: skip
    def test_there_are_no_other_tiles(self, viewer, find, tile):
        answer = viewer.get(f"/api/slides/{find(viewer)}/tiles/{tile}.jpg")
        assert answer.status_code == 404
        error_of(answer)

    def test_the_overlay(self, viewer, find, results):
        answer = viewer.get(f"/api/slides/{find(viewer)}/overlay.png")
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == (results / "plain" / "röt 1" / "overlay.png").read_bytes()

    def test_the_label_is_not_shown_unless_asked_for(self, viewer, open_viewer, results, find):
        refused = viewer.get(f"/api/slides/{find(viewer)}/label.jpg")
        assert refused.status_code == 403
        assert "--show-label" in error_of(refused)["hint"]
        shown = open_viewer(results, show_label=True)
        assert shown.get(f"/api/slides/{find(shown)}/label.jpg").status_code == 404  # this slide has none

    def test_a_map_too_large_to_be_kept_is_not_read_for_every_tile(self, open_viewer, results, find, monkeypatch):
        reads: list[str] = []
        real = maps_module._read
        monkeypatch.setattr(maps_module, "_read", lambda entry: (reads.append(entry.id), real(entry))[1])
        viewer = open_viewer(results, map_cache_bytes=0)
        base = f"/api/slides/{find(viewer)}"
        for part in ("tiles/10/0_0.jpg", "tiles/10/1_0.jpg", "tiles/10/2_0.jpg", "thumbnail.jpg", "tiles/9/0_0.jpg"):
            assert viewer.get(f"{base}/{part}").status_code == 200
        assert viewer.put(f"{base}/annotations", content=b"{}", headers={"If-Match": '"x"'}).status_code == 422
        assert len(reads) == 1
        assert viewer.get(f"{base}/probability").status_code == 200
        assert len(reads) == 2

    def test_many_at_once(self, viewer, find):
        urls = [f"/api/slides/{find(viewer)}/tiles/10/{n % 4}_{n // 4 % 4}.jpg" for n in range(64)]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(viewer.get, urls))
        assert {answer.status_code for answer in answers} == {200}
        bodies = {url: {answer.content for u, answer in zip(urls, answers, strict=True) if u == url} for url in urls}
        assert all(len(found) == 1 for found in bodies.values())


class TestMaps:
    @pytest.mark.parametrize("run", ["plain", "tta"])
    def test_arrays_are_those_of_the_heatmap(self, viewer, find, made, run):
        heatmap = Heatmap.open(made / run / "röt 1" / "heatmap.zarr")
        base = f"/api/slides/{find(viewer, run)}"
        answer = viewer.get(f"{base}/probability")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-encoding"] == "gzip"
        values = np.frombuffer(answer.content, "<f4").reshape(heatmap.grid.shape)
        assert np.array_equal(values, heatmap.probability("IDC"), equal_nan=True)
        assert np.isnan(values).any()
        tissue = np.frombuffer(viewer.get(f"{base}/tissue").content, "u1").reshape(heatmap.grid.shape)
        assert np.array_equal(tissue, heatmap.tissue)
        spread = viewer.get(f"{base}/spread")
        assert spread.status_code == (200 if run == "tta" else 404)
        if run == "tta":
            found = np.frombuffer(spread.content, "<f4").reshape(heatmap.grid.shape)
            assert np.array_equal(found, heatmap.spread(), equal_nan=True)
        assert viewer.get(f"{base}/unrefined").status_code == 404

    def test_they_are_asked_for_anew_and_change_with_the_result(self, viewer, find, results, monkeypatch):
        monkeypatch.setattr(results_module, "_FRESH_S", 0.0)
        url = f"/api/slides/{find(viewer)}/probability"
        first = viewer.get(url)
        assert first.headers["cache-control"] == "private, no-cache"
        assert viewer.get(url, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        folder = results / "plain" / "röt 1"
        shutil.rmtree(folder)
        shutil.copytree(results / "tta" / "röt 1", folder)
        summary = summary_of(results, "plain")
        (folder / "summary.json").write_text(json.dumps(summary | {"note": "made again"}), encoding="utf-8")
        second = viewer.get(url, headers={"If-None-Match": first.headers["etag"]})
        assert second.status_code == 200
        assert second.headers["etag"] != first.headers["etag"]

    def test_a_damaged_heatmap_is_told(self, viewer, find, results):
        store = results / "plain" / "röt 1" / "heatmap.zarr"
        (store / "zarr.json").write_text("{}")
        answer = viewer.get(f"/api/slides/{find(viewer)}/probability")
        assert answer.status_code == 422
        assert error_of(answer)["why"]
        shutil.rmtree(store)
        assert viewer.get(f"/api/slides/{find(viewer)}").status_code == 404

    def test_links_in_a_heatmap_do_not_lead_out(self, viewer, find, results, tmp_path):
        store = results / "plain" / "röt 1" / "heatmap.zarr"
        chunk = next(path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json")
        shutil.move(chunk, tmp_path / "chunk")
        chunk.symlink_to(tmp_path / "chunk")
        answer = viewer.get(f"/api/slides/{find(viewer)}/probability")
        assert answer.status_code == 404
        assert "links out" in error_of(answer)["why"]


class TestRegions:
    @pytest.mark.parametrize("run", ["plain", "tta"])
    def test_at_the_runs_threshold_they_are_its_file(self, viewer, find, made, run):
        answer = viewer.get(f"/api/slides/{find(viewer, run)}/regions")
        assert answer.headers["content-type"] == "application/geo+json"
        written = json.loads((made / run / "röt 1" / "regions.geojson").read_text(encoding="utf-8"))
        assert written["features"]
        assert answer.json() == written

    def test_they_shrink_as_the_threshold_rises(self, viewer, find):
        base = f"/api/slides/{find(viewer)}/regions"
        areas = []
        for threshold in (0.0, 0.7, 0.85, 0.9, 1.0):
            found = viewer.get(base, params={"threshold": threshold, "smooth_um": 3}).json()
            check_geojson(found)
            areas.append(sum(f["properties"]["measurements"]["Area um2"] for f in found["features"]))
        assert areas == sorted(areas, reverse=True)
        assert areas[0] > areas[2] > areas[-1] == 0

    def test_the_low_threshold_of_a_run_is_never_above(self, viewer, find, results):
        file = results / "plain" / "run.json"
        record = json.loads(file.read_text(encoding="utf-8"))
        record["settings"]["regions"] |= {"low_threshold": 0.8, "min_region_um2": 0}
        file.write_text(json.dumps(record), encoding="utf-8")
        base = f"/api/slides/{find(viewer)}/regions"
        own, low = (
            sum(f["properties"]["measurements"]["Cells"] for f in viewer.get(base, params=query).json()["features"])
            for query in ({"threshold": 0.85}, {"threshold": 0.75})
        )
        heatmap = Heatmap.open(results / "plain" / "röt 1" / "heatmap.zarr").probability("IDC")
        assert low == (heatmap >= 0.75).sum() > own > (heatmap >= 0.85).sum()

    def test_a_download_has_a_name(self, viewer, find):
        url = f"/api/slides/{find(viewer)}/regions"
        saved = viewer.get(url, params={"threshold": 0.9, "download": 1})
        assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''r%C3%B6t%201-regions-0.900.geojson"
        assert "content-disposition" not in viewer.get(url, params={"threshold": 0.9}).headers

    @pytest.mark.parametrize(
        "query",
        ["threshold=1.01", "threshold=-0.1", "threshold=nan", "threshold=inf", "threshold=x", "threshold=",
         "smooth_um=-1", "smooth_um=nan", "smooth_um=1e9", "smooth_um=x", "threshold=0.5&download=maybe"],
    )  # fmt: skip
    def test_nonsense_is_refused(self, viewer, find, query):
        answer = viewer.get(f"/api/slides/{find(viewer)}/regions?{query}")
        assert answer.status_code == 422
        assert error_of(answer)["where"] in {"threshold", "smooth_um", "download"}

    def test_only_so_many_are_found_at_once(self, viewer, find, monkeypatch):
        url = f"/api/slides/{find(viewer)}/regions"
        running, most, lock, go = 0, 0, threading.Lock(), threading.Event()
        real = regions_module.find_regions

        def slow(*args, **options):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            go.wait(20)
            with lock:
                running -= 1
            return real(*args, **options)

        monkeypatch.setattr(regions_module, "find_regions", slow)
        with ThreadPoolExecutor(30) as threads:
            asked = [threads.submit(viewer.get, url, params={"threshold": n / 100}) for n in range(24)]
            deadline = time.monotonic() + 15
            while (most < 2 or not any(ask.done() for ask in asked)) and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            go.set()
            answers = [ask.result() for ask in asked]
        assert most == 2
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.headers["retry-after"]
        assert viewer.get(url, params={"threshold": 0.5}).status_code == 200


class TestNothingElse:
    def test_ids_are_looked_up_and_never_joined(self, viewer, results, find):
        good = find(viewer)
        for wrong in (
            *("plain", "röt 1", "plain%2Fr%C3%B6t%201", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd"),
            *(good.upper(), good[:-1], good + "0", "0" * 16, "..%5c..%5cwindows", "%00", str(results)),
        ):
            for part in ("", "/overlay.png", "/probability", "/annotations", "/card"):
                answer = viewer.get(f"/api/slides/{wrong}{part}")
                assert answer.status_code == 404, wrong
                error_of(answer)

    @pytest.mark.parametrize(
        "path",
        ["summary.json", "heatmap.zarr", "heatmap.zarr/zarr.json", "regions.geojson", "overlay.png/", "..", "tiles",
         "%2e%2e/run.json", "overlay.png%00", "..%2f..%2frun.json", "tissue.png", "thumbnail.png"],
    )  # fmt: skip
    def test_other_files_of_a_result_are_not_given_out(self, viewer, find, path):
        assert viewer.get(f"/api/slides/{find(viewer)}/{path}").status_code == 404

    @pytest.mark.parametrize(
        "path",
        ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/%2e%2e%2fapp.py",
         "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..%5capp.py", "/static/", "/static", "/docs",
         "/openapi.json", "/redoc", "/run.json", "/plain/run.json", "/api", "/api/", "//etc/passwd", "/etc/passwd"],
    )  # fmt: skip
    def test_no_path_leads_to_other_files(self, viewer, path):
        answer = viewer.get(path)
        assert answer.status_code == 404
        error_of(answer)

    def test_other_methods(self, viewer, find):
        base = f"/api/slides/{find(viewer)}"
        for method in ("POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "PUT"):
            answer = viewer.request(method, f"{base}/probability")
            assert answer.status_code == 405
            assert "access-control-allow-origin" not in answer.headers
        assert viewer.delete(f"{base}/annotations").status_code == 405

    def test_the_whole_application_is_behind_the_layer(self, viewer, find, results, open_viewer):
        url = f"/api/slides/{find(viewer)}/annotations"
        assert viewer.get("/api/run", headers={"Host": "evil.example"}).status_code == 421
        assert viewer.put(url, content=b"{}", headers={"Origin": "http://evil.example"}).status_code == 403
        assert viewer.put(url, content=b" " * ((8 << 20) + 1), headers={"If-Match": '"x"'}).status_code == 413

        def pieces():
            for _ in range(9):
                yield b" " * (1 << 20)

        assert viewer.put(url, content=pieces(), headers={"If-Match": '"x"'}).status_code == 413
        locked = open_viewer(results, token="a-token-of-the-test-0123456789")
        assert {locked.get(path).status_code for path in ("/", "/api/run", url, "/static/index.html")} == {401}

    def test_a_fault_of_the_program_keeps_its_inner_life(self, viewer, find, monkeypatch):
        def broken(*_):
            raise ZeroDivisionError("a secret of the program")

        monkeypatch.setattr("wsi_pipeline.viewer.routes.describe_results", broken)
        answer = viewer.get("/api/run")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.json()["error"]["hint"]
