"""A real worker: from a submitted slide to its results, which are those of a run."""

import csv
import json
import shutil
from io import BytesIO, StringIO
from zipfile import ZipFile

import numpy as np
import pytest
import zarr
from PIL import Image
from starlette.testclient import TestClient
from waiting import wait_for, wait_for_end

from wsi_pipeline import pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.service.app import create_app
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.service import open_service

pytestmark = pytest.mark.slow

SETTINGS = {"workers": 0, "batch_size": 64, "device": "cpu", "engine": "torch", "threshold": 0.85,
            "tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4,
            "min_region_um2": 200}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory, slide, bundle):
    root = tmp_path_factory.mktemp("root")
    shutil.copyfile(slide, root / "röt 1.tiff")
    (root / "broken.tiff").write_bytes(slide.read_bytes()[:2000])
    options = ServiceOptions(
        roots=(root,),
        out=tmp_path_factory.mktemp("served"),
        models=("idc-resnet18", str(bundle)),
        settings=load_settings(None, SETTINGS),
    )
    with open_service(options) as service:
        app = create_app(service)
        with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as opened:
            yield opened


@pytest.fixture(scope="module")
def job(client):
    """A finished job with settings of its own."""
    request = {"slide": "röt 1.tiff", "model": "redness", "settings": {"threshold": 0.8, "tta": True}}
    taken = client.post("/api/jobs", json=request)
    assert taken.status_code == 201
    assert taken.headers["location"] == f"/api/jobs/{taken.json()['id']}"
    return wait_for_end(client, taken.json()["id"])


@pytest.fixture(scope="module")
def direct(tmp_path_factory, client, bundle):
    """The same by `pipeline.run`."""
    out = tmp_path_factory.mktemp("direct")
    slide = client.app.state.service.roots.folders[0] / "röt 1.tiff"
    pipeline.run(
        [str(slide)], out, load_settings(None, {**SETTINGS, "model": str(bundle), "threshold": 0.8, "tta": True})
    )
    return out / "röt 1"


def test_the_document(job):
    assert job["status"] == "done", job["error"]
    assert job["settings"] == {"threshold": 0.8, "tta": True}
    assert (job["slide"], job["model"], job["tries"], job["error"]) == ("röt 1.tiff", "redness", 1, None)
    assert job["cells"]["done"] == job["cells"]["total"] > 0
    assert job["created"] < job["started"] < job["finished"]
    assert job["research_use"] == "For research use only"


def test_the_summary_is_that_of_a_run(client, job, direct):
    found, expected = client.get(job["links"]["summary"]).json(), json.loads((direct / "summary.json").read_text())
    assert found.pop("seconds").keys() == expected.pop("seconds").keys()
    assert found == expected
    assert found["note"] == "For research use only"


def test_the_probability_is_that_of_a_run(client, job, direct):
    answer = client.get(job["links"]["probability"])
    found = np.load(BytesIO(answer.content), allow_pickle=False)
    np.testing.assert_array_equal(found, Heatmap.open(direct / "heatmap.zarr").probability("IDC"))
    assert answer.headers["x-note"] == "For research use only"


def test_zarr_opens_the_heatmap_as_it_is(client, job, tmp_path, direct):
    answer = client.get(job["links"]["heatmap"])
    file = tmp_path / "map.zip"
    file.write_bytes(answer.content)
    assert int(answer.headers["content-length"]) == len(answer.content)
    with ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "zarr.json"
    group = zarr.open_group(zarr.storage.ZipStore(file, mode="r"), mode="r")
    whole = zarr.open_group(direct / "heatmap.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], whole["0"][:])


def test_the_regions_at_the_own_and_another_threshold(client, job, direct):
    own = client.get(job["links"]["regions"])
    assert own.headers["content-type"] == "application/geo+json"
    expected = json.loads((direct / "regions.geojson").read_text())["features"]
    assert [feature["geometry"] for feature in own.json()["features"]] == [f["geometry"] for f in expected]
    none = client.get(job["links"]["regions"], params={"threshold": 1})
    assert none.json()["features"] == []
    for wrong in ("2", "-0.1", "nan", "x"):
        assert client.get(job["links"]["regions"], params={"threshold": wrong}).status_code == 422


def test_the_overlay_is_a_picture(client, job, direct):
    data = client.get(job["links"]["overlay"]).content
    with Image.open(BytesIO(data)) as found, Image.open(direct / "overlay.png") as expected:
        assert found.size == expected.size


def test_the_viewer_of_the_same_server_shows_it(client, job):
    (row,) = [row for row in client.get("/api/run").json()["slides"] if row["name"] == "röt 1"]
    listed = client.get(f"/api/jobs/{job['id']}").json()
    assert listed["links"]["page"] == f"/#/slide/{row['id']}"
    assert row["status"] == "done"
    assert client.get(f"/api/slides/{row['id']}").json()["slide_available"]
    assert client.get(f"/api/slides/{row['id']}/tiles/0/0_0.jpg").status_code == 200
    assert "<html" in client.get("/").text


def test_events_from_the_start_to_the_end(client):
    taken = client.post("/api/jobs", json={"slide": "röt 1.tiff", "model": "redness", "settings": {"cell": "5um"}})
    with client.stream("GET", taken.json()["links"]["events"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(stream.iter_text()).split("\n\n")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks if block]
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    assert {event["event"] for event in events[:-1]} == {"job"}
    assert events[-1]["event"] == "end"
    states = [json.loads(event["data"]) for event in events]
    order = ["queued", "running", "done"]
    places = [order.index(state["status"]) for state in states]
    assert places == sorted(places)
    assert places[-1] == 2
    assert {"page", "summary", "heatmap"} <= states[-1]["links"].keys()
    done = [state["cells"]["done"] for state in states if state["cells"]]
    assert done == sorted(done)


def test_a_broken_slide_fails_with_its_reason_and_shows_as_failed(client):
    taken = client.post("/api/jobs", json={"slide": "broken.tiff", "model": "redness"}).json()
    ended = wait_for_end(client, taken["id"])
    assert ended["status"] == "failed"
    assert ended["error"]["where"].endswith("broken.tiff")
    assert ended["error"]["why"]
    for name in ("summary", "probability.npy", "heatmap.zip", "regions.geojson", "overlay.png"):
        assert client.get(f"/api/jobs/{taken['id']}/{name}").status_code == 409

    def shown() -> list[str]:  # the gallery looks at the folders once a second
        return [row["status"] for row in client.get("/api/run").json()["slides"] if row["name"] == "broken"]

    assert wait_for(shown) == ["failed"]


def test_results_that_were_removed(client):
    taken = client.post("/api/jobs", json={"slide": "röt 1.tiff", "model": "redness"}).json()
    wait_for_end(client, taken["id"])
    service = client.app.state.service
    assert client.get(f"/api/jobs/{taken['id']}/summary").status_code == 200
    shutil.rmtree(service.options.out / taken["id"])
    service.viewer.results.look_again()
    assert client.get(f"/api/jobs/{taken['id']}/summary").status_code == 404


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"threshold": 2}, "threshold"), ({"cell": "0.1um"}, "too small"), ({"cell": "soup"}, "no cell size"),
     ({"low_threshold": 0.9}, "low_threshold"), ({"mpp_csv": "/etc/passwd"}, "mpp_csv"), ({"model": "/tmp"}, "model"),
     ({"tissue_max_px": 10**9}, "tissue_max_px"), ({"device": "cuda"}, "device"), ({"tta": "yes"}, "tta"),
     ({"mpp": 1e999}, "")],
)  # fmt: skip
def test_settings_that_are_refused(client, settings, word):
    content = json.dumps({"slide": "röt 1.tiff", "model": "redness", "settings": settings})
    answer = client.post("/api/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert word in json.dumps(answer.json()["error"])


def test_slides_that_are_refused(client):
    for name, status in [("../x", 403), ("/etc/passwd", 403), ("none.tiff", 404), ("", 422), ("s3://b/a.svs", 422)]:
        answer = client.post("/api/jobs", json={"slide": name})
        assert answer.status_code == status, name
        assert set(answer.json()["error"]) == {"where", "why", "hint"}


def test_the_list_by_pages(client, job):
    listed = client.get("/api/jobs").json()["jobs"]
    assert job["id"] in {entry["id"] for entry in listed}
    found, before = [], None
    while True:
        page = client.get("/api/jobs", params={"limit": 2} | ({"before": before} if before else {})).json()
        found += [entry["id"] for entry in page["jobs"]]
        before = page["next"]
        if before is None:
            break
    assert found == [entry["id"] for entry in listed]
    assert all(entry["status"] == "done" for entry in client.get("/api/jobs?status=done").json()["jobs"])


def test_each_job_is_a_run_with_its_own_record(client, job):
    folder = client.app.state.service.options.out / job["id"]
    table = list(csv.DictReader(StringIO((folder / "summary.csv").read_text())))
    assert [row["slide"] for row in table] == ["röt 1"]
    assert "For research use only" in (folder / "report.html").read_text()
