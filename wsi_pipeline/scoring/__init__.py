"""How good predictions are: metrics, curves, intervals, calibration. Arrays in, numbers out."""

from wsi_pipeline.scoring.bootstrap import bootstrap_over_cases, intervals
from wsi_pipeline.scoring.calibration import best_threshold, calibrate, fit_calibration
from wsi_pipeline.scoring.metrics import Scorer, confusion, expected_calibration_error, score
from wsi_pipeline.scoring.overlap import overlap

__all__ = [
    "Scorer",
    "best_threshold",
    "bootstrap_over_cases",
    "calibrate",
    "confusion",
    "expected_calibration_error",
    "fit_calibration",
    "intervals",
    "overlap",
    "score",
]
