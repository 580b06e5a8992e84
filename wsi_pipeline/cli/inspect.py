"""`wsi-pipeline inspect`: what a slide is."""

import argparse
import sys
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK, SOME_FAILED, add_settings, read_settings
from wsi_pipeline.errors import WsiPipelineError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    inspect = commands.add_parser("inspect", parents=[common], help="what a slide is, and how many cells a run has")
    inspect.add_argument("inputs", nargs="+", metavar="SLIDE", help="as for run")
    inspect.add_argument("--config", metavar="FILE", help="YAML file of settings, or a shipped one")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    add_settings(inspect, sections={None, "slides", "tissue", "grid", "prediction"})
    inspect.set_defaults(command=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    import json

    from wsi_pipeline.grid import CellSpec
    from wsi_pipeline.inspection import inspect_slide
    from wsi_pipeline.jobs import plan_jobs
    from wsi_pipeline.models.bundle import load_bundle
    from wsi_pipeline.slides import find_slides

    settings, status, found = read_settings(args), OK, []
    bundle = load_bundle(settings.model)
    CellSpec.parse(settings.grid.cell)
    jobs = plan_jobs(find_slides(args.inputs), Path(), settings, bundle.path, bundle.digest, overwrite=False)
    for job in jobs:
        try:
            report = inspect_slide(job.source, settings, bundle)
        except WsiPipelineError as error:
            if args.debug:
                raise
            print(f"wsi-pipeline: {error}", file=sys.stderr)
            status = SOME_FAILED
            continue
        found.append(report)
        if not args.json:
            print("\n".join(f"{key:<12} {value}" for key, value in report.items()) + "\n")
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return status
