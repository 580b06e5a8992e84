"""`wsi-pipeline train`: labelled patches in, a model bundle out."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from wsi_pipeline.cli.common import OK, fraction, natural
from wsi_pipeline.errors import ConfigError

_EPILOG = """\
RECIPE is one of idc-best, idc-efficientnet, idc-finetune, idc-resnet18, idc-residual-7ch, idc-cnn, breakhis-resnet50,
pcam-resnet50, or a YAML file (docs/training.md lists every setting).

examples:
  wsi-pipeline train idc-best --data IDC_regular_ps50_idx5.zip --out my-idc/ --folds 3    as the shipped model
  wsi-pipeline train idc-cnn --data patches/ --out trial/ --limit 0.01         a trial of a minute
  wsi-pipeline train breakhis-resnet50 --data BreaKHis_v1/ --out b40/ --magnification 40X
  wsi-pipeline train idc-finetune --data own-cases/ --out own/ --folds 5       on from the shipped model
  wsi-pipeline train idc-cnn --data patches/ --out cnn/ --set optimisation.epochs=5 --set optimisation.lr=0.001

The bundle serves `wsi-pipeline run --model`, `evaluate` and `explain`. Checkpoints and logs (CSV, TensorBoard) lie
beside it in BUNDLE.training/: after an interruption, even a kill, the same command goes on with the epoch at hand.

exit status: 0 all well, 1 the training or its output failed (a bundle that is there already among it), 2 wrong usage or
data that cannot be used

For research use only, not for diagnosis."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    train = commands.add_parser(
        "train",
        parents=[common],
        help="train a model on labelled patches",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("recipe", metavar="RECIPE", help="a shipped recipe by name, or a YAML file")
    train.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="labelled patches: folder, zip, folder of zips, HDF5 file",
    )
    train.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the new bundle")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="another value for a setting of the recipe, such as optimisation.epochs=5; may be repeated",
    )
    train.add_argument(
        "--limit",
        type=fraction,
        default=1.0,
        metavar="X",
        help="for a trial: use this fraction of the patches, 0 to 1, at least one of each class in each part of the "
        "split (with --folds: in each case) (default: 1)",
    )
    train.add_argument(
        "--seed", type=natural, metavar="N", help="of weights, order and augmentation (not of the split)"
    )
    train.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: %(default)s)"
    )
    train.add_argument(
        "--split",
        metavar="KIND",
        help="case (default of most recipes), published (split_published.csv in DIR, or a CSV file with the columns "
        "case,split), or leaky: patch by patch, only to show what that does to scores",
    )
    train.add_argument(
        "--magnification",
        action="append",
        default=[],
        metavar="40X",
        help="BreakHis: images of this one only; may be repeated",
    )
    train.add_argument(
        "--folds",
        type=natural,
        metavar="K",
        help="cross-validate by case in K folds, then train on all cases: the bundle carries the figures of all K, "
        "and a second stage that was fitted on them",
    )
    train.add_argument("--overwrite", action="store_true", help="replace the bundle at --out, when the new one is done")
    train.add_argument("--restart", action="store_true", help="begin anew where a training was interrupted")
    train.set_defaults(command=_train)


def _train(args: argparse.Namespace) -> int:
    from wsi_pipeline.training.recipe import load_recipe, parse_overrides

    if args.folds is not None and args.folds < 2:
        raise ConfigError("train", f"--folds {args.folds} is no cross-validation", "Give 2 or more, or leave it out.")
    if args.folds and args.split:
        raise ConfigError("train", "--folds and --split exclude each other", "Give one of them.")
    if not args.data.exists():
        raise ConfigError("--data", f"{args.data} does not exist", "Check the path.")
    overrides = parse_overrides(args.overrides)
    published = _split_file(args.split)
    if args.split:
        overrides["split.kind"] = "published" if published else args.split
    if args.seed is not None:
        overrides["seed"] = args.seed
    if args.magnification:
        overrides["data.magnifications"] = args.magnification
    recipe = load_recipe(args.recipe, overrides)
    from wsi_pipeline.training.cross_validate import cross_validate
    from wsi_pipeline.training.train import train

    common = {key: getattr(args, key) for key in ("limit", "device", "overwrite", "restart")}
    common["command"] = _command(args)
    with _told():
        if args.folds:
            bundle = cross_validate(recipe, args.data, args.out, count=args.folds, **common)
        else:
            bundle = train(recipe, args.data, args.out, published=published, **common)
    print(f"Bundle: {bundle.path}")
    return OK


def _split_file(given: str | None) -> Path | None:
    """The file of cases that --split names; None where it names a kind of split."""
    from wsi_pipeline.datasets.splits import SplitKind

    kinds = get_args(SplitKind)
    if given is None or given in kinds:
        return None
    if not Path(given).is_file():
        hint = f"Give {', '.join(kinds)}, or a CSV file with the columns case,split."
        raise ConfigError("--split", f"{given} is neither a kind of split nor a file", hint)
    return Path(given)


@contextmanager
def _told() -> Iterator[None]:
    """What a training says goes to stdout; the helper processes of further GPUs are silent."""
    import logging

    from wsi_pipeline.training.interrupted import is_helper

    if is_helper():
        yield
        return
    log = logging.getLogger("wsi_pipeline.training")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def _command(args: argparse.Namespace) -> str:
    """The command for the card, without this machine's folders."""
    parts = ["wsi-pipeline", "train", Path(args.recipe).name, "--data", "DATA", "--out", args.out.name]
    parts += [text for value in args.overrides for text in ("--set", _without_folder(value))]
    parts += ["--limit", f"{args.limit:g}"] if args.limit != 1 else []
    parts += ["--seed", str(args.seed)] if args.seed is not None else []
    parts += ["--split", Path(args.split).name] if args.split else []
    parts += ["--folds", str(args.folds)] if args.folds else []
    parts += [text for value in args.magnification for text in ("--magnification", value)]
    return shlex.join(parts)


def _without_folder(override: str) -> str:
    """An override that names a bundle's folder, with its name alone."""
    from wsi_pipeline.training.recipe import parse_overrides

    ((key, value),) = parse_overrides([override]).items()
    named = _named(key.rpartition(".")[2], value)
    if named == value:
        return override
    return f"{key}={named if isinstance(named, str) else json.dumps(named)}"


def _named(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _named(inner, one) for inner, one in value.items()}
    return Path(value).name if key == "start" and isinstance(value, str) else value
