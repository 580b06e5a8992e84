"""The command line: every command is one call of the library, and one module here."""

import argparse
import atexit
import gc
import logging
import os
import select
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from wsi_pipeline import __version__
from wsi_pipeline.cli import (
    assemble,
    demo,
    evaluate,
    explain,
    export,
    extract,
    inspect,
    quantize,
    report,
    run,
    serve,
    train,
    view,
)
from wsi_pipeline.cli.common import INTERRUPTED, OK, READER_GONE, SOME_FAILED, USAGE
from wsi_pipeline.errors import ClusterError, InferenceError, OutputError, WsiPipelineError

__all__ = ["INTERRUPTED", "OK", "READER_GONE", "SOME_FAILED", "USAGE", "main"]

_EPILOG = """\
examples:
  wsi-pipeline demo                                       see it work on an example slide it makes itself
  wsi-pipeline run slides/ --out results/                 every slide in a folder
  wsi-pipeline run a.svs b.ndpi --out results/ --cell native     the quick look: cells of 200 µm
  wsi-pipeline run IDC_regular_ps50_idx5.zip --out results/      the Kaggle patches, reassembled
  wsi-pipeline view results/                              look at them: a local web page
  wsi-pipeline serve --root slides/ --out results/        the same, with an interface for programs
  wsi-pipeline report results/                            the page of a finished run, made again
  wsi-pipeline inspect slide.svs                          size, resolution, tissue, how many cells
  wsi-pipeline train idc-best --data patches/ --out my-model/    a model from labelled patches
  wsi-pipeline evaluate --model my-model --data test.zip --report report.html    what it is worth
  wsi-pipeline quantize --model my-model --data patches/ --out my-int8/    several times faster on a CPU
  wsi-pipeline explain --model my-model --data test.zip --out why.png    Grad-CAM
  wsi-pipeline export results/ --to csv,geojson --out tables/    for other programs: also OME-TIFF, DICOM, PNG
  wsi-pipeline extract slides/ --annotations qupath/ --out patches/      patches from annotations in QuPath

For research use only, not for diagnosis."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 all well, 1 some slides failed, 2 wrong usage, 130 interrupted, 141 nobody reads what is
        printed any more.
    """
    try:
        try:
            return _command(argv)
        finally:
            if sys.stdout is not None:  # as it is where a service closed it
                sys.stdout.flush()  # at Python's end it would be too late to say what follows
    except BrokenPipeError:
        if not _reader_left():
            raise  # it was another pipe
        # `head` and `grep -q` leave when they have read enough. Nothing is left to be said, nor anyone to hear it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def _command(argv: Sequence[str] | None) -> int:
    _print_any_name()
    atexit.unregister(_leave_quickly)  # once, however often a command is called
    atexit.register(_leave_quickly)
    args = _parser().parse_args(argv)
    _set_up_logging(debug=args.debug)
    try:
        status: int = args.command(args)
    except WsiPipelineError as error:
        if args.debug:
            raise
        print(f"wsi-pipeline: {error}", file=sys.stderr)
        return SOME_FAILED if isinstance(error, OutputError | ClusterError | InferenceError) else USAGE
    except KeyboardInterrupt:
        print("\nwsi-pipeline: interrupted. Run the same command again to go on where it stopped.", file=sys.stderr)
        return INTERRUPTED
    return status


def _reader_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    try:
        written = sys.stdout.fileno()
    except (AttributeError, OSError):  # closed, or no file
        return False
    pipe = select.poll()
    pipe.register(written, 0)  # that it is broken is told unasked
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(0))


def _leave_quickly() -> None:
    """Python ends by looking through all objects for garbage, which takes most of a second where PyTorch is loaded.

    Triton, which comes with `torch.compile` and trainings, prints pages about what it then finds not cleared away.
    """
    if "triton" not in sys.modules:
        gc.freeze()


def _print_any_name() -> None:
    """A file's name need not be text: odd bytes are printed as escapes and stop nothing."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _set_up_logging(*, debug: bool) -> None:
    """Warnings of ours go to stderr; of the libraries only with --debug, as what matters of them comes as an error."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    logging.basicConfig(level=handler.level, format="%(levelname)s %(message)s", handlers=[handler])
    if not debug:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsi-pipeline",
        description="Whole-slide images of breast tissue in; heatmaps of invasive ductal carcinoma, QuPath outlines "
        "and areas in mm² out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wsi-pipeline {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks and what the program does")

    for command in (
        run,
        view,
        serve,
        report,
        demo,
        inspect,
        assemble,
        extract,
        train,
        evaluate,
        quantize,
        explain,
        export,
    ):
        command.add_parser(commands, common)
    return parser
