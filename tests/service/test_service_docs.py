"""The examples of docs/service.md, typed as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_serve_command import server

PAGE = Path(__file__).parents[2] / "docs" / "service.md"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_examples_work(root, tmp_path, bundle):
    (root / "slide.tiff").rename(root / "demo.tiff")
    here = tmp_path / "here"
    here.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    Image.fromarray(pixels).save(here / "patch.png")
    text = PAGE.read_text(encoding="utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    with server(root, tmp_path / "results", Path("idc-resnet18")) as (_, address):
        assert "http://127.0.0.1:8765" in python
        ran = _run(here, sys.executable, "-c", python.replace("http://127.0.0.1:8765", address))
        assert "done {" in ran
        assert "mm² in" in ran
        told = _run(here, "sh", "-euc", shell, S=address)
    assert "event: end" in told
    assert '"status":"cancelled"' in told or '"cancelling":true' in told
    assert '"probabilities":{' in told
    assert np.load(here / "probability.npy").dtype == np.float32
    assert (here / "heatmap.zip").read_bytes()[:2] == b"PK"
    for picture in ("overlay.png", "why.png"):
        with Image.open(here / picture) as image:
            image.verify()


def _run(folder: Path, *command: str, **more: str) -> str:
    environment = os.environ | more
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
