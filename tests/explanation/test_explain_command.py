"""`wsi-pipeline explain` as a person types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import tissue_picture
from patches import name, png, write_folder
from PIL import Image
from spots import BLUE, card_for, with_spot, write_spots_bundle
from tiffs import write_pyramid

from wsi_pipeline.cli import OK, SOME_FAILED, USAGE, main
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import save_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(write_spots_bundle(tmp_path_factory.mktemp("bundle") / "spots"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    files = {
        name(col, row, label, case): png(with_spot(row, col, (230, 60, 60) if label else BLUE)[0])
        for case in ("8863", "8864")
        for label in (0, 1)
        for col in (label, label + 2)
        for row in range(2)
    }
    return str(write_folder(tmp_path_factory.mktemp("data") / "idc", files))


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> str:
    base = tissue_picture(900, 700)
    base[300:420, 400:520] = (230, 60, 60)
    return str(write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", base=base, mpp=2.0, factors=(1, 2)))


def test_patches_images_and_a_slide(tmp_path, data, bundle, slide, capsys):
    out = tmp_path / "new" / "sheet.png"
    model = ["--model", bundle, "--device", "cpu"]
    assert main(["explain", *model, "--data", data, "--out", str(out), "--count", "6", "--pick", "right"]) == OK
    assert capsys.readouterr().out.splitlines() == [
        "6 of 16 patches (called rightly, among 16 looked at; seed 0)",
        f"written: {out}",
    ]
    image = tmp_path / "one.png"
    Image.fromarray(with_spot(1, 1)[0]).save(image)
    assert main(["explain", *model, "--images", str(image), str(image), "--out", str(tmp_path / "two.jpg")]) == OK
    assert "images taken to be at 4 µm/px" in capsys.readouterr().out
    region = ["--slide", slide, "--region", "300,200,400,400", "--cell", "100um"]
    assert main(["explain", *model, *region, "--out", str(tmp_path / "slide.png")]) == OK
    assert "region: 300,200,400,400, as asked for; mean probability of IDC 0." in capsys.readouterr().out
    for path in (out, tmp_path / "two.jpg", tmp_path / "slide.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("RGB")).std() > 20


def test_broken_patches_are_named_and_passed_over(tmp_path, data, bundle, capsys, caplog):
    files = sorted(Path(data).rglob("*.png"))
    root = tmp_path / "data"
    for n, file in enumerate(files):
        copy = root / file.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # The first is no picture at all, the second is cut short behind its head.
        copy.write_bytes({0: b"text", 1: file.read_bytes()[:80]}.get(n, file.read_bytes()))
    arguments = ["explain", "--model", bundle, "--device", "cpu", "--data", str(root), "--count", "16"]
    assert main([*arguments, "--out", str(tmp_path / "sheet.png")]) == OK
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "14 of 16 patches (any; seed 0)"
    assert "2 more could not be read" in printed.out
    for file in files[:2]:
        assert f"{file.relative_to(data).as_posix()} is no readable" in caplog.text


def test_the_same_command_writes_the_same_bytes(tmp_path, data, bundle):
    for file in ("a.png", "b.png"):
        assert main(["explain", "--model", bundle, "--data", data, "--out", str(tmp_path / file), "--count=4"]) == OK
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_cases_that_the_model_has_seen_are_left_out_on_demand(tmp_path, data, capsys):
    seen = tmp_path / "seen"
    save_bundle(seen, build_network("idc-cnn", 2), card_for(architecture="idc-cnn"))
    (seen / "split.json").write_text(json.dumps({"kind": "case", "train": ["8863"], "validation": [], "test": []}))
    arguments = ["explain", "--model", str(seen), "--data", data, "--out", str(tmp_path / "x.png"), "--count=8"]
    assert main(arguments) == OK
    assert "4 of them trained the model, or are of cases that did" in capsys.readouterr().out
    assert main([*arguments, "--unseen"]) == OK
    assert capsys.readouterr().out.startswith("8 of 8 patches (any; seed 0)\nwritten")


def test_the_region_is_told_when_the_program_chooses(tmp_path, bundle, slide, capsys):
    arguments = ["explain", "--model", bundle, "--slide", slide, "--out", str(tmp_path / "x.png"), "--cell=native"]
    assert main(arguments) == OK
    assert "region: 0,0,900,700, the whole slide; mean" in capsys.readouterr().out


def test_what_is_explained_is_not_written_over(tmp_path, bundle, capsys):
    picture = tmp_path / "in.png"
    picture.write_bytes(before := png(with_spot(0, 0, BLUE)[0]))
    (tmp_path / "link.png").hardlink_to(picture)
    for what, read, out in (("--images", picture, "link.png"), ("--data", tmp_path, "in.png")):
        assert main(["explain", "--model", bundle, what, str(read), "--out", str(tmp_path / out)]) == USAGE
        assert f"{out} is among what is to be explained" in capsys.readouterr().err
    assert picture.read_bytes() == before
    assert main(["explain", "--model", bundle, "--images", str(picture), "--out", str(tmp_path / "out.JPEG")]) == OK
    with Image.open(tmp_path / "out.JPEG") as page:
        assert page.format == "JPEG"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "{data}", "--out", "x.txt"], "x.txt is no picture. Give a name that ends in .png or .jpg"),
        (["--data", "{data}", "--out", "x.png", "--region", "1,2,3,4"], "--region: has no meaning with --data"),
        (["--slide", "{slide}", "--out", "x.png", "--seed", "0"], "--seed: has no meaning with --slide"),
        (["--images", "a.png", "--out", "x.png", "--pick", "wrong"], "--pick: has no meaning with --images"),
        (["--data", "{data}", "--out", "x.png", "--cell", "25um"], "--cell: has no meaning with --data"),
        (["--images", "a.png", "--out", "x.png", "--mpp", "4"], "--mpp: has no meaning with --images"),
        (["--images", "a.png", "--out", "x.png", "--unseen"], "--unseen: has no meaning with --images"),
        (["--images", "a.png", "--out", "x.png"], "a.png: does not exist"),
        (["--slide", "{slide}", "--out", "x.png", "--region", "9,9"], "Write X,Y,WIDTH,HEIGHT"),
        (["--slide", "{slide}", "--out", "x.png", "--cell", "big"], "Write 50px@40x"),
        (["--slide", "nowhere.svs", "--out", "x.png"], "nowhere.svs"),
        (["--data", "nowhere", "--out", "x.png"], "nowhere"),
        (["--data", "{data}", "--out", "x.png", "--class", "DCIS"], "has no class 'DCIS'"),
        (["--data", "{data}", "--out", "x.png", "--count", "999"], "999 is not between 1 and 200"),
        (["--data", "{data}", "--out", "x.png", "--mpp", "0.25"], "its patches are at 0.25 µm/px"),
        (["--data", "{data}", "--out", "x.png", "--batch-size", "0"], "batch_size"),
    ],
)
def test_wrong_usage_is_one_clear_line(tmp_path, data, slide, bundle, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    line = [part.format(data=data, slide=slide) for part in arguments]
    assert main(["explain", "--model", bundle, *line]) == USAGE
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_what_to_explain_must_be_said_once(capsys):
    for arguments in ([], ["--data", "a", "--slide", "b", "--out", "x.png"], ["--data", "a"]):
        with pytest.raises(SystemExit) as caught:
            main(["explain", *arguments])
        assert caught.value.code == USAGE
    assert "usage:" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_named(tmp_path, data, bundle, capsys):
    (tmp_path / "file").touch()
    assert (
        main(["explain", "--model", bundle, "--data", data, "--out", str(tmp_path / "file" / "x.png")]) == SOME_FAILED
    )
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.data
def test_the_shipped_model_finds_more_evidence_in_carcinoma(data_dir):

    from wsi_pipeline.datasets import open_dataset
    from wsi_pipeline.explanation.patches import explain_patches
    from wsi_pipeline.models.bundle import load_bundle

    dataset = open_dataset(data_dir / "idc" / "sample-a.zip")
    found = explain_patches(load_bundle("idc-resnet18"), dataset, device="cpu", count=48)
    mean = {
        label: np.mean(
            [one.mean() for one, patch in zip(found.evidence, found.patches, strict=True) if patch.label == label]
        )
        for label in ("IDC", "non-IDC")
    }
    assert mean["IDC"] > 3 * mean["non-IDC"]
