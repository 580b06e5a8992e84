"""`wsi-pipeline demo`: make an example slide and run the whole job on it."""

import argparse
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import natural, report_failures


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    demo = commands.add_parser("demo", parents=[common], help="make an example slide and run the whole job on it")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("wsi-pipeline-demo"),
        metavar="DIR",
        help="folder of slide and results (default: %(default)s)",
    )
    demo.add_argument(
        "--width", type=natural, default=10_000, help="of the slide, px at 0.25 µm/px (default: %(default)s)"
    )
    demo.add_argument(
        "--height", type=natural, default=8_000, help="of the slide, px at 0.25 µm/px (default: %(default)s)"
    )
    demo.add_argument("--seed", type=natural, default=0, help="another seed draws other tissue (default: %(default)s)")
    demo.set_defaults(command=_demo)


def _demo(args: argparse.Namespace) -> int:
    from wsi_pipeline.demo import run_demo
    from wsi_pipeline.geometry import Size
    from wsi_pipeline.progress import Progress

    with Progress() as progress:
        found = run_demo(args.out, Size(args.width, args.height), args.seed, progress)
    if not found.record.failed:
        print(found.text())
    return report_failures(found.record, debug=args.debug)
