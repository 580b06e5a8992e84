"""The evaluation as text, for the terminal."""

from collections.abc import Iterator

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.evaluation.result import Evaluation
from wsi_pipeline.evaluation.words import OVERLAP_NAMES, data_line, names_of, table, threshold_line
from wsi_pipeline.render.page import MISSING, interval, number
from wsi_pipeline.scoring.metrics import class_scores

CASES_SHOWN = 5
NAMED_COLUMNS = 4


def as_text(evaluation: Evaluation) -> str:
    """Everything that fits on one or two screens."""
    blocks = [_head(evaluation), _warnings(evaluation), _metrics(evaluation), _confusion(evaluation)]
    blocks += [_cases(evaluation), _whole_slide(evaluation)]
    lines = ["\n".join(block) for block in ([*part] for part in blocks) if block]
    return "\n\n".join([*lines, f"{RESEARCH_USE}."])


def _head(evaluation: Evaluation) -> Iterator[str]:
    bundle, dataset = evaluation.bundle, evaluation.patches.dataset
    yield f"model      {bundle.card.name} ({bundle.digest[:12]})"
    yield f"data       {dataset.root} ({dataset.layout}): {data_line(evaluation)}"
    yield f"threshold  {threshold_line(evaluation)}"
    stages = ["8 symmetries"] if evaluation.options.tta else []
    stages += ["refined by the neighbourhood"] if evaluation.patches.refined else []
    if stages:
        yield f"with       {', '.join(stages)}"


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    for warning in evaluation.warnings:
        yield f"!! {warning}"


def _metrics(evaluation: Evaluation) -> Iterator[str]:
    found, plain = evaluation.figures, evaluation.without_context
    rows = [["", "value", "95 % interval", *(["without context"] if plain else [])]]
    for key, name in names_of(evaluation).items():
        row = [name, number(found.scores.get(key)), interval(found.interval_95.get(key))]
        rows.append([*row, *([number(plain.scores.get(key))] if plain else [])])
    yield from table(rows)
    before = evaluation.as_json()["calibration"]["before"]
    yield f"ECE before calibration (temperature 1, no bias): {number(before['ece'])}"


def _confusion(evaluation: Evaluation) -> Iterator[str]:
    """Of more classes than fit side by side, the columns are numbered."""
    counts, names = evaluation.figures.confusion, list(evaluation.classes)
    columns = names
    if len(names) > NAMED_COLUMNS:
        columns = [str(n + 1) for n in range(len(names))]
        names = [f"{n} {name}" for n, name in zip(columns, names, strict=True)]
    rows = [["label \\ called", *columns, "recall", "precision"]]
    for name, row, scores in zip(names, counts.tolist(), class_scores(counts), strict=True):
        rows.append([name, *(f"{n:,}" for n in row), number(scores["recall"]), number(scores["precision"])])
    yield from table(rows)


def _cases(evaluation: Evaluation) -> Iterator[str]:
    """The cases with the lowest balanced accuracy: where to look first."""
    key = "balanced_accuracy"
    ranked = sorted(
        ((values[key], case) for case, values in evaluation.per_case.items() if values[key] is not None),
        key=lambda pair: (pair[0] or 0.0, pair[1]),
    )
    if len(ranked) < 2:
        return
    rows = [["lowest balanced accuracy", "patches", "positive", "balanced accuracy", "AUROC"]]
    for value, case in ranked[:CASES_SHOWN]:
        values = evaluation.per_case[case]
        share = values["positive_fraction"]
        positive = MISSING if share is None else f"{100 * share:.0f} %"
        rows.append([case, f"{values['patches']:,}", positive, number(value), number(values["auroc"])])
    yield from table(rows)


def _whole_slide(evaluation: Evaluation) -> Iterator[str]:
    found = evaluation.whole_slide
    if found is None:
        return
    rows = [["cases put together", "all cells", "95 % interval", "mean of cases", "95 % interval", "cases"]]
    for key, name in OVERLAP_NAMES.items():
        row = [name]
        for part, values in (("pooled", found.pooled), ("mean", found.mean)):
            row += [number(values.get(key)), interval(found.interval_95[part].get(key))]
        rows.append([*row, str(found.defined[key])])
    yield from table(rows)
