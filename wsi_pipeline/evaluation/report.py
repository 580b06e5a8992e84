"""The evaluation as one HTML page that needs nothing else: no network, no script, no file beside it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wsi_pipeline.evaluation import charts, words
from wsi_pipeline.evaluation.gallery import groups
from wsi_pipeline.evaluation.history import read_history
from wsi_pipeline.evaluation.pictures import (
    FALSE_ALARM,
    HIT,
    LABELLED,
    MISSED,
    case_pictures,
    patch_picture,
)
from wsi_pipeline.evaluation.result import Evaluation
from wsi_pipeline.files import atomic_path, make_folder
from wsi_pipeline.render.page import render_page
from wsi_pipeline.scoring.metrics import class_scores

TEMPLATE = Path(__file__).parent / "report.html.j2"

HEADLINES = ("auroc", "balanced_accuracy", "f1", "average_precision", "ece")

CASE_COLUMNS = {
    "auroc": "AUROC",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "f1": "F1",
    "recall": "Recall",
    "specificity": "Specificity",
    "precision": "Precision",
    "ece": "ECE",
}
"""Of a case, those of these that any case has."""

LISTED = 20
"""Cases or patches named one by one where there may be thousands."""


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the page, whole or not at all.

    Raises:
        OutputError: where it cannot be written.
    """
    make_folder(path.parent)
    page = render(evaluation)
    with atomic_path(path) as part:
        part.write_text(page, encoding="utf-8")


def render(evaluation: Evaluation) -> str:
    """The page's text."""
    return render_page(TEMPLATE, _head(evaluation) | _tables(evaluation) | _charts(evaluation) | _pictures(evaluation))


def _head(evaluation: Evaluation) -> dict[str, Any]:
    card, dataset = evaluation.bundle.card, evaluation.patches.dataset
    return {
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "model": card.name,
        "description": card.description,
        "digest": evaluation.bundle.digest,
        "data": dataset.root,
        "layout": dataset.layout,
        "data_line": words.data_line(evaluation),
        "threshold_line": words.threshold_line(evaluation),
        "findings": dataset.findings,
        "warnings": evaluation.warnings,
        "binary": evaluation.binary,
        "positive": card.positive_class,
        "refined": evaluation.patches.refined,
        "tta": evaluation.options.tta,
        "cross_validated": evaluation.options.out_of_fold is not None,
        "draws": evaluation.options.draws,
        "unit": evaluation.patches.unit,
    }


def _tables(evaluation: Evaluation) -> dict[str, Any]:
    found, plain, values = evaluation.figures, evaluation.without_context, evaluation.as_json()
    names = words.names_of(evaluation)
    counts = found.confusion
    return {
        "headlines": [(names[key], found.scores.get(key), found.interval_95.get(key)) for key in HEADLINES],
        "metrics": [
            (name, found.scores.get(key), found.interval_95.get(key), plain.scores.get(key) if plain else None)
            for key, name in names.items()
        ],
        "calibration": values["calibration"],
        "classes": evaluation.classes,
        "confusion": [
            (name, [(n, n / max(1, sum(row))) for n in row], scores)
            for name, row, scores in zip(evaluation.classes, counts.tolist(), class_scores(counts), strict=True)
        ],
        "per_case": sorted(evaluation.per_case.items()),
        "case_columns": {
            key: name
            for key, name in CASE_COLUMNS.items()
            if any(one[key] is not None for one in evaluation.per_case.values())
        },
        "trained_cases": set(values["seen_in_training"]["cases"]),
        "validated_cases": set(values["seen_in_validation"]["cases"]) if evaluation.options.out_of_fold is None else (),
        "overlaps": evaluation.whole_slide,
        "overlap_names": words.OVERLAP_NAMES,
        "unreadable": evaluation.patches.unreadable[:LISTED],
        "more_unreadable": max(0, len(evaluation.patches.unreadable) - LISTED),
        "card": _card(evaluation),
    }


def _charts(evaluation: Evaluation) -> dict[str, Any]:
    history = read_history(evaluation.bundle.path)
    return {
        "roc": charts.roc_chart(evaluation),
        "precision_recall": charts.precision_recall_chart(evaluation),
        "reliability": charts.reliability_chart(evaluation),
        "cases": charts.case_chart(evaluation),
        "history": charts.history_chart(history) if history else "",
    }


def _pictures(evaluation: Evaluation) -> dict[str, Any]:
    kinds = groups(evaluation)
    with tqdm(total=sum(len(kind.rows) for kind in kinds), desc="pictures", disable=None, leave=False) as bar:
        gallery = []
        for kind in kinds:
            shown = [_patch(evaluation, row) for row in kind.rows]
            bar.update(len(shown))
            gallery.append({"title": kind.title, "total": kind.total, "patches": shown})
    return {
        "gallery": gallery,
        "maps": case_pictures(evaluation),
        "overlap_of": evaluation.whole_slide.per_case if evaluation.whole_slide else {},
        "colours": {
            "labelled": _css(LABELLED),
            "hit": _css(HIT),
            "missed": _css(MISSED),
            "false_alarm": _css(FALSE_ALARM),
        },
    }


def _patch(evaluation: Evaluation, row: int) -> dict[str, Any]:
    patches = evaluation.patches
    sample, probabilities = patches.dataset.samples[row], patches.shipped[row]
    called = int(evaluation.called[row])
    shown = evaluation.positive if evaluation.binary else called
    return {
        "name": sample.name,
        "case": str(patches.cases[row]),
        "place": f"x {sample.position[0]} y {sample.position[1]}" if sample.position else "",
        "label": evaluation.classes[patches.labels[row]],
        "called": evaluation.classes[called],
        "of": evaluation.classes[shown],
        "probability": f"{np.floor(probabilities[shown] * 1000) / 1000:.3f}",
        "picture": patch_picture(evaluation, row),
    }


def _card(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The card's own words; what is long is written as JSON."""
    values = evaluation.bundle.card.model_dump(mode="json", exclude_none=True)
    return [
        (key, value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False))
        for key, value in values.items()
        if value not in ("", [], {})
    ]


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb{colour}"
