import subprocess
import sys
from pathlib import Path

from wsi_pipeline.geometry import Size
from wsi_pipeline.phantom import write_phantom

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_python_example_runs_a_slide_and_measures_its_map(tmp_path):
    write_phantom(tmp_path / "slide.tiff", Size(2400, 2000))
    command = [sys.executable, str(EXAMPLES / "from_python.py"), str(tmp_path / "slide.tiff"), str(tmp_path / "out")]
    printed = subprocess.run([*command, "--cell", "100um"], check=True, capture_output=True, text=True).stdout
    assert printed.startswith("IDC: ")
    assert printed.count("mm²") == 4
