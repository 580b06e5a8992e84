"""The page of a run says what the summaries say, stands by itself, and breaks on nothing that a run can hold."""

import json
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image
from report_runs import HOSTILE

from wsi_pipeline.cli import main
from wsi_pipeline.config import Settings
from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.manifest import RunRecord
from wsi_pipeline.progress import describe
from wsi_pipeline.report import read_run, write_report
from wsi_pipeline.report.page import in_order, render


@pytest.fixture
def page(results) -> Page:
    return Page((results / "report.html").read_text(encoding="utf-8"))


def summaries(results: Path) -> list[dict]:
    found = [json.loads(file.read_text(encoding="utf-8")) for file in results.glob("*/summary.json")]
    return sorted(found, key=lambda one: -one["idc_mm2"])


def test_every_number_is_that_of_the_summaries_by_idc_area(results, page):
    rows = [row for row in page.rows if len(row) == 10 and row[0] != "Slide"]
    known = summaries(results)
    assert len(known) == len(rows) == 3
    assert known[0]["idc_mm2"] > known[1]["idc_mm2"] > known[2]["idc_mm2"] > 0
    for row, one in zip(rows, known, strict=True):
        slide, _, _, idc, part, regions, largest, analysed, threshold, notes = row
        assert slide == one["slide"]
        for shown, key in ((idc, "idc_mm2"), (largest, "largest_region_mm2"), (analysed, "analysed_mm2")):
            assert float(shown) == pytest.approx(one[key], abs=0.0005)
        assert float(part.removesuffix("\N{NO-BREAK SPACE}%")) == pytest.approx(100 * one["idc_fraction"], abs=0.05)
        assert (int(regions), float(threshold), int(notes or 0)) == (one["regions"], 0.85, len(one["warnings"]))
    assert f"{sum(one['regions'] for one in known)} regions in all" in page.text
    assert "3 of 5" in page.text
    for one in known:
        assert all(warning in page.text for warning in one["warnings"])
        assert f"{one['cells']:,} of 12.5 µm" in page.text
    assert "0.85 (user)" in page.text


def test_slides_that_failed_are_shown_with_the_reason_and_the_way_out(results, page):
    run = json.loads((results / "run.json").read_text(encoding="utf-8"))
    errors = [one["error"] for one in run["results"] if one["status"] == "failed"]
    assert len(errors) == 2
    for error in errors:
        assert f"{error['why']}. {error['hint']}" in page.text
        assert error["where"] in page.text
    assert {row[0] for row in page.rows if row[-1].startswith("failed: ")} == {"cut & dried", "empty"}


def test_the_page_needs_nothing_else(results):
    text = (results / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.links
    for link in page.links:
        assert link.startswith(("data:image/", "#")), link
        assert not link.startswith("#") or link[1:] in page.ids
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"@import|url\(", text)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*https?:""", text)
    assert max(page.ids.values()) == 1


def test_names_that_look_like_html_stay_text(page):
    assert HOSTILE.replace("/", "") in page.text
    assert page.tags.count("img") == len(page.images)  # each has an alt text and a source of ours
    assert "49" not in [word for row in page.rows for word in row]
    assert "model <i>" in page.text


def test_pictures_are_those_of_the_slides(results, page):
    def decode(address: str) -> Image.Image:
        return Image.open(BytesIO(b64decode(address.split(",", 1)[1])))

    pictures = [decode(address) for address in page.images]
    assert {picture.format for picture in pictures} == {"JPEG", "PNG"}
    large = [picture for picture in pictures if max(picture.size) >= 800]
    assert [picture.size for picture in large] == [(1000, 800), (800, 667), (800, 640)]  # by IDC area
    with Image.open(results / "large" / "overlay.png") as sheet:
        left, top, width, height = json.loads(sheet.text["wsi-pipeline places"])["picture"]
        drawn = np.asarray(sheet.convert("RGB"), float)[top : top + height, left : left + width]
    assert np.abs(drawn - np.asarray(large[0].convert("RGB"), float)).mean() < 4


def test_the_scale_bar_is_as_long_as_it_says(results, page):
    """The slide `large` is 250 µm wide: 30 % of that are 75 µm, so the bar is of 50 µm, a fifth of the picture."""
    section = (results / "report.html").read_text(encoding="utf-8").split('class="slide')[2]
    assert ">large " in section
    assert 'style="width: 20.0%"></i><span>50 µm</span>' in section


def test_research_use_is_on_the_page_and_on_every_printed_one(results, page):
    text = (results / "report.html").read_text(encoding="utf-8")
    assert page.text.count("For research use only") >= 2
    assert re.search(r"@page \{[^}]*@bottom-left \{ content: \"For research use only", text)


def test_settings_that_were_changed_stand_out(results):
    text = (results / "report.html").read_text(encoding="utf-8")
    changed = set(re.findall(r'<div class="changed"><dt>([^<]+)</dt>', text))
    assert {"model", "threshold", "workers", "batch_size", "min_region_um2"} <= changed
    assert not {"cell", "smooth_um", "tta", "reader"} & changed


def test_the_page_can_be_made_again_from_the_results_alone(results, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert f"written: {copy / 'report.html'}" in capsys.readouterr().out
    again, before = (Page((folder / "report.html").read_text(encoding="utf-8")) for folder in (copy, results))
    assert [row for row in again.rows if len(row) == 10] == [row for row in before.rows if len(row) == 10]
    assert again.images == before.images


def test_what_lies_damaged_in_the_results_is_told_and_the_rest_is_shown(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    (copy / "large" / "summary.json").write_text("{")
    (copy / "small" / "overlay.png").write_bytes(b"no picture")
    (copy / "small" / "tissue.png").unlink()
    page = Page(write_report(copy, read_run(copy)).read_text(encoding="utf-8"))
    assert "is no summary of this version" in page.text
    assert "2 of 5" in page.text
    assert "Its overlay is missing or cannot be read." in page.text


def test_a_folder_without_a_run_is_told(tmp_path, capsys):
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        read_run(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
    assert "wsi-pipeline run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"results": [3]}')
    with pytest.raises(ResultsMismatchError, match="is no run of this version"):
        read_run(tmp_path)


def test_a_record_leads_nowhere_outside_its_folder(results, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    values = json.loads((results / "run.json").read_text(encoding="utf-8"))
    for one in values["results"]:
        one["folder"] = f"../../{results.parent.name}/out/{one['folder']}"
    (copy / "run.json").write_text(json.dumps(values))
    assert all(result.summary is None for result in read_run(copy).results)


def empty_record(folder: Path, **more) -> RunRecord:
    plain = {
        "folder": folder,
        "started": "2025-01-02T03:04:05+00:00",
        "versions": {"python": "3.12"},
        "hardware": {"cores": 2, "gpus": []},
        "settings": Settings().model_dump(mode="json"),
        "bundle": {"name": "gone", "digest": "0" * 64, "path": str(folder / "gone")},
        "inputs": ["a.svs"],
        "planned": 0,
    }
    return RunRecord(**plain | more)


def test_a_run_without_slides_and_without_its_model_has_a_page(tmp_path):
    page = Page(render(tmp_path, empty_record(tmp_path)))
    assert "0 slides" in page.text
    assert "No slide has ended." in page.text
    assert "card cannot be shown" in page.text
    assert "it did not end" in page.text


def test_an_interrupted_run_says_how_many_slides_are_missing(results, tmp_path):
    record = replace(read_run(results), finished=None)
    record.results = record.results[:2]
    assert "3 slides were not reached" in Page(render(results, record)).text


def test_another_model_under_the_same_path_is_not_described(results):
    record = read_run(results)
    record.bundle["digest"] = "f" * 64
    assert "another model than the run's" in Page(render(results, record)).text


def test_a_model_of_something_else_is_not_called_idc(results):
    record = read_run(results)
    record.results = [
        replace(one, summary=one.summary and replace(one.summary, class_name="metastasis")) for one in record.results
    ]
    text = Page(render(results, record)).text
    assert "Metastasis heatmaps of" in text
    assert "IDC" not in text.split("The model: ")[0]
    assert "IDC" not in "".join(describe(one) for one in record.results)


def test_slides_of_one_area_stand_in_the_order_of_their_names(results):
    (one, *_) = in_order(read_run(results).results)
    same = [replace(one, slide=name) for name in ("b", "c", "a")]
    assert [result.slide for result in in_order(same)] == ["a", "b", "c"]


def test_the_shipped_model_is_described_with_figures_intervals_and_limits(tmp_path):
    from wsi_pipeline.models.bundle import load_bundle

    bundle = load_bundle("idc-resnet18")
    facts = {"name": bundle.card.name, "digest": bundle.digest, "path": str(bundle.path)}
    page = Page(render(tmp_path, empty_record(tmp_path, bundle=facts)))
    measured = bundle.card.metrics["cross_validation"]
    low, high = measured["interval_95"]["auroc"]
    assert ["AUROC", f"{measured['auroc']:.3f}", f"{low:.3f}–{high:.3f}"] in page.rows
    assert f"{measured['cases']:,} cases" in page.text
    assert bundle.card.limits
    assert all(limit in page.text for limit in bundle.card.limits)
    assert bundle.card.training["data"] in page.text


def test_keys_in_addresses_stay_out_and_names_that_are_no_text_are_shown(tmp_path):
    inputs = ["https://host/a.svs?token=n0b0dy", "odd\udcff.svs"]
    page = write_report(tmp_path, empty_record(tmp_path, inputs=inputs)).read_text(encoding="utf-8")
    assert "https://host/a.svs" in page
    assert "n0b0dy" not in page
    assert "odd\\udcff.svs" in page
