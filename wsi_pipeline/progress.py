"""Progress for a person at a terminal; quiet where the output goes to a file."""

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from wsi_pipeline.manifest import SlideResult
from wsi_pipeline.wording import counted


class Progress:
    """One bar for the slides of a run and one for the cells of the slide at hand, with cells/s and the time left."""

    def __init__(self) -> None:
        self._run: tqdm[Any] | None = None
        self._slide: tqdm[Any] | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in (self._slide, self._run):
            if bar is not None:
                bar.close()

    def plan(self, slides: int) -> None:
        """The run has this many slides."""
        self._run = tqdm(total=slides, desc="slides", unit="slide", disable=None, position=0)

    def cells(self, name: str, done: int, total: int) -> None:
        """So many cells of a slide are done, some perhaps by an earlier run."""
        if self._slide is None or self._name != name:
            self._close_slide()
            self._name = name
            position = 0 if self._run is None else 1
            self._slide = tqdm(
                total=total,
                initial=done,
                desc=name[:32],
                unit="cell",
                unit_scale=True,
                disable=None,
                position=position,
                leave=False,
            )
        self._slide.update(done - self._slide.n)

    def slide(self, result: SlideResult) -> None:
        """A slide ended: one line says how."""
        self._close_slide()
        tqdm.write(describe(result), file=sys.stdout)
        if self._run is not None:
            self._run.update()
            self._run.refresh()

    def _close_slide(self) -> None:
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def describe(result: SlideResult) -> str:
    """One line on a slide."""
    if result.summary is None:
        return f"{result.slide}: failed: {(result.error or {}).get('why', 'no reason known')}"
    summary = result.summary
    if result.status == "skipped":
        return f"{result.slide}: done before, nothing to do"
    if not summary.cells:
        return f"{result.slide}: no tissue found"
    share = f" ({summary.idc_fraction:.1%})" if summary.idc_fraction is not None else ""
    line = (
        f"{result.slide}: {summary.class_name} {summary.idc_mm2:.3g} of {summary.analysed_mm2:.3g} mm²{share} in "
        f"{counted(summary.regions, 'region')}, {summary.cells:,} cells, {summary.seconds['total']:.1f} s"
    )
    return "\n".join([line, *(f"  note: {warning}" for warning in summary.warnings)])
