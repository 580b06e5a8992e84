"""What all programs are given, and one run of one of them; see `benchmarks.peers`."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bundles import MEAN, STD, resnet18_bundle, resnet18_script, stub_bundle
from benchmarks.measure import Row, program, run_child, scratch
from benchmarks.slides import CELL_PX, MPP
from wsi_pipeline.config import Settings
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.slides import open_slide

SCRIPTS = Path(__file__).parent / "peer_runs"
OURS = "wsi-pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all programs are given."""

    slide: Path
    work: Path
    batch: int
    threads: int
    device: str
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A program with a number of reading processes."""

    name: str
    python: Path
    script: Path
    workers: int

    @property
    def title(self) -> str:
        """Name and workers."""
        return f"{self.name}, {'auto' if self.workers < 0 else self.workers} workers"


def lay_patches(slide: Path, bundle: Path) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Corners (x, y) int64 [n, 2] of the cells that a run visits, level-0 pixels, and the grid's columns and rows."""
    with open_slide(slide) as opened:
        grid = plan_slide(opened, load_bundle(bundle).view, Settings()).grid
    corners = grid.windows(grid.cells)
    if (corners % CELL_PX).any() or grid.scale.x != 1:
        raise SystemExit(f"{slide}: its cells are not whole squares of {CELL_PX} px; give another slide")
    return corners, grid.shape[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Runs candidates over the patches."""

    setting: Setting
    grid: tuple[int, int]

    def run(self, candidate: Candidate, *, stub: bool) -> tuple[Row, Path]:
        """One run of a script; figures and the file of its predictions."""
        setting = self.setting
        place = scratch(setting.work) / "job"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        out = scratch(setting.work) / f"{candidate.name}-{'stub' if stub else 'resnet18'}.npz"
        script = stub_bundle(setting.work) if stub else resnet18_script(setting.work)
        job = {
            "slide": str(setting.slide),
            "coords": str(scratch(setting.work) / "coords.npy"),
            "side": CELL_PX,
            "grid": self.grid,
            "mpp": MPP,
            "state": None if stub else str(_state(setting.work)),
            "script": str(script.absolute()),
            "mean": MEAN,
            "std": STD,
            "batch": setting.batch,
            "workers": candidate.workers,
            "threads": setting.threads,
            "device": setting.device,
            "scratch": str(place),
            "out": str(out),
        }
        (scratch(setting.work) / "job.json").write_text(json.dumps(job))
        child = run_child(
            [str(candidate.python), str(candidate.script), str(scratch(setting.work) / "job.json")],
            threads=setting.threads,
            env=_quiet(setting.device, candidate.name),
            timeout=setting.timeout,
        )
        said = json.loads(child.output.strip().splitlines()[-1])
        row = {
            "cells_per_s": said["cells"] / child.seconds,
            "call_cells_per_s": said["cells"] / said["call_s"],
            "seconds": child.seconds,
            "call_s": said["call_s"],
            "peak_mb": child.peak_mb,
        }
        return row, out

    def run_whole(self, engine: str) -> Row:
        """``wsi-pipeline run`` on the slide."""
        setting = self.setting
        out = scratch(setting.work) / "peers-run"
        shutil.rmtree(out, ignore_errors=True)
        command = [*program(), "run", str(setting.slide), "--out", str(out), "--model"]
        command += [str(resnet18_bundle(setting.work)), "--batch-size", str(setting.batch), "--device", setting.device]
        command += [] if engine == "auto" else ["--engine", engine]
        child = run_child(command, threads=setting.threads, timeout=setting.timeout)
        summary = json.loads((out / setting.slide.stem / "summary.json").read_text())
        return {
            "cells_per_s": summary["cells"] / child.seconds,
            "call_cells_per_s": summary["cells"] / summary["seconds"]["total"],
            "seconds": child.seconds,
            "call_s": summary["seconds"]["total"],
            "peak_mb": child.peak_mb,
        }


def _quiet(device: str, name: str) -> dict[str, str]:
    """What keeps a peer off the network and off a GPU that was not asked for."""
    found = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    if device == "cpu":
        found |= {"CUDA_VISIBLE_DEVICES": "", "WSINFER_FORCE_CPU": "1"}
    if name == OURS:
        found["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return found


def _state(work: Path) -> Path:
    """The ResNet-18's weights as torch saves them."""
    file = resnet18_bundle(work) / "state.pt"
    if not file.exists():
        torch.save(load_bundle(file.parent).build().state_dict(), file)
    return file.absolute()
