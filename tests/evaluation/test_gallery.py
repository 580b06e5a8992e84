import numpy as np
import pytest
from shades import Shades, margins, red_bundle, sigmoid

from wsi_pipeline.evaluation import Options, evaluate
from wsi_pipeline.evaluation.gallery import MOST, groups


@pytest.fixture
def evaluation(tmp_path):
    rng = np.random.default_rng(0)
    reds, labels = rng.integers(0, 256, 200), rng.integers(0, 2, 200)
    dataset = Shades(reds.tolist(), labels.tolist(), [f"c{n % 10}" for n in range(200)])
    return evaluate(red_bundle(tmp_path), dataset, Options(draws=5, device="cpu"))


def test_the_surest_of_each_kind_come_first_and_few_of_a_case(evaluation):
    p, labels = sigmoid(margins(evaluation.patches.dataset.reds)), evaluation.patches.labels
    kinds = {"False alarms": (0, 1), "Missed": (1, 0), "Rightly called IDC": (1, 1), "Rightly called non-IDC": (0, 0)}
    found = groups(evaluation)
    assert len(found) == 4
    for group, (title, (label, called)) in zip(found, kinds.items(), strict=True):
        assert group.title.startswith(title)
        rows = list(group.rows)
        members = (labels == label) & ((p >= 0.4) == called)
        assert group.total == members.sum()
        assert members[rows].all()
        assert len(rows) == MOST
        sure = p[rows] if called else -p[rows]
        assert (np.diff(sure) <= 1e-6).all()
        assert sure[0] == pytest.approx((p if called else -p)[members].max())
        assert np.unique(evaluation.patches.cases[rows], return_counts=True)[1].max() <= 2
