"""`wsi-pipeline export` as a person types it."""

import pytest

from wsi_pipeline.cli import OK, SOME_FAILED, USAGE, main


def test_files_are_named_one_a_line(finished, tmp_path, capsys):
    command = ["export", str(finished.folder), "--to", "geojson,csv", "--to", "geojson-cells", "--out", str(tmp_path)]
    assert main(command) == OK
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{tmp_path}/slide.geojson",
        f"{tmp_path}/slide.cells.csv",
        f"{tmp_path}/slide.regions.csv",
        f"{tmp_path}/slide.cells.geojson.gz",
        "4 files written, 0 exports failed.",
    ]
    assert printed.err == ""  # no progress bar where nobody watches


def test_what_fails_is_listed_at_the_end_and_in_the_status(run_folder, tmp_path, capsys):
    assert main(["export", str(run_folder), "--to", "png", "--size", "300", "--out", str(tmp_path)]) == SOME_FAILED
    printed = capsys.readouterr()
    assert "2 files written, 1 exports failed." in printed.out
    (line,) = printed.err.strip().splitlines()
    assert line.startswith("FAILED gone to png: ")
    assert "gone.tiff" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere", "--to", "csv"], "nowhere: is no folder of results"),
        (["{run}", "--to", "svg"], "'svg' is unknown"),
        (["{run}", "--to", ","], "none is given"),
        (["{run}", "--to", "csv", "--threshold", "2"], "2 is no probability"),
        (["{run}", "--to", "png", "--size", "5"], "5 px is no size"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(run_folder, capsys, arguments, expected):
    assert main(["export", *(argument.format(run=run_folder) for argument in arguments)]) == USAGE
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_options_reach_the_files(finished, tmp_path):
    common = ["export", str(finished.folder), "--to", "geojson", "--out"]
    assert main([*common, str(tmp_path / "a")]) == OK
    assert main([*common, str(tmp_path / "b"), "--threshold", "0.5", "--smooth-um", "0"]) == OK
    assert main([*common, str(tmp_path / "c"), "--threshold", "0.9"]) == OK
    a, b, c = (((tmp_path / name) / "slide.geojson").read_bytes() for name in "abc")
    assert a == b
    assert a != c
