"""Freezing and unfreezing: which stages of a network train in which epoch."""

from collections.abc import Collection, Sequence

from torch import nn

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.models.architectures import trunk_and_head
from wsi_pipeline.training.recipe import Stage


def stage_names(trunk: int) -> tuple[str, ...]:
    """Names of the stages of a network from the input on: ``stem``, ``layer1`` …, ``head``.

    Args:
        trunk: How many stages come before the head.
    """
    return ("stem", *(f"layer{n}" for n in range(1, trunk)), "head")


def trained_at(stages: Sequence[Stage], epoch: int, names: Sequence[str]) -> frozenset[str]:
    """Names of the stages that train in an epoch.

    Args:
        stages: The schedule, by rising epoch; empty for all stages throughout.
        epoch: Counted from 1.
        names: Of all stages of the network, as of `stage_names`.

    Raises:
        ConfigError: where the schedule names a stage that the network has not.
    """
    known = {"all": names, "trunk": names[:-1], **{name: (name,) for name in names}}
    for stage in stages:
        for name in stage.train:
            if name not in known:
                hint = f"This network has {', '.join(known)}."
                raise ConfigError("optimisation.stages", f"{name!r} is no stage of the network", hint)
    current = next((stage for stage in reversed(stages) if stage.epoch <= epoch), None)
    return frozenset(names if current is None else (part for name in current.train for part in known[name]))


def named_stages(network: nn.Module) -> dict[str, nn.Module]:
    """The stages of a network by name, from the input on."""
    trunk, head = trunk_and_head(network)
    return dict(zip(stage_names(len(trunk)), [*trunk, head], strict=True))


def freeze(network: nn.Module, trained: Collection[str]) -> None:
    """Train these stages only. Frozen ones get no gradient, and their batch norms and dropout rest as in inference.

    To be called after ``network.train()``, which wakes them all.
    """
    for name, stage in named_stages(network).items():
        trains = name in trained
        stage.train(trains)
        for parameter in stage.parameters():
            parameter.requires_grad_(trains)
