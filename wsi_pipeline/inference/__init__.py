"""From the pixels of blocks to probabilities and how far they spread, on CPU, CUDA or MPS."""

from wsi_pipeline.inference.devices import choose_device
from wsi_pipeline.inference.network import choose, default_batch
from wsi_pipeline.inference.predictor import Predictor, ScoredBlock, Seconds

__all__ = ["Predictor", "ScoredBlock", "Seconds", "choose", "choose_device", "default_batch"]
