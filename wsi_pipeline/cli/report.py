"""`wsi-pipeline report`: the page of a finished run, made again."""

import argparse
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK

_EPILOG = """\
`wsi-pipeline run` writes the page itself; this makes it again from the results, such as after a run that was
interrupted. It needs nothing but the folder: the slides themselves need not be there."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    report = commands.add_parser(
        "report",
        parents=[common],
        help="the page of a finished run (report.html), made again",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("results", type=Path, metavar="RESULTS", help="folder that `wsi-pipeline run` wrote with --out")
    report.set_defaults(command=_report)


def _report(args: argparse.Namespace) -> int:
    from wsi_pipeline.report import read_run, write_report

    page = write_report(args.results, read_run(args.results))
    print(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return OK
