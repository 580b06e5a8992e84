"""Curves as SVG that stands inside an HTML page: its text stays text, for readers and for search."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import numpy as np

from wsi_pipeline.evaluation.figures import reliability_of
from wsi_pipeline.evaluation.result import Evaluation, Probabilities
from wsi_pipeline.render.page import number
from wsi_pipeline.scoring.curves import Curve, precision_recall, roc, thin
from wsi_pipeline.scoring.metrics import expected_calibration_error, score

BLUE, ORANGE, GREEN, GREY, LIGHT = "#0072b2", "#d55e00", "#009e73", "#555555", "#c8c8c8"
STYLES = ("-", "--", ":", "-.")
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
"""Okabe & Ito: told apart by every eye."""

SQUARE = (4.6, 4.4)
CASES_NAMED = 70
"""More cases than that have no room for their names."""

CASE_MARKS = {
    True: (("auroc", "AUROC", BLUE, "o"), ("balanced_accuracy", "balanced accuracy", ORANGE, "s")),
    False: (("accuracy", "Accuracy", BLUE, "o"),),
}
"""What is drawn of each case, with two classes or more: key, name, colour, marker."""


def roc_chart(evaluation: Evaluation) -> str:
    """Sensitivity over false alarms, with the point of the threshold. Empty where only one class occurs."""
    figure, axes = _square("1 − specificity", "Sensitivity (recall)")
    axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
    if not _draw_curves(axes, evaluation, roc, "auroc", steps=False):
        return ""
    scores = evaluation.figures.scores
    if evaluation.binary and "balanced_accuracy" in scores:
        _mark(axes, 1 - scores["specificity"], scores["recall"], evaluation.threshold)
    _legend(axes, evaluation, "lower right")
    return svg(figure, "ROC curve")


def precision_recall_chart(evaluation: Evaluation) -> str:
    """Precision over recall, with the point of the threshold. Empty where only one class occurs."""
    figure, axes = _square("Recall (sensitivity)", "Precision (PPV)")
    if not _draw_curves(axes, evaluation, precision_recall, "average_precision", steps=True):
        return ""
    if evaluation.binary:
        axes.axhline(evaluation.positive_fraction, color=LIGHT, linewidth=1)
        scores = evaluation.figures.scores
        if {"recall", "precision"} <= scores.keys():
            _mark(axes, scores["recall"], scores["precision"], evaluation.threshold)
    _legend(axes, evaluation, "lower left")
    return svg(figure, "Precision and recall")


def reliability_chart(evaluation: Evaluation) -> str:
    """How often what was predicted came true, before and after calibration, and how often each was predicted."""
    figure = _figure(SQUARE)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
    patches = evaluation.patches
    for probabilities, name, colour, style in (
        (patches.uncalibrated, "before calibration", ORANGE, "--"),
        (patches.shipped, "as the model ships", BLUE, "-"),
    ):
        bins = reliability_of(patches.labels, probabilities)
        error = expected_calibration_error(patches.labels, probabilities)
        label = f"{name} (ECE {number(error)})"
        axes.plot(bins.predicted, bins.observed, style, color=colour, marker="o", markersize=4, label=label)
        if colour == BLUE:
            below.bar(bins.predicted, bins.count, width=0.05, color=colour)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Observed frequency")
    below.set(xlabel=f"Predicted p({evaluation.bundle.card.positive_class})", ylabel="Patches")
    if not evaluation.binary:
        below.set(xlabel="Probability of the most probable class")
    below.set_yscale("log")
    below.set_ylim(0.8, 2 * len(patches.labels))
    axes.legend(loc="upper left", fontsize=9, framealpha=0.85, edgecolor="none")
    return svg(figure, "Reliability diagram")


def history_chart(history: Mapping[str, Sequence[float]]) -> str:
    """Loss, and accuracy and AUROC, over the epochs of the training."""
    panels = {
        "Loss": (("train_loss", "training", ORANGE, "--"), ("validation_loss", "validation", BLUE, "-")),
        "Accuracy, AUROC": (
            ("train_accuracy", "training accuracy", ORANGE, "--"),
            ("validation_accuracy", "validation accuracy", BLUE, "-"),
            ("validation_auroc", "validation AUROC", GREEN, "-."),
        ),
    }
    drawn = {
        title: known  # mixed labels have no accuracy, for one
        for title, curves in panels.items()
        if (known := [curve for curve in curves if np.isfinite(history.get(curve[0], ())).any()])
    }
    if not drawn:
        return ""
    figure = _figure((9.4, 3.4))
    left, right = figure.subplots(1, 2)
    if len(drawn) == 1:  # as large as one of two
        right.set_axis_off()
    for axes, (title, curves) in zip((left, right), drawn.items(), strict=False):
        for key, name, colour, style in curves:
            axes.plot(history["epoch"], history[key], style, color=colour, label=name, marker="o", markersize=2.5)
        axes.set(xlabel="Epoch", ylabel=title, xlim=(0.5, max(history["epoch"]) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.legend(fontsize=9, frameon=False)
    return svg(figure, f"{' and '.join(drawn)} over the epochs of the training")


def case_chart(evaluation: Evaluation) -> str:
    """Each case's AUROC, balanced accuracy and share of positives, the hardest first; of many classes its accuracy."""
    cases = evaluation.per_case
    order = sorted(cases, key=lambda case: (_rank(cases[case]), case))
    if len(order) < 2:
        return ""
    named = len(order) <= CASES_NAMED
    figure = _figure((9.4, 4.2 if named else 3.6))
    rows = 2 if evaluation.binary else 1
    panels = figure.subplots(rows, 1, sharex=True, height_ratios=(3, 1)[:rows], squeeze=False)[:, 0]
    above, lowest = panels[0], panels[-1]
    x = np.arange(len(order))
    for key, name, colour, marker in CASE_MARKS[evaluation.binary]:
        values = [np.nan if (value := cases[case][key]) is None else value for case in order]
        above.plot(x, values, marker, color=colour, label=name, markersize=5 if named else 3)
    above.axhline(0.5, color=LIGHT, linewidth=1)
    above.set(ylim=(-0.03, 1.03), ylabel="per case")
    above.legend(loc="lower right", fontsize=9, frameon=False, ncols=2)
    if evaluation.binary:
        lowest.bar(x, [cases[case]["positive_fraction"] or 0.0 for case in order], color=GREY, width=0.8)
        lowest.set(ylim=(0, 1), yticks=[0, 1], ylabel="positive\nshare")
    lowest.set(xlim=(-0.7, len(order) - 0.3))
    if named:
        lowest.set_xticks(x, order, rotation=90, fontsize=7)
    else:
        lowest.set(xticks=[], xlabel=f"{len(order):,} cases")
    return svg(figure, f"{' and '.join(mark[1] for mark in CASE_MARKS[evaluation.binary])} of each case")


def _rank(values: Mapping[str, float | None]) -> tuple[float, float]:
    """By AUROC; cases with one class only come last, by their accuracy."""
    auroc, accuracy = values["auroc"], values["accuracy"]
    return 2.0 if auroc is None else auroc, accuracy or 0.0


def _draw_curves(axes: Any, evaluation: Evaluation, curve: Callable[..., Curve], key: str, *, steps: bool) -> bool:
    """One curve for two classes (and one without the second stage), else one for each class against the rest."""
    drawn = False
    for probabilities, n, name, colour, style in _curves(evaluation, key):
        positive = evaluation.patches.labels == n
        if not positive.any() or positive.all():
            continue
        points = thin(curve(positive, probabilities[:, n]))
        if steps:  # back from each point, the first one back to recall 0
            x, y = np.append(0, points.x), np.append(points.y[0], points.y)
            axes.step(x, y, where="pre", linestyle=style, color=colour, label=name, linewidth=1.6)
        else:
            axes.plot(points.x, points.y, style, color=colour, label=name, linewidth=1.6)
        drawn = True
    return drawn


def _curves(evaluation: Evaluation, key: str) -> Iterator[tuple[Probabilities, int, str, str, str]]:
    """Probabilities, class, name, colour and line style of each curve."""
    patches = evaluation.patches
    if not evaluation.binary:
        for n, name in enumerate(evaluation.classes):
            value = number(score(patches.labels == n, patches.shipped[:, n]).get(key))
            yield patches.shipped, n, f"{name} ({value})", COLOURS[n % len(COLOURS)], STYLES[n // 2 % len(STYLES)]
        return
    if evaluation.without_context:
        value = number(evaluation.without_context.scores.get(key))
        yield patches.calibrated, 1, f"without context ({value})", ORANGE, "--"
    yield patches.shipped, 1, f"as the model ships ({number(evaluation.figures.scores.get(key))})", BLUE, "-"


def _legend(axes: Any, evaluation: Evaluation, corner: str) -> None:
    """In a corner that curves leave free; of many curves below."""
    if evaluation.binary:
        axes.legend(loc=corner, fontsize=9, frameon=False)
    else:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=9, frameon=False)


def _mark(axes: Any, x: float, y: float, threshold: float) -> None:
    axes.plot([x], [y], "o", color="black", markersize=6, label=f"threshold {threshold:g}", zorder=5)


def _square(x: str, y: str) -> tuple[Any, Any]:
    figure = _figure(SQUARE)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")
    return figure, axes


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained", facecolor="none")


def svg(figure: Any, title: str) -> str:
    """A figure as an SVG element with its title for screen readers, and ids that no other figure of a page has."""
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_facecolor("none")
        axes.tick_params(labelsize=9)
    text, nothing = StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "path.simplify": True}):
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    found = text.getvalue()
    found = re.sub(r"<metadata>.*?</metadata>", "", found[found.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", title.lower())
    found = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", found)
    return found.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
