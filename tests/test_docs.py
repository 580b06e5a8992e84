"""The documentation builds without a warning, needs no network, and says what the program says; the notebook runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_pipeline.cli import _parser
from wsi_pipeline.config import options

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "heatmap.ipynb"
MAX_NOTEBOOK_BYTES = 200_000


def commands() -> dict:
    (found,) = (action.choices for action in _parser()._actions if action.dest == "==SUPPRESS==" or action.choices)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-W", "default", "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.mark.slow
def test_every_page_fetches_nothing_and_says_what_it_is_for(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"""<(?:script|img|iframe|link)[^>]*?(?:src|href)="(https?:[^"]+)""", text)
        assert not fetched, (page.name, fetched)
        assert "For research use only, not for diagnosis" in text, page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?https?:|@import\s+[\"']?https?:", sheet.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_site_names_every_command_option_setting_and_model(site):
    cli = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for name, parser in commands().items():
        assert f'id="{name}"' in cli
        for action in parser._actions:
            for option in action.option_strings:
                assert option in {"-h", "--help"} or option in cli, (name, option)
    settings = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in settings for name in options())
    models = (site / "models.html").read_text(encoding="utf-8")
    assert "idc-resnet18" in models
    assert "DCIS, necrosis, skin" in models
    api = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in ("api.analyze", "api.Result.regions_at", "heatmap.heatmap.Heatmap.probability", "slides.open_slide"):
        assert f'id="wsi_pipeline.{name}"' in api


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    done = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert re.search(r"IDC \d\.\d{3} mm² of \d\.\d{3} mm² at threshold", printed)
    assert float(re.search(r"AUROC of the cells: (\d\.\d+)", printed).group(1)) > 0.5
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 3
    made = re.search(r"tumour drawn: (\d\.\d+)", printed)
    assert float(made.group(1)) > 0


def test_the_notebook_that_is_committed_is_small():
    assert NOTEBOOK.stat().st_size < MAX_NOTEBOOK_BYTES
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert "/tmp/" not in text
