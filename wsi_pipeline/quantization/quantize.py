"""A bundle and labelled patches in; the same bundle with a measured int8 network beside its weights out."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.datasets import load_images
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import BundleError, ConfigError, OutputError
from wsi_pipeline.evaluation.evaluate import predict
from wsi_pipeline.evaluation.match import check_geometry
from wsi_pipeline.evaluation.result import Options, Patches
from wsi_pipeline.files import SPACE_HINT, make_folder
from wsi_pipeline.geometry import Size
from wsi_pipeline.models.bundle import CARD_FILE, ModelBundle, load_bundle, write_card
from wsi_pipeline.models.seen import what_was_seen
from wsi_pipeline.quantization.cases import Cases, choose_cases
from wsi_pipeline.quantization.compare import compare
from wsi_pipeline.quantization.int8 import packages, require_packages, save_int8, to_int8

MOST_LOST = 0.002
"""AUROC that an int8 network may lose before its user is warned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """What came of it."""

    bundle: ModelBundle
    warnings: tuple[str, ...]

    @property
    def measured(self) -> dict[str, Any]:
        """As it stands on the card."""
        return self.bundle.card.quantization.measured if self.bundle.card.quantization else {}


def quantize(
    bundle: ModelBundle, dataset: PatchDataset, out: Path, *, samples: int = 300, draws: int = 1000, seed: int = 0
) -> Quantized:
    """Quantise a bundle's network to int8, measure what that costs, and write both as a new bundle.

    Args:
        bundle: An ordinary one or an ensemble.
        dataset: Labelled patches of its field of view.
        out: Folder of the new bundle.
        samples: Patches that calibrate the ranges of the activations.
        draws: Of the bootstrap over cases.
        seed: Of all draws.

    Raises:
        ConfigError: where OpenVINO or NNCF is not installed, or no sample is asked for.
        BundleError: where the bundle has no place for an int8 network, or one is in the way.
        ResolutionError: where the patches are not of the bundle's size or resolution.
        DatasetError: where classes do not match, cases are too few, a patch that calibrates cannot be read, or none of
            those measured on can.
        InferenceError: where the network cannot be quantised.
        OutputError: where the new bundle cannot be written.
    """
    require_packages()
    _check(bundle, out, samples)
    check_geometry(bundle.card, dataset)
    seen = what_was_seen(bundle)
    cases = choose_cases(dataset, seen, seed=seed)
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(cases.calibrate, min(samples, len(cases.calibrate)), replace=False))
    side = bundle.card.patch_size_px
    model = to_int8(bundle, load_images(dataset, drawn, size=Size(side, side)))
    _copy(bundle, out)
    found = save_int8(model, out)
    made = replace(bundle, path=out, card=bundle.card.model_copy(update={"quantization": found}))
    part = dataset.subset(cases.measure.tolist())

    def answers(engine: Literal["openvino", "openvino-int8"]) -> Patches:
        return predict(made, part, seen, Options(engine=engine, precision="auto", device="cpu"))

    measured = _measure(bundle, answers("openvino"), answers("openvino-int8"), cases, draws=draws, seed=seed)
    calibration = {
        "method": "post-training: weights by channel, activations by layer (least to greatest), fast bias correction",
        "data": dataset.layout,
        "samples": len(drawn),
        "cases": len(np.unique(dataset.groups[drawn])),
        "seed": seed,
        "software": packages(),
    }
    found = found.model_copy(update={"calibration": calibration, "measured": measured})
    write_card(out, bundle.card.model_copy(update={"quantization": found}))
    return Quantized(bundle=load_bundle(out), warnings=tuple(_warnings(measured)))


def _check(bundle: ModelBundle, out: Path, samples: int) -> None:
    if samples < 1:
        raise ConfigError("samples", f"{samples} patches calibrate nothing", "Give 1 or more; 300 is usual.")
    if not (bundle.path / CARD_FILE).is_file():
        raise BundleError(bundle.path, "is in WSInfer's form, which has no place for an int8 network", "")
    if (out / CARD_FILE).exists():
        raise BundleError(out, "holds a bundle already", "Choose another folder with --out.")


def _copy(bundle: ModelBundle, out: Path) -> None:
    """All of the bundle but its card, which comes last, and an int8 network it had before."""
    old = {CARD_FILE} | ({bundle.int8.name, bundle.int8.with_suffix(".bin").name} if bundle.int8 else set())
    make_folder(out)
    try:
        for path in sorted(bundle.path.iterdir()):
            if path.is_file() and path.name not in old:
                shutil.copyfile(path, out / path.name)
        for member in bundle.card.members:
            shutil.copytree(bundle.path / member, out / member, dirs_exist_ok=True)
    except OSError as error:
        raise OutputError(out, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error


def _measure(
    bundle: ModelBundle, fp32: Patches, int8: Patches, cases: Cases, *, draws: int, seed: int
) -> dict[str, Any]:
    """What goes onto the card: of the probabilities as they ship, and as the network gives them."""
    threshold = bundle.card.threshold.value

    def of(before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, Any]:
        return compare(fp32.labels, before, after, fp32.groups, threshold, draws=draws, seed=seed)

    found: dict[str, Any] = {
        "cases": len(np.unique(fp32.groups)),
        "patches": len(fp32.labels),
        "unreadable": len(fp32.unreadable),
        "threshold": threshold,
        "note": cases.note,
        **of(fp32.shipped, int8.shipped),
    }
    if fp32.refined:
        found["without_context"] = of(fp32.calibrated, int8.calibrated)
    return found


def _warnings(measured: dict[str, Any]) -> Iterator[str]:
    if measured["unreadable"]:
        yield f"{measured['unreadable']:,} patches could not be read and were left out."
    for what, found in (("", measured), (" without context", measured.get("without_context", measured))):
        lost = found["difference"]["auroc"]
        if lost is not None and -lost > MOST_LOST:
            yield f"int8 loses {-lost:.4f} of AUROC{what}, more than {MOST_LOST:g}: look before you use it."
            return


def as_text(found: Quantized) -> str:
    """The loss as a table for the terminal."""
    measured, card = found.measured, found.bundle.card
    names = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "ece": "ECE"}
    lines = [f"{card.name}: int8 against fp32 on {measured['patches']:,} patches of {measured['cases']:,} cases"]
    for title, part in (("", measured), ("without context", measured.get("without_context"))):
        if part is None:
            continue
        lines += ["", f"{title:20}{'fp32':>8}{'int8':>8}{'difference':>12}   95 % interval"]
        for key, name in names.items():
            if part["difference"][key] is not None:
                values = f"{part['fp32'][key]:8.4f}{part['int8'][key]:8.4f}{part['difference'][key]:+12.4f}"
                lines.append(f"{name:20}{values}   {_interval(part['interval_95'][key], '+.4f')}")
        flips = _interval(part["interval_95"]["flipped_labels"], ".4f")
        lines.append(f"{'labels that flip':20}{'':16}{part['flipped_labels']:12.4f}   {flips}")
    return "\n".join([*lines, "", measured["note"], *(f"!! {text}" for text in found.warnings), f"{RESEARCH_USE}."])


def _interval(ends: list[float] | None, form: str) -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}" if ends else "too few cases"
