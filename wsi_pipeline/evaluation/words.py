"""How figures are named and written for people."""

from collections.abc import Sequence
from typing import Any

from wsi_pipeline.evaluation.result import Evaluation
from wsi_pipeline.render.page import percent
from wsi_pipeline.wording import counted

NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "accuracy": "Accuracy",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "precision": "Precision (PPV)",
    "negative_predictive_value": "Precision of the others (NPV)",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}
"""Metrics in the order to show them."""

NAMES_OF_MANY = NAMES | {
    "auroc": "AUROC (mean, one against the rest)",
    "average_precision": "Average precision (mean)",
    "f1": "F1 (mean)",
    "recall": "Recall (mean)",
    "specificity": "Specificity (mean)",
    "precision": "Precision (mean)",
}
"""The same where there are more than two classes."""

OVERLAP_NAMES = {
    "dice": "Dice",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
}


def names_of(evaluation: Evaluation) -> dict[str, str]:
    """Titles of the metrics by key."""
    if evaluation.binary:
        return NAMES
    return {key: name for key, name in NAMES_OF_MANY.items() if key != "negative_predictive_value"}


def data_line(evaluation: Evaluation) -> str:
    """What was evaluated on, in one line."""
    patches = evaluation.patches
    count = f"{len(patches.labels):,} patches"
    if patches.grouped:
        count += f" of {counted(len(set(patches.groups.tolist())), patches.unit)}"
    if not evaluation.binary:
        return count
    return f"{count}, {percent(evaluation.positive_fraction)} {evaluation.bundle.card.positive_class}"


def threshold_line(evaluation: Evaluation) -> str:
    """From which probability what is called, and who says so."""
    if not evaluation.binary:
        return "the most probable class is called"
    name = evaluation.bundle.card.positive_class
    return f"{name} from {evaluation.threshold:g} ({evaluation.threshold_source})"


def table(rows: Sequence[Sequence[Any]], *, gap: str = "  ") -> list[str]:
    """Rows of cells as lines with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(str(row[n])) for row in rows) for n in range(len(rows[0]))]
    return [
        gap.join(
            str(cell).ljust(width) if n == 0 else str(cell).rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
