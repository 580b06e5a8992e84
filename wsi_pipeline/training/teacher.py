"""What a trained network says of the patches another one learns from (knowledge distillation, Hinton et al. 2015)."""

from typing import Any, Self

import torch
from torch import Tensor

from wsi_pipeline.config import Precision
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.bundle import ModelBundle


class Teacher:
    """A bundle whose probabilities take the place of a part of each label.

    Args:
        bundle: Of the same classes and patches.
        weight: The part, 0..1.
    """

    def __init__(self, bundle: ModelBundle, weight: float) -> None:
        self._bundle, self._weight = bundle, weight
        self._predictor: Predictor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: copies of the network that learns have the same teacher."""
        return self

    def blend(self, patches: Tensor, targets: Tensor, *, mixed: bool = False) -> Tensor:
        """Targets float32 [n, classes], shares that sum to 1, of labels and the teacher's probabilities.

        Args:
            patches: [n, 3, side, side], 0..255, as the network that learns is shown them.
            targets: float32 [n, classes], shares that sum to 1: the labels.
            mixed: The teacher computes in bfloat16, as the network that learns does. The first call decides.

        Raises:
            InferenceError: where the teacher's network fails.
        """
        fields = patches.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
        if self._predictor is None:
            precision: Precision = "bf16" if mixed else "fp32"
            with torch.random.fork_rng(devices=[]):  # building a network draws weights, and must not shift the pupil's
                self._predictor = Predictor(
                    bundle=self._bundle, device=str(patches.device), batch_size=len(patches), precision=precision
                )
        said = torch.from_numpy(self._predictor.logits(fields)).softmax(1).to(targets.device)
        return targets * (1 - self._weight) + said * self._weight
