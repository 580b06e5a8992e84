"""A run that says when its first cells are done: ``python -m benchmarks.first_cells SLIDE OUT MODEL ENGINE DEVICE``.

It imports no more than the command line does, so that `benchmarks.startup` measures what a user waits for.
"""

import sys
import time
from pathlib import Path

MARK = "first cells after "


def main(slide: str, out: str, model: str, engine: str, device: str) -> None:
    """Run, and print the seconds since this process began at the first cells that are done."""
    import psutil  # noqa: PLC0415  (only the child needs what follows)

    from wsi_pipeline import pipeline  # noqa: PLC0415
    from wsi_pipeline.config import Settings  # noqa: PLC0415

    told = False

    def on_cells(_slide: str, done: int, _total: int) -> None:
        nonlocal told
        if done and not told:
            told = True
            print(f"{MARK}{time.time() - psutil.Process().create_time():.3f}", flush=True)

    inference = {"device": device, "engine": engine}
    settings = Settings.model_validate({"model": model, "inference": inference})
    pipeline.run([slide], Path(out), settings, on_cells=on_cells)


if __name__ == "__main__":
    main(*sys.argv[1:])
