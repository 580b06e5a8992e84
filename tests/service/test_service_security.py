"""The interface is as closed as the viewer, and says so in its description."""

import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from wsi_pipeline.service.app import create_app
from wsi_pipeline.service.service import open_service

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
TOKEN = "a-token-of-the-test-0123456789"


@pytest.fixture
def closed(options):
    """A client of a service with a token."""
    with (
        open_service(options(viewer={"token": TOKEN}), FAKE) as service,
        TestClient(create_app(service), base_url="http://127.0.0.1:8765") as client,
    ):
        yield client


def test_nothing_without_the_token(closed):
    for path in ("/openapi.json", "/api/service", "/api/jobs", "/api/run", "/"):
        assert closed.get(path).status_code == 401
    assert closed.post("/api/jobs", json={"slide": "slide.tiff"}).status_code == 401
    assert closed.post(f"/api/jobs?token={TOKEN}", json={"slide": "slide.tiff"}).status_code == 401
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert closed.post("/api/jobs", json={"slide": "slide.tiff"}, headers=shown).status_code == 201
    document = closed.get("/openapi.json", headers=shown).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_other_hosts_and_pages_of_other_sites(options):
    with open_service(options(), FAKE) as service, TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert http.post("/api/jobs", json={"slide": "slide.tiff"}, headers=headers).status_code == 403
            assert http.get("/api/jobs", headers=headers).status_code == 403
        assert http.get("/api/jobs", headers={"Host": "evil.example"}).status_code == 421
        large = http.post("/api/jobs", content=b"x" * (9 << 20), headers={"Content-Type": "application/json"})
        assert large.status_code == 413
        answer = http.get("/api/jobs")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert http.get("/docs").status_code == 404  # it would load scripts from elsewhere


def test_the_description(options):
    with open_service(options(), FAKE) as service, TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        document = http.get("/openapi.json").json()
        assert "For research use only" in document["info"]["description"]
        parts = {path.split("/")[2] for path in document["paths"]}
        assert parts == {"service", "jobs", "patches", "run", "slides"}
        names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
        assert len(names) == len(set(names)) == 24
        assert {"submit_job", "get_job", "predict_patch", "get_tile", "get_layer", "put_annotations"} <= set(names)
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert operation["description"], (path, method)
                problems = {status for status in operation["responses"] if status >= "400"}
                assert {"404", "422", "429", "503"} <= problems
                schemas = {operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
                           for status in problems}  # fmt: skip
                assert schemas == {"#/components/schemas/ErrorAnswer"}


def test_the_state_folder_is_no_run_of_the_gallery(options):
    with open_service(options(), FAKE) as service, TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        assert (service.options.state / "jobs.sqlite3").is_file()
        assert http.get("/api/run").json()["runs"] == []
        for path in ("/static/../.service/jobs.sqlite3", "/.service/jobs.sqlite3", "/static/%2e%2e/jobs.sqlite3"):
            assert http.get(path).status_code == 404


def test_bodies_that_are_none(options):
    """Whatever is wrong with a body, the answer is one of those that the description knows."""

    def pieces():
        for _ in range(9):
            yield b" " * (1 << 20)

    with open_service(options(), FAKE) as service, TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        described = set(http.get("/openapi.json").json()["paths"]["/api/jobs"]["post"]["responses"])
        for path, kind in (("/api/patches/probabilities", "image/png"), ("/api/jobs", "application/json")):
            for content in (pieces(), b" " * (9 << 20)):
                answer = http.post(path, content=content, headers={"Content-Type": kind})
                assert answer.status_code == 413, path
                assert "8,388,608 bytes" in answer.json()["error"]["why"]
        for content in (b"\xff", b"[" * 100_000, b"{", b"", b"\0"):
            answer = http.post("/api/jobs", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422, content[:5]
            assert set(answer.json()["error"]) == {"where", "why", "hint"}
            assert str(answer.status_code) in described
