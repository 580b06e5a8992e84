"""What a run's record says in numbers, for people. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wsi_pipeline.config import Settings
from wsi_pipeline.manifest import RunRecord, SlideResult, Summary
from wsi_pipeline.render.page import MISSING, area, duration, number, percent

STAGES = {
    "open": "opening slides",
    "plan": "finding tissue",
    "read": "reading pixels, all processes together",
    "wait": "network waiting for pixels",
    "network": "network",
    "write": "writing maps",
    "regions": "regions",
    "render": "pictures",
    "total": "from start to end",
}
"""Names of the stages of a summary's seconds; others are shown by their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A run in a few numbers."""

    slides: int
    done: int
    failed: int
    class_name: str
    """What the slides' regions are of; empty where no slide has numbers."""
    with_regions: int
    idc_mm2: float
    analysed_mm2: float
    regions: int
    warned: int
    """Slides with at least one warning."""

    @property
    def heading(self) -> str:
        """What the page shows."""
        heading = f"{self.class_name} heatmaps".lstrip()
        return heading[0].upper() + heading[1:]


def add_up(record: RunRecord) -> Numbers:
    """The sums over the slides that have numbers."""
    summaries = [result.summary for result in record.results if result.summary is not None]
    return Numbers(
        slides=record.planned,
        done=len(summaries),
        failed=len(record.failed),
        class_name=_each(one.class_name for one in summaries),
        with_regions=sum(summary.regions > 0 for summary in summaries),
        idc_mm2=sum(summary.idc_mm2 for summary in summaries),
        analysed_mm2=sum(summary.analysed_mm2 for summary in summaries),
        regions=sum(summary.regions for summary in summaries),
        warned=sum(bool(summary.warnings) for summary in summaries),
    )


def run_facts(record: RunRecord) -> list[tuple[str, str]]:
    """What stands at the head of the page."""
    summaries = [result.summary for result in record.results if result.summary is not None]
    facts = [("Model", _each(summary.model for summary in summaries) or str(record.bundle.get("name", "")))]
    if summaries:
        facts += [
            ("Threshold", _each(f"{one.threshold:g} ({one.threshold_source})" for one in summaries)),
            ("Cells", _each(f"{one.cell_um:g} µm" for one in summaries)),
            ("Probability", _each(_how(one) for one in summaries)),
        ]
    ended = f", ended {_when(record.finished)}" if record.finished else "; it did not end"
    return [*facts, ("Run", f"started {_when(record.started)}{ended}")]


def slide_facts(result: SlideResult) -> list[tuple[str, str]]:
    """All that is known of a slide but its pictures and warnings, in the order to read it."""
    one = result.summary
    if one is None:
        return []
    facts = [
        (f"{one.class_name} area", f"{area(one.idc_mm2)} mm²"),
        (f"{one.class_name} part", percent(one.idc_fraction)),
        ("Regions", f"{one.regions:,}"),
        ("Largest region", f"{area(one.largest_region_mm2)} mm²"),
        ("Tissue", f"{area(one.tissue_mm2)} mm²"),
        ("Analysed", f"{area(one.analysed_mm2)} mm²"),
        ("Mean probability", number(one.mean_probability)),
        ("Threshold", f"{one.threshold:g} ({one.threshold_source})"),
        ("Cells", _cells(one)),
        ("Resolution", f"{_resolution(one)} µm/px ({one.mpp_source})"),
    ]
    if one.spread_over:
        facts.append((f"Spread over {one.spread_over}", _spread(one)))
    before = " (finished by an earlier run)" if result.status == "skipped" else ""
    return [*facts, ("Time", duration(one.seconds.get("total")) + before), *_made_with(one), ("File", one.path)]


def _made_with(one: Summary) -> list[tuple[str, str]]:
    return [("Reader", one.reader), ("Engine", f"{one.engine}, {one.precision}")]


def changed_settings(settings: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """The settings by section: name, value, and whether it is another than the default."""
    defaults = Settings().model_dump(mode="json")
    top = [(key, _text(value), value != defaults.get(key)) for key, value in settings.items() if key == "model"]
    sections = [("model", top)]
    for section, values in settings.items():
        if isinstance(values, Mapping):
            usual = defaults.get(section, {})
            sections.append((section, [(key, _text(value), value != usual.get(key)) for key, value in values.items()]))
    return sections


def stage_seconds(record: RunRecord) -> list[tuple[str, str]]:
    """Time by stage over the slides that this run made; those finished before are left out."""
    sums: dict[str, float] = {}
    for result in record.results:
        if result.summary is not None and result.status == "done":
            for stage, seconds in result.summary.seconds.items():
                sums[stage] = sums.get(stage, 0.0) + seconds
    return [(STAGES.get(stage, stage), duration(seconds)) for stage, seconds in sums.items()]


def took(record: RunRecord) -> str:
    """How long the run took by the clock; a dash where it did not end."""
    if not record.finished:
        return MISSING
    return duration((datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds())


def _each(values: Iterator[str]) -> str:
    """The different values, in order of appearance."""
    return "; ".join(dict.fromkeys(values))


def _how(one: Summary) -> str:
    parts = ["of each field of view", "refined by its neighbourhood" if one.context else "by itself"]
    return " ".join(parts) + (f", mean over {one.spread_over}" if one.spread_over else "")


def _cells(one: Summary) -> str:
    parts = [f"{one.cells:,} of {one.cell_um:g} µm"]
    parts += [f"{one.unreadable_cells:,} unreadable"] if one.unreadable_cells else []
    return ", ".join(parts)


def _resolution(one: Summary) -> str:
    x, y = one.mpp
    return f"{x:.4g}" if x == y else f"{x:.4g} x {y:.4g}"


def _spread(one: Summary) -> str:
    return (
        f"{number(one.mean_spread)}; in regions {number(one.mean_spread_regions)}, "
        f"near them {number(one.mean_spread_near_regions)}"
    )


def _when(moment: str) -> str:
    """A moment of a record, which is in UTC, to the minute."""
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC")


def _text(value: Any) -> str:
    return MISSING if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
