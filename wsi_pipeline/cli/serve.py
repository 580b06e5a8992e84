"""`wsi-pipeline serve`: the viewer with an interface for programs."""

import argparse
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK, add_settings, natural, read_settings

_EPILOG = """\
The same pages as `wsi-pipeline view`, and beside them an interface for programs, described in /openapi.json: submit a
slide under --root, follow the job, fetch probabilities, heatmap and regions; upload a patch. docs/service.md has
examples. Jobs are kept in DIR and survive a restart; one process runs the network, one slide after the other.

Only this machine can reach it. With another --host (0.0.0.0 for all networks) requests need the token that is printed.
The connection is not encrypted: over a network that others use, forward the port with ssh.

For research use only, not for diagnosis."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    serve = commands.add_parser(
        "serve",
        parents=[common],
        help="the viewer with an interface for programs: submit slides and patches, follow jobs",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "--root", type=Path, nargs="+", required=True, metavar="FOLDER", help="slides are taken from here only"
    )
    serve.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results and the jobs")
    serve.add_argument("--port", type=_port, metavar="N", help="default: 8765, or any free one")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    serve.add_argument("--token", metavar="TEXT", help="what a client must show (default: made where it is needed)")
    serve.add_argument(
        "--model",
        nargs="+",
        metavar="NAME",
        help="bundles that requests may name: shipped ones, or folders; the first is the default (default: "
        "idc-resnet18)",
    )
    serve.add_argument("--queue", type=natural, default=100, metavar="N", help="jobs that may wait (default: 100)")
    serve.add_argument(
        "--show-label", action="store_true", help="also give out pictures of labels, which may bear patients' names"
    )
    serve.add_argument(
        "--config", metavar="FILE", help="YAML file of settings that hold for every job, or a shipped one"
    )
    add_settings(serve, sections={"inference"})
    serve.set_defaults(command=_serve)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{number} is no port")
    return number


def _serve(args: argparse.Namespace) -> int:
    settings = read_settings(args)
    from wsi_pipeline.service.options import ServiceOptions
    from wsi_pipeline.service.server import serve
    from wsi_pipeline.viewer.options import ViewerOptions

    options = ServiceOptions(
        roots=tuple(args.root),
        out=args.out,
        models=tuple(args.model or [settings.model]),
        settings=settings,
        viewer=ViewerOptions(host=args.host, token=args.token, show_label=args.show_label),
        max_queued=args.queue,
    )
    serve(options, port=args.port, announce=lambda line: print(line, flush=True))
    return OK
