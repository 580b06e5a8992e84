"""Train one network on some patches of a data set, with Lightning; go on where an interrupted training stopped."""

import json
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import InferenceError, TrainingError
from wsi_pipeline.files import write_csv, write_json
from wsi_pipeline.machine import memory_is_full
from wsi_pipeline.models.architectures import imagenet_colours, normalises_itself
from wsi_pipeline.models.card import Colours, Triple
from wsi_pipeline.training.data import PatchData
from wsi_pipeline.training.interrupted import RESULT_FILE, check_same, is_helper, quiet
from wsi_pipeline.training.module import HISTORY, Classifier, Normalise
from wsi_pipeline.training.recipe import Recipe
from wsi_pipeline.training.sampling import Indices
from wsi_pipeline.training.start import check_normalisation
from wsi_pipeline.training.teacher import Teacher
from wsi_pipeline.training.trainer import BEST, LAST, Device, hardware, make_trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained network and what it needs to see."""

    network: nn.Module
    """In evaluation mode, on the CPU, float32; averaged where the recipe says so."""
    mean: Triple
    std: Triple
    patch_px: int
    """Side of the field of view."""
    input_px: int
    """Side it is resized to."""
    history: tuple[dict[str, float], ...]
    """A row for each epoch, with the columns `HISTORY`; NaN where nothing was measured. Empty in helper processes."""
    hardware: str
    """Device and precision it was trained with."""


def fit(
    network: nn.Module,
    dataset: PatchDataset,
    train: Indices,
    validation: Indices | None,
    recipe: Recipe,
    *,
    folder: Path,
    colours: Colours | None = None,
    teacher: Teacher | None = None,
    device: Device = "auto",
    devices: int | Literal["auto"] = "auto",
) -> Fitted:
    """Train a network.

    Where `folder` holds the checkpoint of an interrupted training of the same recipe and patches, it goes on after the
    last whole epoch, and ends as if it had not been interrupted.

    Args:
        network: With its first weights; changed in place.
        dataset: All patches.
        train: Indices of the samples that train.
        validation: Indices of those that are measured after each epoch; None for none, and no early stopping.
        recipe: Settings.
        folder: For checkpoints and logs; made where it is missing.
        colours: Mean and deviation of colours that its first weights are used to; None for the data's.
        teacher: Whose word counts beside the labels.
        device: Where to train.
        devices: How many GPUs; "auto" for all. More than one make a process each.

    Raises:
        DatasetError: where nothing can be learnt from the patches, or one cannot be decoded.
        TrainingError: where the loss is not finite, memory is full, or `folder` is of another training.
        ConfigError: where recipe and data do not fit.
    """
    check_same(folder, recipe, dataset, train, validation, colours=colours)
    if (folder / RESULT_FILE).exists():
        return _finished(folder, network, recipe)
    data = PatchData(dataset, train, validation, recipe)
    mean, std = _colours(data, recipe, colours)
    normalise = Normalise(mean, std, recipe.model.input_px or data.side)
    module = Classifier(
        network,
        recipe,
        normalise,
        counts=torch.from_numpy(data.class_counts()),
        positive=dataset.class_names.index(dataset.positive_class),
        steps=data.steps,
        teacher=teacher,
    )
    with quiet(), torch.random.fork_rng():
        trainer = make_trainer(recipe, folder, device, devices, validates=bool(len(data.validation)))
        last = folder / LAST
        if last.exists():
            _load(last)  # a damaged one is told before Lightning stumbles over it
        with _translated():
            trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        facts = {"mean": mean, "std": std, "patch_px": data.side, "input_px": normalise.input_px}
        write_json(folder / RESULT_FILE, {**facts, "hardware": hardware(trainer)})
    return _finished(folder, network, recipe)


def _finished(folder: Path, network: nn.Module, recipe: Recipe) -> Fitted:
    """What a training that is through left in its folder. Helper processes may come here before it is written."""
    if is_helper():
        nothing = (0.0, 0.0, 0.0)
        return Fitted(network=network, mean=nothing, std=nothing, patch_px=0, input_px=0, history=(), hardware="")
    path = folder / LAST
    history = _load(path)["history"]
    if recipe.optimisation.keep == "best" and (folder / BEST).exists():
        path = folder / BEST
    state = _load(path)["state_dict"]
    own = {name: value for name, value in state.items() if name.startswith("network.")}
    network.cpu().load_state_dict({name.removeprefix("network."): value for name, value in own.items()})
    found = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    return Fitted(
        network=network.float().eval().requires_grad_(False),
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        patch_px=found["patch_px"],
        input_px=found["input_px"],
        history=tuple(history),
        hardware=found["hardware"],
    )


def _colours(data: PatchData, recipe: Recipe, first: Colours | None) -> Colours:
    check_normalisation(recipe)
    match "none" if normalises_itself(recipe.model.architecture) else recipe.model.normalisation:
        case "none":
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        case "imagenet":
            return imagenet_colours(recipe.model.architecture)
        case "auto" if first is not None:
            return first
    return data.colours()


def _load(path: Path) -> dict[str, Any]:
    """A checkpoint.

    Raises:
        TrainingError: where it is damaged.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
        why = f"is damaged ({str(error).splitlines()[0]})"
        raise TrainingError(path, why, "Give --restart to begin anew.") from error
    return found


@contextmanager
def _translated() -> Iterator[None]:
    """What may go wrong in Lightning's loop, in this project's errors."""
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    except InferenceError as error:  # what it advises are options of a run
        hint = "Lower optimisation.batch_size, or set precision to 32."
        raise TrainingError("its teacher", f"{error.where}: {error.why}", hint) from error
    except SIGTERMException as error:  # by itself it would end the program with status 0
        log.info("Ended by SIGTERM. The same command goes on where it stopped.")
        raise SystemExit(128 + signal.SIGTERM) from error
    except SystemExit as error:  # Lightning ends the program on Ctrl-C
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from error
    except (RuntimeError, MemoryError) as error:
        if memory_is_full(error):
            hint = "Lower optimisation.batch_size, or data.workers."
            raise TrainingError("training", "memory is full", hint) from error
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise TrainingError("training", f"a reading process died ({error})", "Lower data.workers.") from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write ``history.csv``: a row for each epoch; what was not measured stays empty."""
    rows = ([row[column] for column in HISTORY] for row in history)
    write_csv(
        path,
        HISTORY,
        ([int(epoch), *(None if np.isnan(value) else f"{value:.6g}" for value in values)] for epoch, *values in rows),
    )
