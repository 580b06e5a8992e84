"""The rules of the house: imports point one way (contracts in pyproject.toml), and start-up stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_imports_keep_their_contracts():
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if '.' not in m))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "wsi_pipeline",
        "wsi_pipeline.cli",
        "wsi_pipeline.feed",
        "wsi_pipeline.heatmap",
        "wsi_pipeline.inference",
        "wsi_pipeline.inspection",
        "wsi_pipeline.models.bundle",
        "wsi_pipeline.pipeline",
        "wsi_pipeline.report",
        "wsi_pipeline.slides",
    ],
)
def test_light_modules_do_not_load_torch(module):
    assert not loaded_after(f"import {module}") & {"torch", "torchvision", "distributed"}


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = {"torch", "zarr", "skimage", "matplotlib", "scipy", "sklearn", "distributed", "openslide", "tifffile"}
    assert not loaded_after("import wsi_pipeline.cli as c; c._parser()") & heavy
