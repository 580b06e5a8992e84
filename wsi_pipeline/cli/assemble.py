"""`wsi-pipeline assemble`: Kaggle cases as images."""

import argparse
import sys
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK, SOME_FAILED
from wsi_pipeline.errors import WsiPipelineError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    assemble = commands.add_parser(
        "assemble", parents=[common], help="write Kaggle patch cases as pyramidal OME-TIFF with their labels"
    )
    assemble.add_argument("inputs", nargs="+", metavar="CASES", help="patch folder or zip")
    assemble.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the images")
    assemble.add_argument("--overwrite", action="store_true", help="replace images that are there")
    assemble.set_defaults(command=_assemble)


def _assemble(args: argparse.Namespace) -> int:
    from wsi_pipeline.slides import find_slides
    from wsi_pipeline.slides.assemble import assemble_case

    status = OK
    for address in find_slides(args.inputs):
        try:
            for path in assemble_case(address, args.out, overwrite=args.overwrite):
                print(path)
        except WsiPipelineError as error:
            if args.debug:
                raise
            print(f"wsi-pipeline: {error}", file=sys.stderr)
            status = SOME_FAILED
    return status
