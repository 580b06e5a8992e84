"""int8 against fp32 on the same patches: figures of both, and how sure the difference is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.evaluation.figures import rounded
from wsi_pipeline.scoring.bootstrap import intervals
from wsi_pipeline.scoring.metrics import Scorer, call

SHOWN = ("auroc", "balanced_accuracy", "ece")
FLIPS = "flipped_labels"


def compare(
    labels: NDArray[np.int64],
    fp32: NDArray[np.float32],
    int8: NDArray[np.float32],
    groups: NDArray[np.str_],
    threshold: float,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both, and their difference patch by patch.

    Args:
        labels: [n].
        fp32: Probabilities [n, classes] of the fp32 network; of two classes the positive one last.
        int8: The same of the int8 network.
        groups: [n], case of each patch.
        threshold: From which the positive class of two is called.
        draws: Of the bootstrap over cases.
        seed: Of its draws.

    Returns:
        JSON-able: ``fp32``, ``int8`` and ``difference`` (int8 - fp32) by metric, ``flipped_labels`` (part of the
        patches that are called otherwise), mean and largest difference of a probability, and in ``interval_95`` the
        95 % intervals of the differences and of the flips, drawing whole cases.
    """
    before, after = Scorer(labels, fp32, threshold), Scorer(labels, int8, threshold)
    flipped = call(fp32, threshold) != call(int8, threshold)
    apart = np.abs(int8 - fp32).max(axis=1)

    def differences(weights: NDArray[np.float64]) -> dict[str, float]:
        one, other = before(weights), after(weights)
        found = {key: other[key] - one[key] for key in SHOWN if key in one and key in other}
        return found | {FLIPS: float(weights @ flipped / weights.sum())}

    ranges = intervals(differences, groups, draws=draws, seed=seed, progress="bootstrap")
    found = differences(np.ones(len(labels)))
    return {
        "fp32": {key: rounded(before().get(key)) for key in SHOWN},
        "int8": {key: rounded(after().get(key)) for key in SHOWN},
        "difference": {key: rounded(found.get(key)) for key in SHOWN},
        FLIPS: rounded(found[FLIPS]),
        "probability_difference": {"mean": rounded(apart.mean()), "largest": rounded(apart.max())},
        "interval_95": {key: rounded(ranges.get(key)) for key in (*SHOWN, FLIPS)},
    }
