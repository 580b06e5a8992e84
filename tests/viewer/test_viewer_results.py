"""What is found in a folder of results, and what is passed over."""

import json
import os
import shutil
from pathlib import Path

import pytest

from wsi_pipeline import outputs
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.viewer import results as module
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.results import Results


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch):
    monkeypatch.setattr(module, "_FRESH_S", 0.0)


def rows(results: Results) -> list[tuple[str, str, str]]:
    return [(entry.run.name, entry.name, entry.status) for entry in results.slides()]


def test_names_are_those_of_the_outputs():
    assert (module.HEATMAP, module.OVERLAY) == (outputs.HEATMAP, outputs.OVERLAY)


def test_runs_side_by_side(made):
    assert rows(Results(made)) == [
        ("plain", "broken", "failed"),
        ("plain", "röt 1", "done"),
        ("tta", "röt 1", "done"),
    ]


def test_one_run_and_one_slide(made):
    assert rows(Results(made / "plain")) == [("plain", "broken", "failed"), ("plain", "röt 1", "done")]
    (only,) = Results(made / "plain" / "röt 1").slides()
    assert (only.name, only.status, only.folder) == ("röt 1", "done", (made / "plain" / "röt 1").resolve())


def test_ids_are_unique_opaque_and_stay(made, tmp_path):
    first = [entry.id for entry in Results(made).slides()]
    assert len(set(first)) == 3
    assert all(len(id_) == 16 and int(id_, 16) >= 0 for id_ in first)
    copy = shutil.copytree(made, tmp_path / "elsewhere")
    assert [entry.id for entry in Results(Path(copy)).slides()] == first


def test_a_failed_slide_says_why_without_its_traceback(results):
    record = json.loads((results / "plain" / "run.json").read_text(encoding="utf-8"))
    record["results"][0]["error"]["traceback"] = "Traceback"
    (results / "plain" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    failed = next(entry for entry in Results(results).slides() if entry.status == "failed")
    assert failed.error is not None
    assert set(failed.error) == {"type", "where", "why", "hint"}
    assert failed.error["where"].endswith("broken.tiff")
    assert failed.error["why"]
    with pytest.raises(RequestError) as refused:
        failed.require_done()
    assert refused.value.status == 409


def test_new_results_are_seen_and_lost_ones_are_told(results):
    found = Results(results)
    entry = next(entry for entry in found.slides() if entry.run.name == "tta")
    shutil.copytree(results / "tta", results / "more")
    assert ("more", "röt 1", "done") in rows(found)
    (results / "tta" / "röt 1" / "summary.json").unlink()
    lost = found.slide(entry.id)
    assert lost.status == "failed"
    assert "no longer there" in (lost.error or {})["why"]
    shutil.rmtree(results / "tta")
    with pytest.raises(RequestError) as refused:
        found.slide(entry.id)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"text"', '{"results": 3}', '{"results": [3, {"folder": 7}]}', "[" * 9999]
)
def test_a_damaged_record_hides_no_finished_slide(results, text):
    (results / "plain" / "run.json").write_text(text, encoding="utf-8")
    assert ("plain", "röt 1", "done") in rows(Results(results))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"identity": 3}', "\0"])
def test_a_damaged_summary_is_told(results, text):
    (results / "plain" / "röt 1" / "summary.json").write_text(text, encoding="utf-8")
    assert ("plain", "röt 1", "failed") in rows(Results(results))


def test_links_that_lead_out_are_passed_over(results, made, tmp_path):
    inside = tmp_path / "root"
    inside.mkdir()
    shutil.move(results / "plain", inside / "plain")
    (inside / "run behind a link").symlink_to(made / "tta")
    (inside / "plain" / "slide behind a link").symlink_to(made / "tta" / "röt 1")
    (inside / "up").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    (inside / "same run").symlink_to(inside / "plain")
    assert {(run, name) for run, name, _ in rows(Results(inside))} == {
        ("plain", "broken"),
        ("plain", "röt 1"),
        ("same run", "broken"),
        ("same run", "röt 1"),
    }


def test_a_summary_behind_a_link_is_not_read(results, tmp_path):
    summary = results / "plain" / "röt 1" / "summary.json"
    shutil.move(summary, tmp_path / "outside.json")
    summary.symlink_to(tmp_path / "outside.json")
    assert ("plain", "röt 1", "failed") in rows(Results(results))


def test_folders_named_in_a_record_are_never_opened(results, tmp_path, made):
    shutil.copytree(made / "tta" / "röt 1", tmp_path / "secret")
    record = json.loads((results / "plain" / "run.json").read_text(encoding="utf-8"))
    for folder in ("../../secret", str(tmp_path / "secret"), ".."):
        record["results"].append({"slide": "x", "path": "x", "folder": folder, "status": "done", "error": None})
    (results / "plain" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    found = [entry for entry in Results(results).slides() if entry.name == "x"]
    assert len(found) == 3
    assert {entry.status for entry in found} == {"failed"}
    assert all(not entry.summary for entry in found)


def test_files_are_inside_the_results(results, tmp_path):
    entry = next(entry for entry in Results(results).slides() if entry.status == "done")
    assert entry.file("overlay.png").name == "overlay.png"
    (tmp_path / "secret.png").write_bytes(b"secret")
    (entry.folder / "overlay.png").unlink()
    with pytest.raises(RequestError):
        entry.file("overlay.png")
    (entry.folder / "overlay.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(RequestError) as refused:
        entry.file("overlay.png")
    assert refused.value.status == 404


def test_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="no folder of results"):
        Results(tmp_path / "nowhere")
    assert Results(tmp_path).slides() == []


NOT_SHOWN = {
    "NaN": {"mean_probability": float("nan")},
    "infinite": {"threshold": float("-inf")},
    "too large a number": {"threshold": 10**400},
    "warnings that are no list": {"warnings": 5},
    "warnings that are no texts": {"warnings": [["a"]]},
    "a number that is a text": {"idc_mm2": "12"},
    "a model that is no text": {"model": {"name": "idc"}},
    "nested without end": {"note": json.loads("[" * 500 + "]" * 500)},
}


@pytest.mark.parametrize("edit", NOT_SHOWN.values(), ids=NOT_SHOWN.keys())
def test_one_bad_summary_leaves_the_gallery_as_it_is(results, open_viewer, edit):
    """Python's JSON takes more than a page can show: that slide is damaged, the others are as they were."""
    before = {row["id"]: row for row in open_viewer(results).get("/api/run").json()["slides"]}
    file = results / "plain" / "röt 1" / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | edit), encoding="utf-8")
    viewer = open_viewer(results)
    answer = viewer.get("/api/run")
    assert answer.status_code == 200
    rows = {row["id"]: row for row in answer.json()["slides"]}
    (bad,) = [row for row in rows.values() if row != before[row["id"]]]
    assert (bad["status"], bad["warnings"]) == ("failed", [])
    assert "damaged" in bad["error"]["why"]
    assert viewer.get(f"/api/slides/{bad['id']}").json()["error"] == bad["error"]
    assert viewer.get(f"/api/slides/{bad['id']}/probability").status_code == 409


def test_infinity_in_other_words(results, open_viewer):
    file = results / "plain" / "röt 1" / "summary.json"
    text = file.read_text(encoding="utf-8").replace('"mean_probability": ', '"mean_probability": 1e999, "x": ')
    file.write_text(text, encoding="utf-8")
    statuses = {row["name"]: row["status"] for row in open_viewer(results / "plain").get("/api/run").json()["slides"]}
    assert statuses == {"broken": "failed", "röt 1": "failed"}


@pytest.mark.parametrize(
    "text",
    ['{"started": NaN}', '{"started": [1], "finished": {}, "planned": "x"}', '{"bundle": {"name": 1e999}}',
     '{"results": [{"folder": "\\ud800", "status": "failed", "error": 5}]}'],
)  # fmt: skip
def test_a_bad_record_leaves_the_gallery_as_it_is(results, open_viewer, text):
    (results / "plain" / "run.json").write_text(text, encoding="utf-8")
    viewer = open_viewer(results)
    answer = viewer.get("/api/run")
    assert answer.status_code == 200
    done = [row["id"] for row in answer.json()["slides"] if row["status"] == "done"]
    assert len(done) == 2
    assert {viewer.get(f"/api/slides/{slide}").status_code for slide in done} == {200}


def test_a_record_that_is_a_pipe_is_not_waited_for(results):
    (results / "plain" / "run.json").unlink()
    os.mkfifo(results / "plain" / "run.json")
    assert ("plain", "röt 1", "done") in rows(Results(results))
