"""Slides and models made by the tests, small and with known results."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsi_pipeline.geometry import Box, FieldOfView, Level, Mpp, Scale, Size, SlideInfo

GAIN = 8.0


class Redness(nn.Module):
    """A network whose probability of class 1 is sigmoid(GAIN * (mean red - 0.5)), red in 0..1 before normalisation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = 8.0 * (x[:, 0].mean(dim=(1, 2)) - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def redness(pixels: NDArray[np.uint8]) -> float:
    """What `Redness` says of a field of view, by numpy."""
    return float(1 / (1 + np.exp(-GAIN * (pixels[..., 0].astype(np.float64).mean() / 255 - 0.5))))


def write_redness_bundle(folder: Path, *, size_px: int = 50, mpp: float = 0.25) -> Path:
    """`Redness` as a bundle in WSInfer's form."""
    return write_bundle_of(folder, Redness(), size_px=size_px, mpp=mpp)


def write_bundle_of(folder: Path, network: nn.Module, *, size_px: int, mpp: float) -> Path:
    """A network of two classes as a bundle in WSInfer's form."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.trace(network.eval(), torch.rand(2, 3, size_px, size_px)).save(str(folder / "model.pt"))
    config = {
        "spec_version": "1.0",
        "architecture": type(network).__name__.lower(),
        "num_classes": 2,
        "class_names": ["other", "IDC"],
        "patch_size_pixels": size_px,
        "spacing_um_px": mpp,
        "transform": [{"name": "ToTensor"}],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def printed_by(code: str, folder: Path, *arguments: str | Path) -> str:
    """What a file of `code` prints in a process of its own, which may start others and import the tests' modules."""
    (folder / "program.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "program.py", *map(str, arguments)],
        check=False,  # its traceback is the better message
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def slide_info(
    width: int,
    height: int,
    *,
    mpp: Mpp | None = None,
    bounds: Box | None = None,
    downsamples: tuple[float, ...] = (1, 4, 16),
) -> SlideInfo:
    """A slide that exists on paper only."""
    return SlideInfo(
        slide_id="paper",
        path="paper.tiff",
        size=Size(width, height),
        mpp=mpp or Mpp(0.25, 0.25),
        mpp_source="file",
        levels=tuple(Level(Size(max(1, int(width / d)), max(1, int(height / d))), Scale(d, d)) for d in downsamples),
        bounds=bounds or Box(0, 0, width, height),
        vendor="test",
        reader="test",
        fingerprint="0" * 64,
    )


VIEW_40X = FieldOfView(size_px=50, mpp=0.25)
VIEW_KAGGLE = FieldOfView(size_px=50, mpp=4.0)


def tissue_picture(width: int = 1000, height: int = 800, seed: int = 0) -> NDArray[np.uint8]:
    """Glass with one round piece of pink tissue, redder to the right, RGB [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / (width * 0.4)) ** 2 + ((y - height / 2) / (height * 0.4)) ** 2 < 1
    noise = np.random.default_rng(seed).integers(-6, 7, (height, width, 3))
    tissue = np.stack([140 + 90 * x / width, np.full(x.shape, 90.0), np.full(x.shape, 150.0)], axis=-1)
    picture = np.where(inside[..., None], tissue, 244) + noise
    return picture.clip(0, 255).astype(np.uint8)


def run_alone(function: Callable[..., Any], *given: Any) -> Any:
    """Run it in a thread that has no event loop: this one may have one, of a browser driven by other tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *given).result()
