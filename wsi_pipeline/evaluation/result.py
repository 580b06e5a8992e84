"""What an evaluation gives: the patches with their probabilities, and the figures of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RESEARCH_USE, EngineName, Precision
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.evaluation.figures import Figures, calibration_figures
from wsi_pipeline.evaluation.maps import Overlaps
from wsi_pipeline.evaluation.predict import Unreadable
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.seen import Seen
from wsi_pipeline.scoring.metrics import call, class_scores

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to evaluate. What the bundle does by itself is the default."""

    threshold: float | None = None
    """Probability from which the positive class of two is called; None for the bundle's, chosen on validation."""
    context: bool | None = None
    """Whether the neighbourhood refines probabilities; None for where the bundle has such a stage."""
    tta: bool = False
    """Mean over the 8 symmetries of the square."""
    whole_slide: bool = False
    """Also measure cases put together again."""
    cases: Collection[str] | None = None
    """These cases only."""
    unseen: bool = False
    """Only cases that neither trained the model nor chose its threshold."""
    out_of_fold: Path | None = None
    """Logits that a training with ``--folds`` kept: measured instead of what the bundle's own network says."""
    thumbs: bool = False
    """Keep a small picture of each patch, for the report's maps."""
    device: str = "auto"
    batch_size: int | None = None
    engine: EngineName = "auto"
    precision: Precision = "auto"
    draws: int = 1000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """The patches that could be read, a row each. Classes are in the evaluation's order: of two, positive last."""

    dataset: PatchDataset
    """In the order of the arrays."""
    labels: NDArray[np.int64]
    cases: NDArray[np.str_]
    """[n]: whose image a patch is from; what is reported one by one."""
    groups: NDArray[np.str_]
    """[n]: case or patient; what the bootstrap draws."""
    uncalibrated: Probabilities
    """[n, classes]: softmax of the network's outputs as they are."""
    calibrated: Probabilities
    """[n, classes]: as the card's temperature and bias say; of a cross-validation, as the other folds' say."""
    shipped: Probabilities
    """[n, classes]: as the model gives them out, refined by the neighbourhood where it does that."""
    refined: bool
    """Whether `shipped` differs from `calibrated`."""
    trained: NDArray[np.bool_]
    """[n]: patches that trained the model, or are of cases that did."""
    validated: NDArray[np.bool_]
    """[n]: the same for those that chose its threshold, its calibration and its epoch."""
    thumbs: NDArray[np.uint8] | None
    """[n, side, side, 3]."""
    unreadable: tuple[Unreadable, ...]
    """Not among the rows."""
    computed: Mapping[str, str]
    """The engine and the precision that computed them; nothing where they were kept."""

    @property
    def unit(self) -> str:
        """What `groups` are: case, patient or slide; ``picture`` where none of these is known."""
        return self.dataset.group_kind

    @property
    def grouped(self) -> bool:
        """Whether the data set knows which patches are of one case."""
        return self.unit != "picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good a bundle is on a data set."""

    bundle: ModelBundle
    options: Options
    classes: tuple[str, ...]
    """Of two, the positive one last."""
    patches: Patches
    threshold: float
    threshold_source: str
    figures: Figures
    """Of the probabilities as the model ships."""
    without_context: Figures | None
    """Where the neighbourhood refined them: of those before."""
    per_case: Mapping[str, Mapping[str, float | None]]
    """Empty where the data set knows no cases."""
    whole_slide: Overlaps | None
    seen: Seen
    warnings: tuple[str, ...]
    """What a reader must know, a sentence each, the gravest first."""

    @property
    def positive(self) -> int:
        """Index of the positive class."""
        return self.classes.index(self.bundle.card.positive_class)

    @property
    def binary(self) -> bool:
        """Whether there are two classes, so that the threshold counts."""
        return len(self.classes) == 2

    @property
    def called(self) -> NDArray[np.int64]:
        """[n]: class called."""
        return call(self.patches.shipped, self.threshold)

    @property
    def positive_fraction(self) -> float:
        """Of the patches."""
        return float((self.patches.labels == self.positive).mean())

    def as_json(self) -> dict[str, Any]:
        """Everything but the patches themselves. No NaN: what is not defined is null."""
        card, patches = self.bundle.card, self.patches
        return {
            "note": RESEARCH_USE,
            "model": {"name": card.name, "digest": self.bundle.digest, "path": str(self.bundle.path)},
            "data": self._data(),
            "warnings": list(self.warnings),
            "patches": len(patches.labels),
            "cases": len(np.unique(patches.cases)) if patches.grouped else None,
            "interval_unit": patches.unit,
            "positive_fraction": round(self.positive_fraction, 6),
            "class_names": list(self.classes),
            "positive_class": card.positive_class,
            "threshold": self.threshold if self.binary else None,
            "threshold_source": self.threshold_source,
            **self.figures.as_json(),
            "per_class": dict(zip(self.classes, class_scores(self.figures.confusion), strict=True)),
            "per_case": self.per_case,
            "calibration": self._calibration(),
            "without_context": self.without_context.as_json() if self.without_context else None,
            "whole_slide": self.whole_slide.as_json() if self.whole_slide else None,
            "split": {"known": self.seen.known, "leaky": self.seen.leaky},
            "seen_in_training": self._seen(patches.trained),
            "seen_in_validation": self._seen(patches.validated),
            "unreadable": [{"name": bad.name, "why": bad.why} for bad in patches.unreadable],
            "options": self._options(),
        }

    def _data(self) -> dict[str, Any]:
        dataset = self.patches.dataset
        return {
            "root": dataset.root,
            "layout": dataset.layout,
            "patch_size_px": [dataset.patch_size.width, dataset.patch_size.height],
            "mpp": dataset.mpp,
            "findings": list(dataset.findings),
        }

    def _calibration(self) -> dict[str, Any]:
        card, patches = self.bundle.card, self.patches
        bias = [0.0] * len(self.classes) if card.bias is None else card.bias
        found: dict[str, Any] = {
            "temperature": card.temperature,
            "bias": dict(zip(card.class_names, bias, strict=True)),
            "before": calibration_figures(patches.labels, patches.uncalibrated),
            "after": calibration_figures(patches.labels, patches.calibrated),
        }
        if self.options.out_of_fold is not None:
            found["fitted_on"] = "temperature and bias: all folds; after: the other folds of each patch"
        if patches.refined:
            found["after_context"] = calibration_figures(patches.labels, patches.shipped)
        return found

    def _seen(self, marked: NDArray[np.bool_]) -> dict[str, Any]:
        cases = np.unique(self.patches.cases[marked]).tolist() if self.patches.grouped else []
        return {"count": len(cases), "cases": cases, "patches": int(marked.sum())}

    def _options(self) -> dict[str, Any]:
        options = self.options
        return {
            "context": self.patches.refined,
            "tta": options.tta,
            **self.patches.computed,
            "unseen": options.unseen,
            "out_of_fold": None if options.out_of_fold is None else str(options.out_of_fold),
            "cases_chosen": options.cases is not None,
            "bootstrap_draws": options.draws,
            "bootstrap_seed": options.seed,
        }
