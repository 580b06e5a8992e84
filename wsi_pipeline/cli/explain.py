"""`wsi-pipeline explain`: where the model finds its evidence."""

import argparse
from pathlib import Path
from typing import Any

from wsi_pipeline.cli.common import OK, add_settings, natural, read_settings
from wsi_pipeline.config import Settings, options
from wsi_pipeline.errors import ConfigError

_EPILOG = """\
Grad-CAM shows which part of what the network sees speaks for a class, as one page: for patches a contact sheet, for a
slide one region of it with the probability of its cells. The maps are coarse: docs/explanation.md says how to read
them.

examples:
  wsi-pipeline explain --data IDC_regular_ps50_idx5.zip --pick wrong --out wrong.png
  wsi-pipeline explain --images a.png b.png --model my-bundle --out two.png
  wsi-pipeline explain --slide a.svs --out overlay.png                    the most probable region
  wsi-pipeline explain --slide a.svs --region 12000,8000,4000,4000 --out overlay.png
  wsi-pipeline explain --slide a.svs --region 3mm,2mm,800um,800um --out overlay.png

exit status: 0 all well, 1 the network or the output failed, 2 wrong usage or data that do not fit the model"""

_SUFFIXES = (".png", ".jpg", ".jpeg")
_OF_SLIDES = ("slides", "tissue", "grid")
"""Sections of the settings."""
_PATCH_OPTIONS, _SLIDE_OPTIONS = ("count", "pick", "seed", "layout", "magnification", "unseen"), ("region",)


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    explain = commands.add_parser(
        "explain",
        parents=[common],
        help="where the model finds its evidence (Grad-CAM), on patches or on a slide",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = explain.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="labelled patches: a folder, zip or HDF5 file")
    what.add_argument("--images", type=Path, nargs="+", metavar="FILE", help="image files of the model's resolution")
    what.add_argument("--slide", metavar="SLIDE", help="a slide, as for run")
    explain.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the page (.png or .jpg)")
    explain.add_argument("--class", dest="class_name", metavar="NAME", help="what to show evidence for (default: IDC, "
                         "or what the model's card calls positive)")  # fmt: skip
    _add_patches(explain.add_argument_group("with --data"))
    slide = explain.add_argument_group("with --slide")
    slide.add_argument(
        "--region",
        metavar="X,Y,WIDTH,HEIGHT",
        help="in level-0 px, or with um or mm behind the numbers; one that begins with a minus as --region=-1mm,… "
        "(default: the most probable region)",
    )
    model = explain.add_argument_group("model")
    model.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), dest="setting_device", help="default: auto")
    model.add_argument(
        "--batch-size",
        type=int,
        dest="setting_batch_size",
        metavar="N",
        help="fields of view at once (default: by size)",
    )
    explain.add_argument("--config", metavar="FILE", help="YAML file of settings, or a shipped one")
    add_settings(explain, sections={None, *_OF_SLIDES})
    explain.set_defaults(command=_explain)


def _add_patches(group: Any) -> None:
    group.add_argument("--count", type=int, metavar="N", help="how many patches (default: 24)")
    group.add_argument(
        "--pick",
        choices=("mixed", "right", "wrong", "uncertain"),
        help="any, those called rightly or wrongly (by the patch alone), or those nearest to the threshold "
        "(default: mixed)",
    )
    group.add_argument("--seed", type=natural, metavar="N", help="of the choice (default: 0)")
    group.add_argument(
        "--unseen",
        action="store_true",
        default=None,
        help="leave out cases that trained the model or chose its threshold",
    )
    group.add_argument("--layout", choices=("auto", "idc", "breakhis", "pcam"), help="of the files (default: auto)")
    group.add_argument("--magnification", action="append", metavar="40X", help="BreakHis: these only; may be repeated")


def _explain(args: argparse.Namespace) -> int:
    _check(args)
    settings = read_settings(args)
    from wsi_pipeline.files import make_folder

    make_folder(args.out.parent)
    (_explain_patches if args.slide is None else _explain_slide)(args, settings)
    print(f"written: {args.out}")
    return OK


def _check(args: argparse.Namespace) -> None:
    """Refuse options that would have no effect, and files that cannot be written."""
    if args.out.suffix.lower() not in _SUFFIXES:
        raise ConfigError("--out", f"{args.out} is no picture", "Give a name that ends in .png or .jpg.")
    if args.out.exists() and any(_is_part(args.out, path) for path in _read(args) if path.exists()):
        raise ConfigError("--out", f"{args.out} is among what is to be explained", "Give another file.")
    idle = {"--slide": _PATCH_OPTIONS, "--images": (*_PATCH_OPTIONS, *_SLIDE_OPTIONS), "--data": _SLIDE_OPTIONS}
    mode = next(name for name in idle if getattr(args, name.removeprefix("--")) is not None)
    for option in idle[mode]:
        if getattr(args, option) is not None:
            other = "--slide" if option in _SLIDE_OPTIONS else "--data"
            raise ConfigError(f"--{option}", f"has no meaning with {mode}", f"It belongs to {other}.")
    if mode != "--slide":
        own = {"mpp"} if mode == "--data" else set()
        for name, (section, _) in options().items():
            if section in _OF_SLIDES and name not in own and getattr(args, f"setting_{name}") is not None:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(option, f"has no meaning with {mode}", "It belongs to --slide.")


def _is_part(file: Path, of: Path) -> bool:
    """Whether a file is what a path names, or lies in the folder that it names."""
    return file.samefile(of) or (of.is_dir() and file.resolve().is_relative_to(of.resolve()))


def _read(args: argparse.Namespace) -> list[Path]:
    """The files and folders that are explained."""
    return [*(args.images or ()), *map(Path, filter(None, (args.data, args.slide)))]


def _explain_patches(args: argparse.Namespace, settings: Settings) -> None:
    from wsi_pipeline.explanation.contact import draw_contact_sheet
    from wsi_pipeline.explanation.images import explain_images
    from wsi_pipeline.explanation.patches import explain_patches
    from wsi_pipeline.inference import choose_device
    from wsi_pipeline.models.bundle import load_bundle

    bundle, device, batch = load_bundle(settings.model), choose_device(settings.inference.device), _batch(settings)
    if args.images:
        found = explain_images(bundle, args.images, device=device, class_name=args.class_name, batch=batch)
    else:
        from wsi_pipeline.datasets import open_dataset
        from wsi_pipeline.evaluation import Options
        from wsi_pipeline.evaluation.evaluate import select
        from wsi_pipeline.models.seen import what_was_seen

        dataset = open_dataset(
            args.data,
            layout=args.layout or "auto",
            magnifications=args.magnification or (),
            mpp=settings.slides.mpp,
            strict=False,
        )
        if args.unseen:
            dataset = dataset.subset(select(dataset, what_was_seen(bundle), Options(unseen=True)).tolist())
        found = explain_patches(
            bundle,
            dataset,
            device=device,
            class_name=args.class_name,
            count=24 if args.count is None else args.count,
            pick=args.pick or "mixed",
            seed=args.seed or 0,
            batch=batch,
        )
    draw_contact_sheet(args.out, found)
    print("\n".join(found.notes))


def _explain_slide(args: argparse.Namespace, settings: Settings) -> None:
    from wsi_pipeline.explanation.overlay import draw_region
    from wsi_pipeline.explanation.region import as_text
    from wsi_pipeline.explanation.slide import explain_region
    from wsi_pipeline.grid import CellSpec
    from wsi_pipeline.inference import choose_device
    from wsi_pipeline.jobs import plan_jobs
    from wsi_pipeline.models.bundle import load_bundle
    from wsi_pipeline.slides import find_slides

    bundle, device = load_bundle(settings.model), choose_device(settings.inference.device)
    CellSpec.parse(settings.grid.cell)
    found = find_slides([args.slide])
    if len(found) != 1:
        raise ConfigError("--slide", f"{args.slide} holds {len(found)} slides", f"Name one, such as {found[0]}.")
    (job,) = plan_jobs(found, Path(), settings, bundle.path, bundle.digest, overwrite=False)
    explained = explain_region(
        job.source,
        bundle,
        settings,
        device=device,
        region=args.region,
        class_name=args.class_name,
        batch=_batch(settings),
    )
    draw_region(args.out, explained)
    print(f"region: {as_text(explained.region)}, {explained.how}; mean probability of {explained.class_name} "
          f"{explained.cells.mean():.2f}")  # fmt: skip


def _batch(settings: Settings) -> int | None:
    return settings.inference.batch_size
