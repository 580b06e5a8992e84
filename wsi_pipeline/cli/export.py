"""`wsi-pipeline export`: finished results in the forms of other programs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK, SOME_FAILED

_EPILOG = """\
examples:
  wsi-pipeline export results/ --to csv                                a table of cells and one of regions, every slide
  wsi-pipeline export results/ --to geojson --threshold 0.7 --out qupath/
  wsi-pipeline export results/slide --to ome-tiff,png --out pictures/
  wsi-pipeline export results/ --to dicom-seg,dicom-parametric-map     needs pip install "wsi-pipeline[dicom]"

Files are named <slide>.<what it is>. The results are only read.

exit status: 0 all well, 1 some exports failed (listed at the end), 2 wrong usage"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    export = commands.add_parser(
        "export",
        parents=[common],
        help="finished results for QuPath, Bio-Formats, DICOM viewers and spreadsheets",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="a slide's result folder, or a run's (then every finished slide in it)",
    )
    export.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="FORMAT[,FORMAT...]",
        help="geojson, geojson-cells, ome-zarr-0.4, ome-tiff (both of ome-tiff-probability and ome-tiff-overlay), csv, "
        "dicom-seg, dicom-parametric-map, png",
    )
    export.add_argument(
        "--out", type=Path, metavar="DIR", help="where the files go (default: export/ in each slide's result folder)"
    )
    _add_options(export)
    export.set_defaults(command=_export)


def _add_options(export: argparse.ArgumentParser) -> None:
    export.add_argument(
        "--threshold", type=float, metavar="P", help="probability from which a cell is in a region (default: the run's)"
    )
    export.add_argument(
        "--smooth-um", type=float, metavar="X", help="smoothing of outlines in µm, 0 for none (default: the run's)"
    )
    export.add_argument(
        "--size", type=int, default=1700, metavar="PX", help="png: longer side of the slide (default: 1700)"
    )
    export.add_argument(
        "--overlay-um",
        type=float,
        metavar="X",
        help="ome-tiff-overlay: side of a pixel in µm (default: 2, or the slide's own where it is larger)",
    )
    export.add_argument(
        "--segmentation",
        choices=("binary", "fractional"),
        default="binary",
        help="dicom-seg: the regions, or the probability in 255 steps (default: binary)",
    )


def _export(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wsi_pipeline.export import Exported, ExportOptions, export

    options = ExportOptions(
        threshold=args.threshold,
        smooth_um=args.smooth_um,
        size_px=args.size,
        overlay_um=args.overlay_um,
        segmentation=args.segmentation,
    )
    with tqdm(desc="exports", unit="file", disable=None) as bar:

        def plan(count: int) -> None:
            bar.reset(count)

        def done(exported: Exported) -> None:
            bar.update()
            for file in exported.files:
                tqdm.write(str(file), file=sys.stdout)

        formats = [name.strip() for names in args.to for name in names.split(",") if name.strip()]
        record = export(args.results, to=formats, out=args.out, options=options, on_plan=plan, on_done=done)
    print(f"{len(record.files)} files written, {len(record.failed)} exports failed.")
    for failed in record.failed:
        error = failed.error or {}
        line = f"FAILED {failed.slide} to {failed.format}: {error['where']}: {error['why']}. {error['hint']}"
        print(line.rstrip(), file=sys.stderr)
        if args.debug:
            print(error.get("traceback", ""), file=sys.stderr)
    return SOME_FAILED if record.failed else OK
