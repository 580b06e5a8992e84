"""A run that says when its first cells are done: ``python -m benchmarks.first_cells SLIDE OUT MODEL ENGINE DEVICE``.

It is the command line's own run, so that `benchmarks.startup` measures what a user waits for.
"""

import sys
import time

MARK = "first cells after "


def main(slide: str, out: str, model: str, engine: str, device: str) -> None:
    """Run, and print the seconds since this process began at the first cells that are done."""
    import psutil  # noqa: PLC0415  (only the child needs what follows)

    from wsi_pipeline.cli import main as command  # noqa: PLC0415
    from wsi_pipeline.progress import Progress  # noqa: PLC0415  (a run imports it anyway)

    shown, told = Progress.cells, False

    def cells(progress: Progress, name: str, done: int, total: int) -> None:
        nonlocal told
        if done and not told:
            told = True
            print(f"{MARK}{time.time() - psutil.Process().create_time():.3f}", flush=True)
        shown(progress, name, done, total)

    Progress.cells = cells  # type: ignore[method-assign]
    command(["run", slide, "--out", out, "--model", model, "--engine", engine, "--device", device])


if __name__ == "__main__":
    main(*sys.argv[1:])
