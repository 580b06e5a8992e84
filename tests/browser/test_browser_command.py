"""The viewer that the browser tests look at is the one that was named."""

import json
import shlex
import sys
from pathlib import Path

STAND_IN = """
import json, os, sys
from pathlib import Path
told = {"arguments": sys.argv[1:], "cwd": os.getcwd(), "PYTHONPATH": os.environ.get("PYTHONPATH")}
Path(__file__).with_name("told.json").write_text(json.dumps(told))
print("Viewer: http://127.0.0.1:7/", flush=True)
"""


def test_an_installed_command_is_started_where_it_finds_nothing_of_this_checkout(serve, tmp_path, monkeypatch):
    script = tmp_path / "stand-in.py"
    script.write_text(STAND_IN)
    monkeypatch.setenv("WSI_PIPELINE_COMMAND", shlex.join([sys.executable, str(script)]))
    monkeypatch.setenv("PYTHONPATH", "src")
    running = serve("--show-label")
    told = json.loads((tmp_path / "told.json").read_text())
    assert running.url == "http://127.0.0.1:7/"
    assert told["arguments"] == ["view", str(running.results), "--no-browser", "--show-label", "--port", "0"]
    assert not (Path(told["cwd"]) / "wsi_pipeline").exists()
    assert told["PYTHONPATH"] is None
