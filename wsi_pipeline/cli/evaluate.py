"""`wsi-pipeline evaluate`: how good a model is on labelled patches."""

import argparse
from pathlib import Path
from typing import Any, get_args

from wsi_pipeline.cli.common import OK
from wsi_pipeline.config import options
from wsi_pipeline.errors import ConfigError, OutputError

_EPILOG = """\
The figures are printed; files are written only where --json and --report say so. Intervals are 95 %, by bootstrap over
cases. Calibration and threshold are the model's own: nothing is chosen on the data that are evaluated (with
--out-of-fold the threshold was).

examples:
  wsi-pipeline evaluate --model idc-resnet18 --data IDC_regular_ps50_idx5.zip --unseen --json figures.json
  wsi-pipeline evaluate --model my-bundle --data patches/ --whole-slide --report report.html
  wsi-pipeline evaluate --model mine/ --data patches/ --out-of-fold mine.training/out_of_fold.npz --report cv.html

exit status: 0 all well (patches that cannot be read are listed), 1 the network or the output failed, 2 wrong usage or
data that do not fit the model"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    evaluate = commands.add_parser(
        "evaluate",
        parents=[common],
        help="how good a model is on labelled patches",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument("--model", required=True, metavar="BUNDLE", help="a shipped bundle by name, or a folder")
    evaluate.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="labelled patches: a folder, zip or HDF5 file"
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    evaluate.add_argument("--report", type=Path, metavar="FILE.html", help="write a report to read, one HTML page")
    _add_data(evaluate.add_argument_group("data"))
    _add_model(evaluate.add_argument_group("model"))
    evaluate.set_defaults(command=_evaluate)


def _add_data(group: Any) -> None:
    group.add_argument(
        "--layout", choices=("auto", "idc", "breakhis", "pcam"), default="auto", help="of the files (default: auto)"
    )
    group.add_argument(
        "--magnification", action="append", default=[], metavar="40X", help="BreakHis: these only; may be repeated"
    )
    group.add_argument("--mpp", type=float, metavar="X", help="resolution of the patches in µm/px, where it is odd")
    group.add_argument("--cases", type=Path, metavar="FILE", help="text file of the cases to take, one a line")
    group.add_argument(
        "--unseen", action="store_true", help="leave out cases that trained the model or chose its threshold"
    )
    group.add_argument(
        "--out-of-fold",
        type=Path,
        metavar="FILE",
        help="judge the cross-validation that made the model: out_of_fold.npz of its training with --folds; each patch "
        "is scored by the network that did not see its case, and no network runs",
    )
    group.add_argument(
        "--whole-slide", action="store_true", help="also put cases together again and compare maps with labels"
    )


def _add_model(group: Any) -> None:
    group.add_argument("--threshold", type=float, metavar="X", help="default: the model's own")
    group.add_argument(
        "--context",
        action=argparse.BooleanOptionalAction,
        help="refine probabilities by the neighbourhood (default: where the model has that stage)",
    )
    group.add_argument("--tta", action="store_true", help="mean over the 8 symmetries of the square: 8 times the work")
    group.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto")
    group.add_argument("--batch-size", type=int, metavar="N", help="patches at once (default: by device and size)")
    for name in ("engine", "precision"):
        setting = options()[name][1]
        choices = get_args(setting.annotation)
        group.add_argument(f"--{name}", choices=choices, default="auto", help=f"default: {setting.description}")
    group.add_argument("--draws", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")


def _evaluate(args: argparse.Namespace) -> int:
    for name, suffixes in (("json", (".json",)), ("report", (".html", ".htm"))):
        file: Path | None = getattr(args, name)
        if file is not None and file.suffix.lower() not in suffixes:
            raise ConfigError(
                f"--{name}", f"{file} does not end in {suffixes[0]}", f"Such as --{name} out{suffixes[0]}."
            )
    for name, least in (("batch_size", 1), ("draws", 0)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')}", f"{getattr(args, name)} is less than {least}")
    cases = _read_cases(args.cases) if args.cases else None
    from wsi_pipeline.datasets import open_dataset
    from wsi_pipeline.datasets.check import describe
    from wsi_pipeline.evaluation import Options, evaluate
    from wsi_pipeline.evaluation.text import as_text
    from wsi_pipeline.files import make_folder, write_json
    from wsi_pipeline.models.bundle import load_bundle

    bundle = load_bundle(args.model)
    dataset = open_dataset(args.data, layout=args.layout, magnifications=args.magnification, mpp=args.mpp, strict=False)
    print(describe(dataset), end="\n\n", flush=True)
    chosen = Options(
        threshold=args.threshold,
        context=args.context,
        tta=args.tta,
        whole_slide=args.whole_slide,
        cases=cases,
        unseen=args.unseen,
        out_of_fold=args.out_of_fold,
        thumbs=args.whole_slide and args.report is not None,
        device=args.device,
        batch_size=args.batch_size,
        engine=args.engine,
        precision=args.precision,
        draws=args.draws,
    )
    for path in filter(None, (args.json, args.report)):  # now, not after the work
        make_folder(path.parent)
        if path.is_dir():
            raise OutputError(path, "is a folder", "Give the file to write.")
    found = evaluate(bundle, dataset, chosen)
    print(as_text(found))
    if args.json:
        write_json(args.json, found.as_json())
    if args.report:
        from wsi_pipeline.evaluation.report import write_report

        write_report(args.report, found)
    for path in filter(None, (args.json, args.report)):
        print(f"written: {path}")
    return OK


def _read_cases(path: Path) -> frozenset[str]:
    hint = "Give a text file with a case a line."
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror or error})", hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "is no text", hint) from error
    cases = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not cases:
        raise ConfigError(path, "names no case", hint)
    return cases
