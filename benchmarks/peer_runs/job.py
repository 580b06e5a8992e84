"""What every program is told, and what it must give back. Run as a script's neighbour in each peer's environment.

Only numpy and torch are imported here: each program's own imports stand in its own script.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

Predict = Callable[[], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Runs the program; gives corners [n, 2] (x, y) and probabilities of the second class [n]."""


@dataclass(frozen=True)
class Job:
    """One run of one program."""

    slide: str
    coords: str
    """.npy, int64 [n, 2]: (x, y) of each patch's corner, level-0 pixels."""
    side: int
    """Of a patch, level-0 pixels."""
    grid: tuple[int, int]
    """Columns and rows of patches that the slide has room for."""
    mpp: float
    state: str | None
    """torch.save of a torchvision ResNet-18's state; None for the stub, which only touches its input."""
    script: str
    """The same network in WSInfer's form: a folder."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batch: int
    workers: int
    threads: int
    device: str
    scratch: str
    """An empty folder."""
    out: str
    """.npz to write: coords and probability."""

    def corners(self) -> NDArray[np.int64]:
        """The patches."""
        found: NDArray[np.int64] = np.load(self.coords)
        return found

    def mask(self) -> NDArray[np.bool_]:
        """[rows, cols]: which patches are wanted."""
        wanted = np.zeros(self.grid[::-1], bool)
        col, row = (self.corners() // self.side).T
        wanted[row, col] = True
        return wanted


class Stub(torch.nn.Module):
    """Two logits from the mean of the input."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """[n, 3, side, side] to [n, 2]."""
        mean = batch.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def network(job: Job) -> torch.nn.Module:
    """The network itself: logits from normalised pixels."""
    if job.state is None:
        return Stub().eval()
    made = torchvision.models.resnet18(num_classes=2)
    made.load_state_dict(torch.load(job.state, weights_only=True))
    return made.eval()


def perform(prepare: Callable[[Job], Predict]) -> None:
    """Read the job, prepare, run, write what was found, say how long the run itself took."""
    values = json.loads(Path(sys.argv[1]).read_text())
    job = Job(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    torch.set_num_threads(job.threads)
    predict = prepare(job)
    started = time.perf_counter()
    coords, probability = predict()
    seconds = time.perf_counter() - started
    np.savez(job.out, coords=coords, probability=probability)
    print("\n" + json.dumps({"call_s": seconds, "cells": len(coords)}))
