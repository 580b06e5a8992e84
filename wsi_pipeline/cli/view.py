"""`wsi-pipeline view`: finished results on a local web page."""

import argparse
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK

_EPILOG = """\
Opens the browser on the slides of a run. RESULTS is the folder that was given to `run --out`, or one that holds several
of them: two models on one slide are shown side by side. What is drawn on a slide is saved beside its result as
annotations.geojson, for QuPath and for `wsi-pipeline extract`.

Only this machine can reach the page. With another --host (0.0.0.0 for all networks) the page needs the token in the
address that is printed. The connection is not encrypted: over a network that others use, forward the port with ssh.

For research use only, not for diagnosis."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    view = commands.add_parser(
        "view",
        parents=[common],
        help="finished results on a local web page: deep zoom, map, outlines, annotations",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    view.add_argument("results", type=Path, metavar="RESULTS", help="folder of one run, or of several")
    view.add_argument("--port", type=_port, metavar="N", help="default: 8765, or any free one")
    view.add_argument("--no-browser", action="store_true", help="do not open the browser")
    view.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    view.add_argument("--token", metavar="TEXT", help="what a visitor must show (default: made where it is needed)")
    view.add_argument(
        "--show-label", action="store_true", help="also give out pictures of labels, which may bear patients' names"
    )
    view.add_argument(
        "--slides",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="where slides are now that are no longer where they were run",
    )
    view.add_argument(
        "--remote-slides",
        action="store_true",
        help="open slides at the addresses (s3://, https://) that results name: only for results that you trust",
    )
    view.set_defaults(command=_view)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{number} is no port")
    return number


def _view(args: argparse.Namespace) -> int:
    from wsi_pipeline.viewer.options import ViewerOptions
    from wsi_pipeline.viewer.server import serve

    options = ViewerOptions(
        host=args.host,
        token=args.token,
        show_label=args.show_label,
        slide_folders=tuple(args.slides),
        remote_slides=args.remote_slides,
    )
    serve(
        args.results,
        options,
        port=args.port,
        open_browser=not args.no_browser,
        announce=lambda line: print(line, flush=True),
    )
    return OK
