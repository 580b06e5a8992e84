"""The command line: every command is one call of the library."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from wsi_pipeline import __version__
from wsi_pipeline.config import Settings, load_settings, options
from wsi_pipeline.errors import ClusterError, ConfigError, InferenceError, OutputError, WsiPipelineError

if TYPE_CHECKING:
    from wsi_pipeline.manifest import RunRecord

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  wsi-pipeline demo                                       see it work on an example slide it makes itself
  wsi-pipeline run slides/ --out results/                 every slide in a folder
  wsi-pipeline run a.svs b.ndpi --out results/ --cell native     the quick look: cells of 200 µm
  wsi-pipeline run IDC_regular_ps50_idx5.zip --out results/      the Kaggle patches, reassembled
  wsi-pipeline inspect slide.svs                          size, resolution, tissue, how many cells

For research use only, not for diagnosis."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 all well, 1 some slides failed, 2 wrong usage, 130 interrupted.
    """
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

    for add in (_run_parser, _demo_parser, _inspect_parser, _assemble_parser):
        add(commands, common)
    return parser


_RUN_EPILOG = """\
Each slide gets a folder in DIR with heatmap.zarr, regions.geojson (drag it onto the slide in QuPath), overlay.png,
tissue.png and summary.json; the run gets summary.csv and run.json. Run the same command again to resume.

exit status: 0 all well, 1 some slides failed (listed at the end), 2 wrong usage"""


def _run_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    run = commands.add_parser(
        "run",
        parents=[common],
        help="slides in, heatmaps and outlines out",
        epilog=_RUN_EPILOG,
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
    run.add_argument("--cluster", metavar="local:N", help="N worker processes of dask on this machine")
    run.add_argument("--scheduler", metavar="ADDRESS", help="address of a running dask scheduler, tcp://host:8786")
    _add_settings(run)
    run.set_defaults(command=_run)


def _demo_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    demo = commands.add_parser("demo", parents=[common], help="make an example slide and run the whole job on it")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("wsi-pipeline-demo"),
        metavar="DIR",
        help="folder of slide and results (default: %(default)s)",
    )
    demo.add_argument(
        "--width", type=_natural, default=10_000, help="of the slide, px at 0.25 µm/px (default: %(default)s)"
    )
    demo.add_argument(
        "--height", type=_natural, default=8_000, help="of the slide, px at 0.25 µm/px (default: %(default)s)"
    )
    demo.add_argument("--seed", type=_natural, default=0, help="another seed draws other tissue (default: %(default)s)")
    demo.set_defaults(command=_demo)


def _inspect_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    inspect = commands.add_parser("inspect", parents=[common], help="what a slide is, and how many cells a run has")
    inspect.add_argument("inputs", nargs="+", metavar="SLIDE", help="as for run")
    inspect.add_argument("--config", metavar="FILE", help="YAML file of settings, or a shipped one")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    _add_settings(inspect, sections={None, "slides", "tissue", "grid"})
    inspect.set_defaults(command=_inspect)


def _assemble_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    assemble = commands.add_parser(
        "assemble", parents=[common], help="write Kaggle patch cases as pyramidal OME-TIFF with their labels"
    )
    assemble.add_argument("inputs", nargs="+", metavar="CASES", help="patch folder or zip")
    assemble.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the images")
    assemble.add_argument("--overwrite", action="store_true", help="replace images that are there")
    assemble.set_defaults(command=_assemble)


def _add_settings(parser: argparse.ArgumentParser, sections: set[str | None] | None = None) -> None:
    """An option for each setting, of the same name."""
    groups: dict[str | None, Any] = {None: parser}
    for name, (section, setting) in options().items():
        if sections is not None and section not in sections:
            continue
        if section not in groups:
            owner = Settings.model_fields[section or ""].annotation
            groups[section] = parser.add_argument_group(section, (owner.__doc__ or "").strip() if owner else None)
        kind, choices = _kind(setting.annotation)
        text = setting.description or ""
        if setting.default is not None:
            default = {True: "yes", False: "no"}[setting.default] if kind is bool else setting.default
            text += f" (default: {default})"
        more: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        if choices:
            more["choices"] = choices
        elif kind is not bool:
            more["metavar"] = {float: "X", int: "N"}.get(kind, "TEXT")
        groups[section].add_argument(
            f"--{name.replace('_', '-')}", default=None, help=text.replace("%", "%%"), dest=f"setting_{name}", **more
        )


def _natural(text: str) -> int:
    """Type of an option that counts something."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _kind(annotation: Any) -> tuple[type, tuple[str, ...] | None]:
    """Type and choices of a setting: of ``X | None`` the X, of a Literal its values."""
    if get_origin(annotation) in (Union, UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not NoneType))
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__)
    return annotation, None


def _settings(args: argparse.Namespace) -> Settings:
    given = {name.removeprefix("setting_"): value for name, value in vars(args).items() if name.startswith("setting_")}
    return load_settings(args.config, given)


def _run(args: argparse.Namespace) -> int:
    if args.cluster and args.scheduler:
        raise ConfigError("run", "--cluster and --scheduler exclude each other", "Give one of them.")
    settings = _settings(args)
    from wsi_pipeline import pipeline
    from wsi_pipeline.progress import Progress

    runner = None
    if args.cluster or args.scheduler:
        from wsi_pipeline.cluster import cluster_runner

        runner = cluster_runner(args.scheduler or args.cluster)
    with Progress() as progress:
        record = pipeline.run(
            args.inputs,
            args.out,
            settings,
            overwrite=args.overwrite,
            runner=runner,
            on_plan=progress.plan,
            on_cells=progress.cells,
            on_slide=progress.slide,
        )
    done, skipped = (sum(r.status == status for r in record.results) for status in ("done", "skipped"))
    print(f"{done} slides done, {skipped} done before, {len(record.failed)} failed. Results: {args.out}/summary.csv")
    return _report_failures(record, debug=args.debug)


def _report_failures(record: "RunRecord", *, debug: bool) -> int:
    """List the slides that failed, and say so in the status."""
    for result in record.failed:
        error = result.error or {}
        print(f"FAILED {result.slide}: {error['where']}: {error['why']}. {error['hint']}".rstrip(), file=sys.stderr)
        if debug:
            print(error.get("traceback", ""), file=sys.stderr)
    return SOME_FAILED if record.failed else OK


def _demo(args: argparse.Namespace) -> int:
    from wsi_pipeline.demo import run_demo
    from wsi_pipeline.geometry import Size
    from wsi_pipeline.progress import Progress

    with Progress() as progress:
        found = run_demo(args.out, Size(args.width, args.height), args.seed, progress)
    if not found.record.failed:
        print(found.text())
    return _report_failures(found.record, debug=args.debug)


def _inspect(args: argparse.Namespace) -> int:
    import json

    from wsi_pipeline.grid import CellSpec
    from wsi_pipeline.inspection import inspect_slide
    from wsi_pipeline.jobs import plan_jobs
    from wsi_pipeline.models.bundle import load_bundle
    from wsi_pipeline.slides import find_slides

    settings, status, found = _settings(args), OK, []
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


if __name__ == "__main__":
    sys.exit(main())
