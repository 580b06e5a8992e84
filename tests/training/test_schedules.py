"""Freezing and unfreezing: the schedule as a pure function, and what it does to a network."""

import pytest
import torch

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.training.recipe import Stage, load_recipe
from wsi_pipeline.training.schedules import freeze, named_stages, stage_names, trained_at

NAMES = stage_names(5)


def test_stages_are_named_from_the_input_on():
    assert NAMES == ("stem", "layer1", "layer2", "layer3", "layer4", "head")


def test_what_trains_is_what_was_said_last():
    stages = (
        Stage(epoch=1, train="all"), Stage(epoch=4, train="head"), Stage(epoch=6, train=("layer4", "head")),
        Stage(epoch=9, train="trunk"),
    )  # fmt: skip
    found = {epoch: trained_at(stages, epoch, NAMES) for epoch in range(1, 11)}
    assert found[1] == found[3] == set(NAMES)
    assert found[4] == found[5] == {"head"}
    assert found[6] == found[8] == {"layer4", "head"}
    assert found[9] == found[10] == set(NAMES) - {"head"}
    assert trained_at((), 7, NAMES) == set(NAMES)


def test_an_unknown_stage_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="'layer5' is no stage") as caught:
        trained_at((Stage(epoch=1, train="all"), Stage(epoch=9, train="layer5")), 1, NAMES)
    assert "layer4" in caught.value.hint


def test_the_shipped_schedule_fits_its_network():
    recipe = load_recipe("breakhis-resnet50")
    names = stage_names(5)
    assert trained_at(recipe.optimisation.stages, 1, names) == set(names)
    assert trained_at(recipe.optimisation.stages, recipe.optimisation.epochs, names) == {"layer4", "head"}


@pytest.mark.parametrize("architecture", ["torchvision/resnet18", "idc-cnn", "idc-residual-7ch"])
def test_a_frozen_stage_learns_nothing_and_its_norms_rest(architecture):
    torch.manual_seed(0)
    network = build_network(architecture, 2).train()
    names = tuple(named_stages(network))
    freeze(network, {"head"})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.rand(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    head = named_stages(network)["head"]
    assert changed
    assert all(
        any(value is p for p in head.parameters()) for name, value in network.named_parameters() if name in changed
    )
    assert len(changed) == len(list(head.parameters()))
    freeze(network, names)
    assert all(p.requires_grad for p in network.parameters())
    assert all(module.training for module in named_stages(network).values())
