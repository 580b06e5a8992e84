"""How good a bundle is on labelled patches: metrics with intervals, a report that a person reads."""

from wsi_pipeline.evaluation.evaluate import evaluate
from wsi_pipeline.evaluation.result import Evaluation, Options

__all__ = ["Evaluation", "Options", "evaluate"]
