"""Networks that were converted once are read again without PyTorch, unless something about them changed."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from helpers import tissue_picture
from plain import CPU, bundle_of, plain_probabilities, random_fields
from tiffs import write_pyramid

from wsi_pipeline.errors import BundleError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.inference.engines import conversions, to_openvino


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv(conversions.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept" / "networks"


@pytest.fixture
def converted(monkeypatch):
    """Of each network that is converted, how its small maps are written."""
    convert, found = to_openvino.convert, []

    def counted(bundle, small_maps):
        found.append(small_maps)
        return convert(bundle, small_maps)

    monkeypatch.setattr(to_openvino, "convert", counted)
    return found


def answers(bundle, fields, **more):
    predictor = Predictor(bundle=bundle, device=CPU, batch_size=8, engine="openvino", keep=True, **more)
    assert predictor.facts["engine"] == "openvino"
    return predictor.probabilities(fields)


def test_a_network_is_converted_once_and_says_the_same_when_it_is_read_again(kept, converted):
    bundle, fields = bundle_of("idc-cnn"), random_fields(9)
    first = answers(bundle, fields)
    assert np.array_equal(answers(bundle, fields), first)
    assert len(converted) == len(list(kept.iterdir())) == 1
    assert np.abs(first - plain_probabilities(bundle, fields)).max() < 1e-5


def test_another_network_card_or_code_is_converted_by_itself(kept, converted, monkeypatch):
    bundle, fields = bundle_of("idc-cnn"), random_fields(3)
    answers(bundle, fields)
    answers(replace(bundle, digest="other weights"), fields)
    answers(replace(bundle, card=bundle.card.model_copy(update={"mean": (0.1, 0.2, 0.3)})), fields)
    answers(replace(bundle, card=bundle.card.model_copy(update={"input_px": 64})), fields)
    assert len(converted) == len(list(kept.iterdir())) == 4


def test_what_a_network_is_found_by(monkeypatch, tmp_path):
    """Its digest and card, how it is written, the libraries' versions, this program's code."""
    bundle, version = bundle_of("idc-cnn"), conversions.version
    first = conversions._key(bundle, "winograd")
    assert conversions._key(bundle, "winograd") == first
    found = [first, conversions._key(bundle, "products"), conversions._key(replace(bundle, digest="other"), "winograd")]
    for library in ("openvino", "torch"):
        monkeypatch.setattr(conversions, "version", lambda name, new=library: "new" if name == new else version(name))
        found.append(conversions._key(bundle, "winograd"))
    monkeypatch.setattr(conversions, "version", version)
    for part in ("inference", "models"):
        code = tmp_path / part
        for folder in ("inference", "models"):
            shutil.copytree(conversions._PACKAGE / folder, code / folder, ignore=shutil.ignore_patterns("bundles"))
        monkeypatch.setattr(conversions, "_PACKAGE", code)
        assert conversions._key(bundle, "winograd") == first
        with next((code / part).glob("*.py")).open("a") as file:
            file.write("# another line\n")
        found.append(conversions._key(bundle, "winograd"))
        monkeypatch.setattr(conversions, "_PACKAGE", Path(conversions.__file__).parents[2])
    assert len(set(found)) == len(found) == 7


@pytest.mark.parametrize("name", ["network.xml", "network.bin", "network.sha256"])
@pytest.mark.parametrize("damage", ["altered", "cut short", "missing"])
def test_what_is_not_as_it_was_written_is_converted_anew(kept, converted, name, damage):
    bundle, fields = bundle_of("idc-cnn"), random_fields(3)
    first = answers(bundle, fields)
    (file,) = kept.glob(f"*/{name}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink() if damage == "missing" else file.write_bytes(data if damage == "altered" else data[:-1])
    assert np.array_equal(answers(bundle, fields), first)
    assert np.array_equal(answers(bundle, fields), first)
    assert len(converted) == 2


def test_where_nothing_can_be_kept_a_run_goes_on(tmp_path, converted, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    bundle, fields = bundle_of("idc-cnn"), random_fields(3)
    for folder in ("", str(tmp_path / "file")):
        monkeypatch.setenv(conversions.FOLDER_VARIABLE, folder)
        assert np.abs(answers(bundle, fields) - plain_probabilities(bundle, fields)).max() < 1e-5
    assert len(converted) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_entered_is_no_obstacle(kept, converted, monkeypatch):
    is_dir = Path.is_dir

    def refused(path):
        if path.parent == kept:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(conversions.Path, "is_dir", refused)
    bundle, fields = bundle_of("idc-cnn"), random_fields(3)
    assert np.abs(answers(bundle, fields) - plain_probabilities(bundle, fields)).max() < 1e-5
    assert len(converted) == 1


def test_another_user_s_network_is_used_as_it_is(kept, converted, monkeypatch):
    bundle, fields = bundle_of("idc-cnn"), random_fields(3)
    first = answers(bundle, fields)

    def refused(path, *more):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(conversions.os, "utime", refused)
    assert np.array_equal(answers(bundle, fields), first)
    assert len(converted) == len(list(kept.iterdir())) == 1


def test_a_library_without_a_version_keeps_nothing(kept, converted, monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(conversions, "version", unknown)
    answers(bundle_of("idc-cnn"), random_fields(3))
    assert not kept.exists()


def test_only_who_asks_for_it_has_networks_kept(kept, converted):
    bundle = bundle_of("idc-cnn")
    Predictor(bundle=bundle, device=CPU, batch_size=8, engine="openvino")
    assert not kept.exists()
    answers(bundle, random_fields(3))
    Predictor(bundle=bundle, device=CPU, batch_size=8, engine="openvino")
    assert len(converted) == 3


def test_what_was_not_used_for_the_longest_time_makes_room(kept, converted, monkeypatch):
    monkeypatch.setattr(conversions, "MOST_KEPT", 2)
    bundle, fields = bundle_of("idc-cnn"), random_fields(3)
    others = [kept / "somebody-s", kept / ("0" * 40), kept / ".part-now"]  # not networks, or not finished
    dead = kept / ".part-of-a-killed-run"
    for folder in (*others, dead):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    os.utime(others[-1])

    def networks():
        return sorted(set(kept.iterdir()) - set(others), key=lambda path: path.stat().st_mtime_ns)

    for digest in ("a", "b", "a", "c"):
        answers(replace(bundle, digest=digest), fields)
        for n, folder in enumerate(networks()):
            os.utime(folder, (n, n))  # so that the order does not hang on the clock's steps
    assert len(converted) == 3
    assert len(networks()) == 2
    assert not dead.exists()
    assert all(folder.exists() for folder in others)
    answers(replace(bundle, digest="a"), fields)
    assert len(converted) == 3
    answers(replace(bundle, digest="b"), fields)
    assert len(converted) == 4


def test_a_card_that_does_not_fit_its_weights_is_told(kept):
    bundle = bundle_of("idc-cnn")

    def build():
        raise BundleError("model.safetensors", "does not fit")

    with pytest.raises(BundleError, match="does not fit"):
        answers(replace(bundle, build=build), random_fields(3))
    assert not kept.exists()


@pytest.mark.parametrize(("engine", "runs"), [("openvino", 2), ("openvino-int8", 1)])
def test_a_kept_network_needs_no_torch(kept, engine, runs):
    code = (
        "import sys\n"
        "from wsi_pipeline.inference import Predictor, choose_device\n"
        "from wsi_pipeline.models.bundle import load_bundle\n"
        "import numpy as np\n"
        "bundle = load_bundle('idc-resnet18')\n"
        f"predictor = Predictor(bundle=bundle, device='cpu', batch_size=4, engine={engine!r}, tta=True, keep=True)\n"
        "print(predictor.probabilities(np.zeros((5, 50, 50, 3), np.uint8)).tolist())\n"
        "print('torch' in sys.modules)"
    )
    found = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(runs)
    ]
    assert found[-1][1] == "False"
    assert found[0][0] == found[-1][0]


def test_a_run_needs_no_torch(kept, tmp_path):
    """Nor does any other of its steps: reading, tissue, regions, pictures, report, records."""
    slide = write_pyramid(tmp_path / "slide.tiff", base=tissue_picture(600, 500))
    code = (
        "import sys\n"
        "from wsi_pipeline.cli import main\n"
        "from wsi_pipeline import machine\n"
        "machine.may_have_gpu = lambda: False\n"  # on a machine with a GPU, torch is asked for it
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('torch' in sys.modules)"
    )
    for adaptive in ([], ["--adaptive"]):
        for run, expected in enumerate(["True", "False"]):
            command = ["run", str(slide), "--out", str(tmp_path / f"out{run}{len(adaptive)}"), "--engine", "openvino"]
            command += ["--tissue-min-area-um2", "0", "--workers", "0", *adaptive]
            found = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
            assert found.stdout.split()[-1] == (expected if not adaptive else "False"), found.stderr
