"""A worker without a network: what it does to a slide stands in the slide's name. Run as a program."""

import json
import os
import signal
import sys
import time
from pathlib import Path

FACTS = {"name": "redness", "title": "redness", "description": "", "digest": "d", "class_names": ["other", "IDC"],
         "positive_class": "IDC", "threshold": 0.5, "patch_px": 50, "mpp": 0.25, "limits": []}  # fmt: skip


def tell(**message) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def listen() -> dict:
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    return json.loads(line)


def wait_for_cancel(job: str) -> None:
    while (order := listen()).get("do") != "cancel" or order["job"] != job:
        pass


def run(order: dict) -> None:
    job, name, folder = order["job"], Path(order["slide"]).name, Path(order["folder"])
    folder.mkdir(exist_ok=True)
    done = int((folder / "done").read_text()) if (folder / "done").exists() else 0
    if "dies" in name:
        tell(cells=job, done=0, total=10)
        os.kill(os.getpid(), signal.SIGKILL)
    if "stumbles" in name and done < 5:
        # Further by one cell each time.
        (folder / "done").write_text(str(done + 1))
        tell(cells=job, done=done + 1, total=10)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    if "waits" in name:
        tell(cells=job, done=3, total=10)
        wait_for_cancel(job)
        tell(ended=job, status="cancelled")
    elif "hangs" in name:
        tell(cells=job, done=1, total=10)
        while True:
            time.sleep(1)
    elif "fails" in name:
        error = {"type": "SlideReadError", "where": name, "why": "is damaged", "hint": "Copy it again."}
        tell(ended=job, status="failed", error=error)
    else:
        tell(cells=job, done=10, total=10)
        tell(ended=job, status="done")


def main() -> None:
    start = listen()
    if "refused" in start["models"]:
        tell(refused={"type": "BundleError", "where": "model", "why": "is damaged", "hint": "Copy it."})
        sys.exit()
    if "breaks" in start["models"]:
        sys.exit(3)
    tell(ready=[FACTS])
    while True:
        order = listen()
        if order["do"] == "slide":
            run(order)
        elif order["do"] == "predict":
            os._exit(7)


if __name__ == "__main__":
    main()
