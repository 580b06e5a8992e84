"""This program beside WSInfer, TIAToolbox and LazySlide: the same slide, patches, network, cores and threads.

    python -m benchmarks.peers --json peers.json

Each peer is installed into an environment of its own (`benchmarks.venvs`) and called through its Python API
(`benchmarks/peer_runs`). All look at the same 50 x 50 px of level 0 at 0.25 µm/px, chosen by this program's tissue
mask, with the same random ResNet-18, in batches of the same size. First their predictions are compared, cell by cell,
in fp32; then runs take turns:

* `feed`: a stub that only touches its input stands for the network. What is timed is the call that reads, cuts and
  hands over; process start, imports and opening the slide are not counted.
* `end to end`: the whole process from start to end, with the ResNet-18. For this program that is ``wsi-pipeline run``,
  so finding the tissue, outlines and pictures are counted, which the peers do not do here; `call_s` beside it leaves
  the start-up out (the peer's own call; this program's summary `seconds`).

Peers read with OpenSlide. Each is tried with every number of reading processes given, and its fastest counts; of this
program it is always the default that counts (workers as it chooses, the first of ``--engines``).
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import resnet18_bundle
from benchmarks.measure import Row, cores, interleaved, ratios, scratch, summarise
from benchmarks.peer_jobs import OURS, SCRIPTS, Candidate, Jobs, Setting, lay_patches
from benchmarks.report import Report, add_device, no_device, parser, print_table
from benchmarks.slides import CELL_PX, phantom_slide
from benchmarks.venvs import PEERS, peer_python, peer_versions

SAME = 1e-4
"""Two programs' probabilities are equal up to this: fp32 in another order of sums."""


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__, repeat=5)
    add_device(options)
    options.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), help="those to compare with")
    options.add_argument("--cells", type=int, default=10_000, help="about so many cells (default: %(default)s)")
    options.add_argument("--slide", type=Path, help="another slide, at 0.25 µm/px, sides whole numbers of 50 px")
    options.add_argument("--batch", type=int, default=256, help="patches in a batch (default: %(default)s)")
    options.add_argument("--workers", type=int, nargs="*", help="reading processes of peers (default: 0 and the cores)")
    options.add_argument("--threads", type=int, default=cores(), help="of the network (default: the cores)")
    options.add_argument("--part", choices=("check", "feed", "whole", "all"), default="all", help="only this")
    options.add_argument("--timeout", type=float, default=1800, help="seconds for one run (default: %(default)s)")
    options.add_argument("--engines", nargs="*", default=["auto"], help="this program's engines, end to end")
    args = options.parse_args(given)
    report = Report("peers", args)
    if why := no_device(args.device):
        report.skip(why)
        return
    report.write(_compare(args))


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    args.work = args.work.absolute()
    slide = args.slide.absolute() if args.slide else phantom_slide(args.work, cells=args.cells)
    setting = Setting(
        slide=slide, work=args.work, batch=args.batch, threads=args.threads, device=args.device, timeout=args.timeout
    )
    corners, grid = lay_patches(slide, resnet18_bundle(args.work))
    np.save(scratch(args.work) / "coords.npy", corners)
    print(f"{slide.name}: {len(corners):,} patches of {CELL_PX} px, {args.threads} threads, batches of {args.batch}")
    candidates, problems = _candidates(args)
    results: dict[str, Any] = {"slide": slide.name, "cells": len(corners), "problems": problems}
    results["peer_versions"] = {
        name: peer_versions(args.work, PEERS[name]) for name in args.peers if name not in problems
    }
    jobs = Jobs(setting=setting, grid=grid)
    if args.part in ("check", "all"):
        results["check"], candidates = _check(jobs, candidates, problems)
    if args.part in ("feed", "all"):
        results["feed"] = _feed(jobs, candidates, args)
    if args.part in ("whole", "all"):
        results["end_to_end"] = _whole(jobs, candidates, args)
    for name, why in problems.items():
        print(f"\n{name} was not measured: {why}")
    return results


def _candidates(args: argparse.Namespace) -> tuple[list[Candidate], dict[str, str]]:
    """Peers that can be installed, with each number of workers; and why others cannot."""
    found, problems = [], {}
    workers = args.workers if args.workers is not None else sorted({0, cores()})
    for name in args.peers:
        try:
            python = peer_python(args.work, PEERS[name])
        except (RuntimeError, OSError) as error:
            problems[name] = f"its environment cannot be made: {error}"
            continue
        found += [
            Candidate(name=name, python=python, script=SCRIPTS / f"run_{name}.py", workers=count) for count in workers
        ]
    return found, problems


def _ours(workers: int = -1) -> Candidate:
    return Candidate(name=OURS, python=Path(sys.executable), script=SCRIPTS / "run_ours.py", workers=workers)


def _check(jobs: Jobs, candidates: list[Candidate], problems: dict[str, str]) -> tuple[dict[str, Any], list[Candidate]]:
    """Every program's probabilities against ours, cell by cell. A peer that cannot run is left out, and why."""
    _, file = jobs.run(_ours(), stub=False)
    wanted = _by_corner(file)
    spread = float(np.std(list(wanted.values())))
    print(f"\nprobabilities of {len(wanted):,} cells, standard deviation {spread:.3f}")
    found: dict[str, Any] = {"cells": len(wanted), "standard_deviation": spread, "tolerance": SAME}
    for name in dict.fromkeys(candidate.name for candidate in candidates):
        candidate = max((c for c in candidates if c.name == name), key=lambda c: c.workers)
        try:
            _, file = jobs.run(candidate, stub=False)
        except (RuntimeError, ValueError, OSError) as error:
            problems[name] = str(error)
            continue
        theirs = _by_corner(file)
        if theirs.keys() != wanted.keys():
            problems[name] = f"it visited {len(theirs):,} patches, {len(theirs.keys() & wanted.keys()):,} of the wanted"
            continue
        apart = np.array([abs(theirs[corner] - wanted[corner]) for corner in wanted])
        found[name] = {"max": float(apart.max()), "mean": float(apart.mean()), "equal": bool(apart.max() <= SAME)}
        print(f"  {name}: at most {apart.max():.1e} apart, {apart.mean():.1e} on average")
        if apart.max() > SAME:
            problems[name] = f"its predictions differ by up to {apart.max():.2g}: the work is not the same"
    return found, [candidate for candidate in candidates if candidate.name not in problems]


def _by_corner(file: Path) -> dict[tuple[int, int], float]:
    with np.load(file) as found:
        return {(int(x), int(y)): float(p) for (x, y), p in zip(found["coords"], found["probability"], strict=True)}


def _feed(jobs: Jobs, candidates: list[Candidate], args: argparse.Namespace) -> dict[str, Any]:
    print("\nfeed: the stub for a network")
    ours = [_ours(count) for count in sorted({-1, *(c.workers for c in candidates)})]

    def once(candidate: Candidate) -> Callable[[], Row]:
        return lambda: jobs.run(candidate, stub=True)[0]

    return _take_turns(
        "feed, cells/s of the call",
        {c.title: once(c) for c in (*ours, *candidates)},
        args.repeat,
        "call_cells_per_s",
        warm_up=_warm_up(args),
    )


def _whole(jobs: Jobs, candidates: list[Candidate], args: argparse.Namespace) -> dict[str, Any]:
    print("\nend to end: the ResNet-18")

    def once(candidate: Candidate) -> Callable[[], Row]:
        return lambda: jobs.run(candidate, stub=False)[0]

    def ours(engine: str) -> Callable[[], Row]:
        return lambda: jobs.run_whole(engine)

    runs = {f"{OURS}, engine {engine}": ours(engine) for engine in args.engines}
    runs |= {candidate.title: once(candidate) for candidate in candidates}
    title = "end to end, cells/s of the whole process"
    return _take_turns(title, runs, args.repeat, "cells_per_s", warm_up=_warm_up(args))


def _warm_up(args: argparse.Namespace) -> int:
    """Rounds that do not count: whoever runs first would read programs and slide from the disk for all others."""
    return 0 if args.part == "all" else 1


def _take_turns(
    title: str, runs: dict[str, Callable[[], Row]], repeat: int, figure: str, *, warm_up: int = 0
) -> dict[str, Any]:
    """Run, and compare each of our variants with each peer's fastest.

    What counts (`ratio`) is our first variant, which is what a user gets without asking: choosing our fastest after the
    measurement would be choosing luck. Of a peer the fastest is chosen, to its advantage.
    """
    raw = interleaved(runs, repeat, warm_up=warm_up)
    medians = {name: summarise(rows) for name, rows in raw.items()}
    rows = [
        [name, found["cells_per_s"]["median"], found["call_cells_per_s"]["median"], found["peak_mb"]["median"]]
        for name, found in medians.items()
    ]
    print_table(title, ["program", "cells/s", "cells/s of the call", "peak MB"], rows)
    ours = [name for name in medians if name.split(",")[0] == OURS]
    fastest = dict(_fastest({name: found for name, found in medians.items() if name not in ours}, figure))
    times = {own: {name: ratios(raw[own], raw[other], figure) for name, other in fastest.items()} for own in ours}
    for own, found in times.items():
        for name, ratio in found.items():
            span = f"{ratio['min']:.2f}–{ratio['max']:.2f}"
            print(f"  {own}: {ratio['median']:.2f} times as fast as {fastest[name]} ({span})")
    smallest = min((ratio["median"] for ratio in times[ours[0]].values()), default=None)
    print(f"  what counts is {ours[0]}")
    return {
        "figure": figure,
        "ours": ours[0],
        "fastest_of_peers": fastest,
        "medians": medians,
        "times_as_fast": times,
        "ratio": smallest,
        "raw": raw,
    }


def _fastest(medians: dict[str, dict[str, dict[str, float]]], figure: str) -> Iterator[tuple[str, str]]:
    """Each program with its fastest variant."""
    programs = dict.fromkeys(title.split(",")[0] for title in medians)
    for name in programs:
        variants = [title for title in medians if title.split(",")[0] == name]
        yield name, max(variants, key=lambda title: medians[title][figure]["median"])


if __name__ == "__main__":
    main()
