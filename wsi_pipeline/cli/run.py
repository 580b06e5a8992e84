"""`wsi-pipeline run`: slides in, heatmaps and outlines out."""

import argparse
import gc
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_pipeline.cli.common import add_settings, read_settings, report_failures
from wsi_pipeline.config import Settings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.machine import share_freed_memory
from wsi_pipeline.wording import counted

if TYPE_CHECKING:
    from wsi_pipeline.manifest import RunRecord

_EPILOG = """\
Each slide gets a folder in DIR with heatmap.zarr, regions.geojson (drag it onto the slide in QuPath), overlay.png,
tissue.png and summary.json (and uncertainty.png with --tta, or for an ensemble); the run gets
summary.csv and run.json. Run the same command again to resume.

exit status: 0 all well, 1 some slides failed (listed at the end), 2 wrong usage"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    run = commands.add_parser(
        "run",
        parents=[common],
        help="slides in, heatmaps and outlines out",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "inputs",
        nargs="+",
        metavar="SLIDE",
        help="file, folder (searched through), glob, text list "
        "(.txt, a path a line), s3:// or https:// address, Kaggle patch folder or zip",
    )
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    run.add_argument("--config", metavar="FILE", help="YAML file of settings, or a shipped one: idc-40x, idc-kaggle")
    run.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results made with other settings (a heatmap that still fits is kept)",
    )
    run.add_argument(
        "--profile",
        action="store_true",
        help="print where the time went, and write profile.json for https://ui.perfetto.dev",
    )
    run.add_argument("--cluster", metavar="local:N", help="N worker processes of dask on this machine")
    run.add_argument("--scheduler", metavar="ADDRESS", help="address of a running dask scheduler, tcp://host:8786")
    add_settings(run)
    run.set_defaults(command=_run)


def _run(args: argparse.Namespace) -> int:
    if args.cluster and args.scheduler:
        raise ConfigError("run", "--cluster and --scheduler exclude each other", "Give one of them.")
    if args.profile and (args.cluster or args.scheduler):
        raise ConfigError("run", "--profile sees this process alone, not a cluster", "Leave the cluster out.")
    settings = read_settings(args)
    from wsi_pipeline.profile import profiled

    with profiled() if args.profile else nullcontext() as profile:
        record = _run_slides(args, settings)
    done, skipped = (sum(r.status == status for r in record.results) for status in ("done", "skipped"))
    if profile is not None:
        profile.write(args.out)
        print(profile.table(sum(r.summary.cells for r in record.results if r.summary and r.status == "done")))
    ended = f"{counted(done, 'slide')} done, {skipped} done before, {len(record.failed)} failed"
    print(f"{ended}. Results: {args.out}/summary.csv")
    return report_failures(record, debug=args.debug)


def _run_slides(args: argparse.Namespace, settings: Settings) -> "RunRecord":
    from wsi_pipeline.timing import stage

    # Imports make objects by the hundred thousand, none of them garbage: looking for some takes a third of a second.
    gc.set_threshold(100_000)
    share_freed_memory()
    with stage("start-up"):
        from wsi_pipeline import pipeline
        from wsi_pipeline.progress import Progress

    runner = None
    if args.cluster or args.scheduler:
        from wsi_pipeline.cluster import cluster_runner

        runner = cluster_runner(args.scheduler or args.cluster)
    with Progress() as progress:
        return pipeline.run(
            args.inputs,
            args.out,
            settings,
            overwrite=args.overwrite,
            runner=runner,
            on_plan=progress.plan,
            on_cells=progress.cells,
            on_slide=progress.slide,
        )
