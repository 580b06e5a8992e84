"""What is written appears whole, whatever names it holds."""

import csv
import json
import os

import pytest

from wsi_pipeline.errors import OutputError, SlideFormatError
from wsi_pipeline.files import atomic_path, write_json
from wsi_pipeline.manifest import SlideResult, describe_error, write_table
from wsi_pipeline.slides.files import slide_id

ODD = os.fsdecode(b"odd\xff\xe9.svs")
"""A file's name that is no UTF-8, as Python gives it."""


def test_a_name_that_is_no_text_comes_back_from_json(tmp_path):
    write_json(tmp_path / "run.json", {"path": ODD, "name": "é漢"})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == {"path": ODD, "name": "é漢"}
    assert "é漢" in (tmp_path / "run.json").read_text(encoding="utf-8")


def test_a_name_that_is_no_text_stands_in_the_table(tmp_path):
    failed = {"type": "SlideFormatError", "where": ODD, "why": "is no slide", "hint": ""}
    write_table(tmp_path / "t.csv", [SlideResult(slide="odd", path=ODD, folder="odd", status="failed", error=failed)])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"].startswith("odd\\")
    assert row["slide"] == "odd"


def test_an_error_about_a_name_that_is_no_text_is_told_in_text():
    told = describe_error(SlideFormatError(ODD, "is no slide", ""))
    assert told == {"type": "SlideFormatError", "where": "odd\\udcff\\udce9.svs", "why": "is no slide", "hint": ""}


def test_a_slides_folder_is_named_in_text():
    assert slide_id(f"slides/{ODD}") == "odd__"


def test_a_file_that_fails_half_way_leaves_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("before")

    def write() -> None:
        with atomic_path(file) as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write()
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
