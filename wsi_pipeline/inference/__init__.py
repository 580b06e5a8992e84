"""From the pixels of blocks to probabilities and how far they spread, on CPU, CUDA or MPS."""

from wsi_pipeline.inference.devices import choose_device
from wsi_pipeline.inference.network import DEFAULT_BATCH, choose
from wsi_pipeline.inference.predictor import Predictor, ScoredBlock, Seconds

__all__ = ["DEFAULT_BATCH", "Predictor", "ScoredBlock", "Seconds", "choose", "choose_device"]
