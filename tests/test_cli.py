"""The commands as a person types them."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import tissue_picture, write_redness_bundle
from PIL import Image
from tiffs import write_pyramid

from wsi_pipeline.cli import OK, READER_GONE, SOME_FAILED, USAGE, main
from wsi_pipeline.config import options
from wsi_pipeline.models.bundle import SHIPPED

SMALL = ["--tissue-min-area-um2=500", "--tissue-min-hole-um2=500", "--tissue-closing-um=4", "--workers=0"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(write_redness_bundle(tmp_path_factory.mktemp("bundle") / "redness"))


@pytest.fixture
def slide(tmp_path):
    return write_pyramid(tmp_path / "a slide.tiff", base=tissue_picture(600, 500))


def test_run_prints_a_line_a_slide_and_where_to_look(tmp_path, slide, bundle, capsys):
    out = tmp_path / "out"
    assert main(["run", str(slide), "--out", str(out), "--model", bundle, "--batch-size=32", *SMALL]) == OK
    printed = capsys.readouterr()
    assert re.search(r"a slide: IDC [\d.]+ of [\d.]+ mm² \([\d.]+%\) in 1 region, \d+ cells, [\d.]+ s", printed.out)
    assert f"1 slide done, 0 done before, 0 failed. Results: {out}/summary.csv" in printed.out
    assert printed.err == ""  # no progress bar where nobody watches
    assert main(["run", str(slide), "--out", str(out), "--model", bundle, "--batch-size=32", *SMALL]) == OK
    assert "done before, nothing to do" in capsys.readouterr().out


def test_a_profile_tells_where_the_time_went(tmp_path, slide, bundle, capsys):
    out = tmp_path / "out"
    assert main(["run", str(slide), "--out", str(out), "--model", bundle, "--profile", *SMALL]) == OK
    printed = capsys.readouterr().out
    stages = ("start-up", "network", "wait", "cut and stitch", "read", "plan", "regions", "render", "total")
    for stage in stages:
        assert re.search(rf"^  {stage} +[\d.]+ +[\d.]+$", printed, re.MULTILINE), stage
    assert re.search(r"^[\d,]+ cells, [\d,]+ cells/s$", printed, re.MULTILINE)
    trace = json.loads((out / "profile.json").read_text(encoding="utf-8"))
    assert {event["name"] for event in trace["traceEvents"]} > {"read", "network", "write", "plan", "render"}
    assert main(["run", str(slide), "--out", str(out), "--profile", "--cluster=local:1"]) == USAGE


def test_cells_and_the_older_ome_zarr_are_written_when_asked_for(tmp_path, slide, bundle):
    import gzip

    out = tmp_path / "out"
    asked = ["--cells", "--ngff=0.4", "--threshold=0.4", "--low-threshold=0.3", "--smooth-um=3"]
    assert main(["run", str(slide), "--out", str(out), "--model", bundle, *SMALL, *asked]) == OK
    with gzip.open(out / "a slide" / "cells.geojson.gz", "rt", encoding="utf-8") as text:
        cells = json.load(text)["features"]
    summary = json.loads((out / "a slide" / "summary.json").read_text())
    assert len(cells) == summary["cells"]
    assert (summary["threshold"], summary["threshold_source"]) == (0.4, "user")
    assert (out / "a slide" / "heatmap.zarr" / "OME" / "METADATA.ome.xml").exists()


def test_failed_slides_are_listed_at_the_end_and_in_the_status(tmp_path, slide, bundle, capsys):
    fake = tmp_path / "picture.svs"
    fake.write_bytes(b"\xff\xd8\xff\xe0" + bytes(2000))
    assert (
        main(["run", str(slide), str(fake), "--out", str(tmp_path / "out"), "--model", bundle, *SMALL]) == SOME_FAILED
    )
    printed = capsys.readouterr()
    assert "1 slide done, 0 done before, 1 failed" in printed.out
    (line,) = printed.err.strip().splitlines()
    assert re.match(rf"FAILED picture: {re.escape(str(fake))}: is a JPEG picture, not a slide\. \w+", line)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nowhere/*.svs", "--out", "out"], "nowhere/*.svs"),
        (["run", "{slide}", "--out", "out", "--model", "none"], "none: is no model bundle"),
        (["run", "{slide}", "--out", "out", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["run", "{slide}", "--out", "out", "--min-tissue", "7"], "grid.min_tissue"),
        (["run", "{slide}", "--out", "out", "--cell", "big"], "Write 50px@40x, 12.5um or native"),
        (["inspect", "{slide}", "--cell", "big", "--model", "{bundle}"], "Write 50px@40x, 12.5um or native"),
        (["run", "{slide}", "--out", "out", "--cluster", "local:x"], "Write local:4"),
        (["run", "{slide}", "--out", "out", "--cluster", "local:2", "--scheduler", "tcp://h:1"], "exclude each other"),
        (["inspect", "nowhere/*.svs"], "nowhere/*.svs"),
        (["inspect", "{slide}", "--model", "none"], "none: is no model bundle"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(tmp_path, slide, bundle, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    line = [a.format(slide=slide, bundle=bundle) for a in arguments]
    model = [] if "--model" in line or line[0] != "run" else ["--model", bundle]
    assert main([*line, *model]) == USAGE
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_unknown_options_and_no_command_are_wrong_usage(capsys):
    for arguments in ([], ["run"], ["run", "a", "--out", "b", "--bogus"], ["nonsense"], ["demo", "--width=-5"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == USAGE
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "5", "-0.1", "nan"])
def test_a_fraction_is_above_0_and_at_most_1(capsys, limit):
    with pytest.raises(SystemExit) as caught:
        main(["train", "idc-cnn", "--data", ".", "--out", "b", f"--limit={limit}"])
    assert caught.value.code == USAGE
    assert f"--limit: {limit} is no fraction" in capsys.readouterr().err


def test_every_setting_is_an_option_with_help(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for name in options():
        assert f"--{name.replace('_', '-')}" in text
    for unit in ("µm²", "µm/px", "px"):
        assert unit in text
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "wsi-pipeline run slides/ --out results/" in capsys.readouterr().out


def test_inspect_tells_what_a_slide_is(slide, bundle, capsys):
    assert main(["inspect", str(slide), "--model", bundle, *SMALL[:3]]) == OK
    text = capsys.readouterr().out
    for expected in ("600 x 500 px", "0.25 x 0.25 µm/px (file)", "tissue", "mm²", "12.5 µm a side"):
        assert expected in text


def test_inspect_as_json_and_without_a_resolution(tmp_path, bundle, capsys):
    slide = write_pyramid(tmp_path / "no mpp.tiff", base=tissue_picture(300, 200), mpp=None)
    assert main(["inspect", str(slide), "--model", bundle, "--json"]) == OK
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["resolution"] == "not known: give --mpp"
    coarse = write_pyramid(tmp_path / "coarse.tiff", base=tissue_picture(300, 200), mpp=0.5)
    assert main(["inspect", str(coarse), "--model", bundle]) == OK
    assert "the model needs 0.25 µm/px" in capsys.readouterr().out


def test_inspect_goes_on_after_a_broken_slide(tmp_path, slide, bundle, capsys):
    (tmp_path / "broken.svs").write_bytes(b"garbage" * 100)
    assert main(["inspect", str(tmp_path / "broken.svs"), str(slide), "--model", bundle]) == SOME_FAILED
    printed = capsys.readouterr()
    assert "broken.svs" in printed.err
    assert "600 x 500 px" in printed.out


def test_inspect_tells_what_it_can_of_a_slide_too_small_to_run(tmp_path, bundle, capsys):
    slide = write_pyramid(tmp_path / "tiny.tiff", base=tissue_picture(30, 30), factors=(1,))
    assert main(["inspect", str(slide), "--model", bundle]) == OK
    text = capsys.readouterr().out
    assert "30 x 30 px" in text
    assert "smaller than one cell" in text


def test_a_demo_that_fails_says_so(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--width", "40", "--height", "30"]) == SOME_FAILED
    assert "FAILED phantom" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file" / "x")]) == SOME_FAILED
    assert "cannot be made" in capsys.readouterr().err


def test_a_bundle_that_does_not_fit_its_card_stops_the_run_before_the_first_slide(tmp_path, slide, capsys):
    wrong = tmp_path / "wrong"
    shutil.copytree(SHIPPED / "idc-resnet18", wrong)
    card = json.loads((wrong / "model.json").read_text())
    (wrong / "model.json").write_text(json.dumps(card | {"class_names": ["a", "b", "IDC"], "bias": None}))
    assert main(["run", str(slide), "--out", str(tmp_path / "out"), "--model", str(wrong)]) == USAGE
    assert "with 3 classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cells_of_patch_folders_are_told(tmp_path, bundle, capsys):
    del bundle
    write_case(tmp_path / "idc", (0, 1))
    kaggle = str(write_redness_bundle(tmp_path / "kaggle", mpp=4.0))
    assert main(["run", str(tmp_path / "idc"), "--out", str(tmp_path / "o"), "--model", kaggle, "--cell=100um"]) == OK
    assert "--cell 100um was not applied" in capsys.readouterr().out


def write_case(folder, columns):
    rng = np.random.default_rng(0)
    for x in columns:
        for y in range(3):
            label = int(x > 1)
            (folder / "77" / str(label)).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(100, 200, (50, 50, 3), dtype=np.uint8)
            name = f"77_idx5_x{x * 50 + 1}_y{y * 50 + 1}_class{label}.png"
            Image.fromarray(pixels).save(folder / "77" / str(label) / name)


def test_kaggle_patches_run_and_assemble(tmp_path, capsys):
    write_case(tmp_path / "idc", range(4))
    bundle = str(write_redness_bundle(tmp_path / "bundle", mpp=4.0))
    assert main(["run", str(tmp_path / "idc"), "--out", str(tmp_path / "out"), "--model", bundle, "--workers=0"]) == OK
    summary = json.loads((tmp_path / "out" / "77" / "summary.json").read_text())
    assert (summary["cells"], summary["cell_um"], summary["mpp_source"]) == (12, 200, "kaggle")
    capsys.readouterr()
    assert main(["assemble", str(tmp_path / "idc"), "--out", str(tmp_path / "images")]) == OK
    written = capsys.readouterr().out.split()
    assert len(written) == 2
    assert main(["inspect", written[0], "--model", bundle]) == OK
    assert "200 x 150 px" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["--help", "inspect", "run"])
def test_who_reads_the_output_may_leave(tmp_path, slide, bundle, command):
    """As `head` and `grep -q` do; what was computed is there."""
    of_run = [slide, "--out", tmp_path / "out", "--model", bundle, *SMALL]
    given = {"--help": [], "inspect": [slide, "--model", bundle], "run": of_run}
    line = [sys.executable, "-m", "wsi_pipeline.cli", command, *map(str, given[command])]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ended:
        ended.stdout.close()
        told = ended.stderr.read()
    assert "Traceback" not in told
    assert "BrokenPipe" not in told
    assert ended.returncode == READER_GONE or (command, ended.returncode) == ("--help", OK)  # argparse minds nothing
    assert (tmp_path / "out" / slide.stem / "summary.json").exists() == (command == "run")


def test_a_pipe_that_breaks_elsewhere_is_a_fault(monkeypatch, capsys):
    def broken(_):
        raise BrokenPipeError

    monkeypatch.setattr("wsi_pipeline.cli.inspect._inspect", broken)
    with pytest.raises(BrokenPipeError):
        main(["inspect", "x"])


def test_a_service_may_close_the_output(monkeypatch, tmp_path, slide, bundle):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["inspect", str(slide), "--model", bundle]) == OK


def test_ctrl_c_tells_how_to_go_on(slide, bundle, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_pipeline.pipeline.run", interrupted)
    assert main(["run", str(slide), "--out", str(tmp_path / "out"), "--model", bundle]) == 130
    assert "Run the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(("loaded", "frozen"), [("", True), ("sys.modules['triton'] = sys;", False)])
def test_python_does_not_look_for_garbage_as_it_ends(loaded, frozen):
    """Where PyTorch is loaded, that takes as long as the start. What is registered first at the exit is called last."""
    code = (
        f"import atexit, gc, sys; atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0)); {loaded}"
        "from wsi_pipeline.cli import main; main(['--version'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == f"frozen {frozen}"
