"""Adaptive maps against full ones, on real reassembled cases: evaluations saved, differences, Dice of the regions.

    python -m benchmarks.adaptive --data DIR --cases 4 --json adaptive.json

DIR holds whole cases of IDC patches, one zip each. Of each case a square of tissue on the border of a tumour is mapped
at dense cells, once in full; the map is kept in the work folder. Every setting of the refinement is then tried on that
map by look-up, which takes seconds; the shipped setting also runs through the network, to see that it gives the same
map and how long it takes. Squares on a border are the hardest part of a slide: elsewhere more is saved.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import ENGINES, Report, parser, print_table
from benchmarks.squares import Map, find_squares, full_map, run_map
from wsi_pipeline.config import Settings
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.files import make_folder
from wsi_pipeline.grid import Grid
from wsi_pipeline.inference import Predictor
from wsi_pipeline.inference.adaptive import Refinement, Rule
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.prediction import choose_refinement, choose_rule
from wsi_pipeline.scoring.overlap import overlap

NEVER = -1e9
"""A margin by which no square is refined."""

SETTINGS = Settings.model_validate({"prediction": {"adaptive": True}})


def variants(shipped: Rule) -> dict[str, Rule]:
    """The shipped rule and others."""
    side = shipped.coarsest
    return {
        "shipped": shipped,
        "every 2nd": replace(shipped, coarsest=side // 2, finest=side // 2),
        "every 4th": replace(shipped, finest=side, margin=NEVER, tolerance=1.0),
        "every 8th": replace(shipped, coarsest=2 * side, finest=2 * side),
        "margin 0": replace(shipped, margin=0.0),
        "margin 0.8": replace(shipped, margin=0.8),
        "margin 2": replace(shipped, margin=2.0),
        "tolerance 0.2": replace(shipped, tolerance=0.2),
        "margin alone": replace(shipped, tolerance=1.0),
        "tolerance alone": replace(shipped, margin=NEVER),
        "from 8": replace(shipped, coarsest=2 * side),
        "from 8, to 1": replace(shipped, coarsest=2 * side, finest=1),
        "to 1": replace(shipped, finest=1),
    }


def look_up(full: Map, grid: Grid, rule: Rule) -> tuple[Map, NDArray[np.bool_]]:
    """The adaptive map that a network with these answers gives, and which cells it looks at."""
    found, looked_at = np.full_like(full, np.nan), np.zeros(full.shape, np.bool_)
    for block in grid.blocks():
        place = tuple(block.cells.T)
        answers = np.stack([1 - full[place], full[place]], 1)
        refinement = Refinement(block, np.isfinite(full[place]), 2, replace(rule, positive=1, classes=2))
        while len(refinement.wanted):
            refinement.give(answers[refinement.wanted])
        found[place], looked_at[place] = refinement.columns()[:, 1], refinement.evaluated
    return found, looked_at


def compare(full: Map, adaptive: Map, threshold: float) -> dict[str, float]:
    """Largest and mean difference in probability, and Dice of the cells that are called."""
    there = np.isfinite(full)
    apart = np.abs(full - adaptive)[there]
    truth, called = (np.where(there, values, 0) >= np.float32(threshold) for values in (full, adaptive))
    return {"max": float(apart.max()), "mean": float(apart.mean()), "dice": overlap(truth, called).get("dice", 1.0)}


def seam(full: Map, adaptive: Map, grid: Grid) -> dict[str, float]:
    """How far steps over the borders of blocks differ from the full map's, and other steps: mean and largest."""
    steps = [np.diff(adaptive, axis=axis) - np.diff(full, axis=axis) for axis in (0, 1)]
    over, within = list[Map](), list[Map]()
    for axis, step in enumerate(steps):
        at_border = (np.arange(step.shape[axis]) + 1) % grid.block_side == 0
        over.append(np.compress(at_border, step, axis).ravel())
        within.append(np.compress(~at_border, step, axis).ravel())
    found = dict[str, float]()
    for name, parts in {"over": over, "within": within}.items():
        values = np.abs(np.concatenate(parts))
        values = values[np.isfinite(values)]
        found |= {f"{name}_mean": float(values.mean()), f"{name}_max": float(values.max())} if len(values) else {}
    return found


def judge(full: Map, adaptive: Map, looked_at: int, refine: Callable[[Map], Map], threshold: float) -> dict[str, Any]:
    """Everything that is told of one adaptive map."""
    return {
        "saved": float(np.isfinite(full).sum() / looked_at),
        "before": compare(full, adaptive, threshold),
        "after": compare(refine(full), refine(adaptive), threshold),
    }


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=1)
    options.add_argument("--data", type=Path, required=True, help="folder of whole cases, a zip each")
    options.add_argument("--cases", type=int, default=4, help="how many of them (default: %(default)s)")
    options.add_argument("--side", type=int, default=12, help="of the square, in patches (default: %(default)s)")
    options.add_argument("--model", default="idc-resnet18", help="a bundle (default: %(default)s)")
    options.add_argument("--engine", choices=ENGINES, default="auto", help="see wsi-pipeline run")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="see wsi-pipeline run")
    args = options.parse_args(given)
    report = Report("adaptive", args)
    try:
        report.write(measure(args))
    except WsiPipelineError as error:
        raise SystemExit(str(error)) from error


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All squares, each with every variant."""
    work = args.work / "adaptive"
    make_folder(work)
    bundle = load_bundle(args.model)
    predictor = Predictor(bundle=bundle, device="cpu", engine=args.engine, precision=args.precision)
    threshold, found = bundle.card.threshold.value, dict[str, Any]()
    for square in find_squares(args.data, args.cases, args.side, work, bundle.view):
        rule = choose_rule(SETTINGS, bundle.card, square.grid)
        if rule is None:
            raise SystemExit(f"{args.model}: its fields of view overlap too little for adaptive maps")
        kind = "-".join(predictor.facts.values())
        full, seconds = full_map(square, predictor, work / f"{square.name}-{args.side}-{bundle.digest[:8]}-{kind}.npz")
        refine = choose_refinement(SETTINGS, bundle.card, square.grid) or (lambda values: values)
        rows = {}
        for name, variant in variants(rule).items():
            adaptive, looked_at = look_up(full, square.grid, variant)
            rows[name] = judge(full, adaptive, int(looked_at.sum()), refine, threshold)
            if name == "shipped":
                rows[name]["seam"] = seam(full, adaptive, square.grid)
                by_network, adaptive_seconds = run_map(square, predictor, rule)
                rows[name]["equal"] = bool(np.allclose(by_network, adaptive, atol=1e-6, equal_nan=True))
        cells = len(square.grid.cells)
        found[square.name] = {"cells": cells, "seconds": seconds, "adaptive_seconds": adaptive_seconds, "rules": rows}
        _print(square.name, found[square.name])
    if not found:
        raise SystemExit(f"{args.data}: no case has a square of {args.side} patches on the border of a tumour")
    _print_summary(found)
    return {"threshold": threshold, **predictor.facts, "squares": found, "worst": worst(found)}


def worst(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of each rule, over the squares: least saved, lowest Dice, largest differences."""
    names = next(iter(found.values()))["rules"]
    table = {}
    for name in names:
        rows = [square["rules"][name] for square in found.values()]
        table[name] = {
            "saved": min(row["saved"] for row in rows),
            "saved_mean": float(np.mean([row["saved"] for row in rows])),
            "dice_before": min(row["before"]["dice"] for row in rows),
            "dice_after": min(row["after"]["dice"] for row in rows),
            "max_before": max(row["before"]["max"] for row in rows),
            "max_after": max(row["after"]["max"] for row in rows),
            "mean_before": max(row["before"]["mean"] for row in rows),
            "mean_after": max(row["after"]["mean"] for row in rows),
        }
    return table


def _print(name: str, square: Mapping[str, Any]) -> None:
    shipped = square["rules"]["shipped"]
    print(
        f"{name}: {square['cells']:,} cells, {shipped['saved']:.1f} times fewer evaluations, "
        f"Dice {shipped['before']['dice']:.4f} before and {shipped['after']['dice']:.4f} after the second stage"
        + ("" if shipped["equal"] else "; THE NETWORK GAVE ANOTHER MAP THAN THE LOOK-UP"),
        flush=True,
    )


def _print_summary(found: Mapping[str, Any]) -> None:
    columns = [
        "worst of all squares",
        "saved",
        "Dice before",
        "after",
        "max before",
        "after",
        "mean before",
        "after",
    ]
    keys = ("saved", "dice_before", "dice_after", "max_before", "max_after", "mean_before", "mean_after")
    print_table("adaptive maps", columns, [[name, *(row[key] for key in keys)] for name, row in worst(found).items()])


if __name__ == "__main__":
    main()
