"""What is written appears whole, whatever names it holds."""

import csv
import json
import os

import numpy as np
import pytest

from wsi_pipeline.errors import OutputError, SlideFormatError
from wsi_pipeline.files import atomic_path, write_csv, write_json
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


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_text_of_a_table_is_a_formula(tmp_path, start):
    text = start + 'HYPERLINK("http://x","y")'
    write_csv(tmp_path / "t.csv", ("name", "middle"), [(text, f"a{start}b")])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"name": f"'{text}", "middle": f"a{start}b"}]


def test_numbers_of_a_table_stay_numbers(tmp_path):
    write_csv(tmp_path / "t.csv", "abcdefg", [(-1.5, -3, "-0.25", "+1e-9", "", None, np.float64(-2.5))])
    assert (tmp_path / "t.csv").read_text().splitlines() == ["a,b,c,d,e,f,g", "-1.5,-3,-0.25,+1e-9,,,-2.5"]


def test_a_slide_named_like_a_formula_is_text_in_the_summary(tmp_path):
    name = "=1+1"
    failed = {"type": "SlideFormatError", "where": f"{name}.svs", "why": "is no slide", "hint": ""}
    result = SlideResult(slide=name, path=f"{name}.svs", folder=name, status="failed", error=failed)
    write_table(tmp_path / "t.csv", [result])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    told = {key: row[key] for key in ("slide", "path", "folder", "error", "cells")}
    assert told == {
        **dict.fromkeys(("slide", "folder"), "'=1+1"),
        "path": "'=1+1.svs",
        "error": "'=1+1.svs: is no slide",
        "cells": "",
    }
