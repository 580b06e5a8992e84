"""The losses against torch's and scikit-learn's own."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from wsi_pipeline.training.losses import class_weights, penalty, soft_loss
from wsi_pipeline.training.recipe import OptimisationSettings

LOGITS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 4
ONE_HOT = torch.eye(4)[LABELS]


def mean_loss(**given) -> float:
    total, weight = soft_loss(LOGITS, ONE_HOT, **{"weights": torch.ones(4), **given})
    return (total / weight).item()


def test_the_loss_is_the_cross_entropy():
    assert mean_loss() == pytest.approx(functional.cross_entropy(LOGITS, LABELS).item())
    weights = torch.tensor([0.5, 1, 2, 4])
    expected = functional.cross_entropy(LOGITS, LABELS, weight=weights).item()
    assert mean_loss(weights=weights) == pytest.approx(expected)
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1).item()
    assert mean_loss(smoothing=0.1) == pytest.approx(expected)


def test_shares_of_classes_weigh_as_torch_weighs_them():
    shares = torch.softmax(torch.randn(30, 4, generator=torch.Generator().manual_seed(1)), 1)
    total, weight = soft_loss(LOGITS, shares, weights=torch.ones(4))
    assert (total / weight).item() == pytest.approx(functional.cross_entropy(LOGITS, shares).item(), rel=1e-5)


def test_a_sigmoid_network_has_the_binary_cross_entropy():
    z = LOGITS[:, :1]
    total, weight = soft_loss(torch.cat([torch.zeros_like(z), z], 1), torch.eye(2)[LABELS % 2], weights=torch.ones(2))
    expected = functional.binary_cross_entropy_with_logits(z[:, 0], (LABELS % 2).float())
    assert (total / weight).item() == pytest.approx(expected.item())


def test_focal_loss_is_that_of_its_paper():
    p = torch.softmax(LOGITS, 1)[torch.arange(30), LABELS]
    assert mean_loss(gamma=2.0) == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_focal_loss_has_a_slope_where_the_network_is_sure(gamma):
    logits = torch.tensor([[30.0, -30.0], [0.0, 0.0]], requires_grad=True)
    total, _ = soft_loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), weights=torch.ones(2), gamma=gamma)
    total.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0].abs().max() < 1e-3 < logits.grad[1].abs().min()


def test_balanced_weights_are_scikit_learn_s():
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    found = class_weights(torch.bincount(torch.from_numpy(labels)), OptimisationSettings(class_weights="balanced"))
    assert found.numpy() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=labels))
    assert class_weights(torch.tensor([5, 0, 5]), OptimisationSettings(class_weights="balanced")).tolist() == [1, 0, 1]
    assert class_weights(torch.tensor([5, 1]), OptimisationSettings()).tolist() == [1, 1]


def test_penalties_are_on_kernels_that_train():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    kernels = [network[0].weight, network[2].weight]
    expected = sum(0.1 * k.abs().sum() + 0.01 * k.square().sum() for k in kernels)
    assert float(penalty(network, l1=0.1, l2=0.01).detach()) == pytest.approx(expected.item())
    network[0].weight.requires_grad_(False)
    assert float(penalty(network, l1=0.1, l2=0.0).detach()) == pytest.approx(0.1 * kernels[1].abs().sum().item())
