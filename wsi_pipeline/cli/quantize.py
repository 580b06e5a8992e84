"""`wsi-pipeline quantize`: an int8 network beside a bundle's own, for CPUs."""

import argparse
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK, natural

_EPILOG = """\
The activations' ranges are taken from labelled patches of the cases that trained the model; AUROC, balanced accuracy,
calibration error and flipped labels of int8 against fp32 are measured on other cases and written into the new
bundle's card. The fp32 weights stay as they are: int8 is used only where it is asked for.

example:
  wsi-pipeline quantize --model my-bundle --data IDC_regular_ps50_idx5.zip --out my-bundle-int8
  wsi-pipeline run slides/ --out results/ --model my-bundle-int8 --engine openvino-int8

Needs: pip install "wsi-pipeline[openvino]". For research use only, not for diagnosis."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    quantize = commands.add_parser(
        "quantize",
        parents=[common],
        help="make a model several times faster on a CPU, and measure what that costs",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    quantize.add_argument("--model", required=True, metavar="BUNDLE", help="a shipped bundle by name, or a folder")
    quantize.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="labelled patches: a folder, zip or HDF5 file"
    )
    quantize.add_argument("--out", type=Path, required=True, metavar="BUNDLE2", help="folder of the new bundle")
    quantize.add_argument(
        "--samples", type=natural, default=300, metavar="N", help="patches that calibrate (default: 300)"
    )
    quantize.add_argument(
        "--layout", choices=("auto", "idc", "breakhis", "pcam"), default="auto", help="of the files (default: auto)"
    )
    quantize.add_argument(
        "--magnification", action="append", default=[], metavar="40X", help="BreakHis: these only; may be repeated"
    )
    quantize.add_argument("--mpp", type=float, metavar="X", help="resolution of the patches in µm/px, where it is odd")
    quantize.add_argument(
        "--draws", type=natural, default=1000, metavar="N", help="of the bootstrap over cases (default: 1000)"
    )
    quantize.add_argument("--seed", type=natural, default=0, metavar="N", help="of all draws (default: 0)")
    quantize.set_defaults(command=_quantize)


def _quantize(args: argparse.Namespace) -> int:
    from wsi_pipeline.datasets import open_dataset
    from wsi_pipeline.datasets.check import describe
    from wsi_pipeline.models.bundle import load_bundle
    from wsi_pipeline.quantization import quantize
    from wsi_pipeline.quantization.quantize import as_text

    bundle = load_bundle(args.model)
    dataset = open_dataset(args.data, layout=args.layout, magnifications=args.magnification, mpp=args.mpp, strict=False)
    print(describe(dataset), end="\n\n", flush=True)
    found = quantize(bundle, dataset, args.out, samples=args.samples, draws=args.draws, seed=args.seed)
    print(f"{as_text(found)}\nwritten: {args.out}")
    return OK
