"""`wsi-pipeline extract`: slides and QuPath annotations in, a data set of labelled patches out."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from wsi_pipeline.cli.common import OK, SOME_FAILED, add_settings, natural
from wsi_pipeline.config import RESEARCH_USE, Reader, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsi_pipeline.extraction import CaseResult, PatchRules, SlideSpec

_EPILOG = """\
In QuPath: annotate, File > Export objects as GeoJSON, one file a slide, named like the slide (a.svs: a.geojson).
DIR gets <case>/<class>/<case>_idx5_x<X>_y<Y>_class<C>.png, a picture of the labels of each case to check by eye
(<case>/<case>_labels.jpg), and dataset.json. Then: wsi-pipeline train RECIPE --data DIR --out BUNDLE.

A patch is class 1 where at least --min-coverage of it is annotated as --positive. All other tissue is class 0;
with --negative, only tissue annotated so; inside --region annotations, where a slide has them, all other tissue again.

exit status: 0 all well, 1 some slides failed (listed at the end), 2 wrong usage"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    extract = commands.add_parser(
        "extract",
        parents=[common],
        help="slides and QuPath annotations in, a data set of labelled patches out",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    extract.add_argument("inputs", nargs="+", metavar="SLIDE", help="as for run")
    extract.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of GeoJSON files, or the file of one slide",
    )
    extract.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    extract.add_argument(
        "--overwrite", action="store_true", help="replace cases cut from other annotations or settings"
    )
    _add_patches(extract.add_argument_group("patches"))
    _add_classes(extract.add_argument_group("annotations", "names of QuPath classes, parted by commas"))
    _add_slides(extract.add_argument_group("slides"))
    add_settings(extract, sections={"tissue"})
    extract.set_defaults(command=_extract)


def _add_patches(group: Any) -> None:
    add = group.add_argument
    add("--size-px", type=natural, default=50, metavar="N", help="side of a patch, px (default: %(default)s)")
    add("--mpp", type=float, default=0.25, metavar="X", help="resolution of a patch, µm/px (default: %(default)s)")
    add(
        "--min-tissue", type=float, default=0.5, metavar="X", help="least part of a patch that is tissue (default: 0.5)"
    )
    add("--allow-upsampling", action="store_true", help="cut from slides coarser than --mpp (invents detail)")
    add("--max-per-class", type=natural, metavar="N", help="at most N patches of each class from a slide, at random")
    add("--seed", type=natural, default=0, metavar="N", help="for --max-per-class (default: %(default)s)")


def _add_classes(group: Any) -> None:
    add = group.add_argument
    add("--positive", action="append", metavar="CLASS", help="class 1, called by the first of them (default: IDC)")
    add("--negative", action="append", metavar="CLASS", help="class 0 (default: all tissue that is not annotated)")
    add("--region", action="append", metavar="CLASS", help="only what lies inside is used (default: Region*)")
    add("--exclude", action="append", metavar="CLASS", help="what lies inside is left out (default: Ignore*)")
    add("--ignore", action="append", metavar="CLASS", help="count as if not there; Unclassified: those without a class")
    add(
        "--rest", choices=("auto", "negative", "skip"), default="auto",
        help="tissue that is not annotated: class 0, or left out (default: negative, unless --negative is given and "
        "the slide has no region)",
    )  # fmt: skip
    add(
        "--min-coverage", type=float, default=0.5, metavar="X",
        help="a patch has a class where at least this part of it is annotated so (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max-mixed", type=float, default=0.1, metavar="X",
        help="a patch of class 0 may be annotated class 1 up to this part; between the two it is left out as a border "
        "(default: %(default)s; the value of --min-coverage leaves none out)",
    )  # fmt: skip


def _add_slides(group: Any) -> None:
    add = group.add_argument
    add("--reader", choices=get_args(Reader), default="auto", help="reader of slides (default: %(default)s)")
    add("--slide-mpp", type=float, metavar="X", help="resolution in µm/px of level 0, overrides the file's")
    add("--mpp-csv", type=Path, metavar="FILE", help="CSV file with the columns slide,mpp: resolution slide by slide")
    add(
        "--patients",
        type=Path,
        metavar="FILE",
        help="CSV file with the columns slide,patient: a split keeps a patient whole",
    )
    add("--workers", type=natural, metavar="N", help="threads that read and write; default: the cores, at most 8")


def _extract(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wsi_pipeline.extraction import extract
    from wsi_pipeline.slides import find_slides

    rules, slides = _rules(args), _slides(args, find_slides(args.inputs))
    bars: dict[str, Any] = {}

    def show(case: str, done: int, total: int) -> None:
        if case not in bars:
            bars[case] = tqdm(total=total, desc=case[:32], unit="patch", unit_scale=True, disable=None, leave=False)
        bars[case].update(done - bars[case].n)

    def end(result: "CaseResult") -> None:
        if result.case in bars:
            bars.pop(result.case).close()

    results = extract(
        slides, args.annotations, args.out, rules, overwrite=args.overwrite, workers=args.workers,
        on_slide=end, on_patches=show,
    )  # fmt: skip
    print(_table(results, rules))
    if any(result.record is not None for result in results):
        print(f"Look at the labels before training: {args.out}/*/*_labels.jpg. {RESEARCH_USE}.")
    return _report_failures(results, debug=args.debug)


def _rules(args: argparse.Namespace) -> "PatchRules":
    from wsi_pipeline.extraction import PatchRules

    given = {name: _names(value) for name in _CLASSES if (value := getattr(args, name)) is not None}
    tissue = {name.removeprefix("setting_"): value for name, value in vars(args).items() if name.startswith("setting_")}
    return PatchRules(
        size_px=args.size_px,
        mpp=args.mpp,
        rest=args.rest,
        min_coverage=args.min_coverage,
        max_mixed=args.max_mixed,
        min_tissue=args.min_tissue,
        allow_upsampling=args.allow_upsampling,
        max_per_class=args.max_per_class,
        seed=args.seed,
        tissue=load_settings(None, tissue).tissue,
        **given,
    )


_CLASSES = ("positive", "negative", "region", "exclude", "ignore")


def _names(values: "Sequence[str]") -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _slides(args: argparse.Namespace, paths: "Sequence[str]") -> "list[SlideSpec]":
    from wsi_pipeline.extraction import SlideSpec
    from wsi_pipeline.slides.tables import SlideTable, read_mpp_csv, read_patients_csv

    mpp_of = read_mpp_csv(args.mpp_csv) if args.mpp_csv is not None else SlideTable()
    patients = read_patients_csv(args.patients) if args.patients is not None else SlideTable()
    mpp_of.check(paths)
    patients.check(paths, every=True)
    slides = []
    for path in paths:
        known = mpp_of.find(path)
        mpp = args.slide_mpp if known is None else known
        slides.append(SlideSpec(path=path, reader=args.reader, mpp=mpp, patient=patients.find(path)))
    return slides


def _table(results: "Sequence[CaseResult]", rules: "PatchRules") -> str:
    """A line a case: patches of both classes, what was left out, and what class 0 rests on."""
    lines = [["case", f"1 {rules.class_names[1]}", f"0 {rules.class_names[0]}", "left out", "", "class 0 is"]]
    totals = [0, 0, 0]
    for result in results:
        if result.record is None:
            lines.append([result.case, "", "", "", "failed", ""])
            continue
        counts = result.record["counts"]
        left_out = sum(counts.values()) - counts["positive"] - counts["negative"]
        numbers = counts["positive"], counts["negative"], left_out
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        status = "" if result.status == "done" else "done before"
        lines.append([result.case, *(f"{number:,}" for number in numbers), status, result.record["class_0_is"]])
    lines.append(["all", *(f"{total:,}" for total in totals), "", ""])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<>>><<"
    cells = [[f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)] for line in lines]
    table = ["  ".join(line).rstrip() for line in cells]
    notes = [f"note: {result.case}: {note}" for result in results for note in (result.record or {}).get("notes", ())]
    return "\n".join([*table, *notes])


def _report_failures(results: "Sequence[CaseResult]", *, debug: bool) -> int:
    failed = [result for result in results if result.error is not None]
    for result in failed:
        print(f"FAILED {result.case}: {result.error}", file=sys.stderr)
        if debug:
            import traceback

            traceback.print_exception(result.error)
    return SOME_FAILED if failed else OK
