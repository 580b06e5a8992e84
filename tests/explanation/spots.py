"""A network whose evidence is known place by place, pictures with red and blue spots for it, and words on sheets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_bundle_of
from numpy.typing import NDArray
from torch import nn

from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.models.card import Card, Threshold, Weights
from wsi_pipeline.sheet import Sheet

CELL, GAIN, FAINTEST = 10, 40.0, 0.2
SIDE = 50
RED, BLUE, TISSUE = (230, 60, 60), (60, 60, 230), (176, 96, 170)


class Spots(nn.Module):
    """Positions of 10 x 10 px: channel 0 is how much redder than its other colours, channel 1 how much bluer.

    The logits are GAIN times the channels' means, blue first; so red speaks for class 1, blue for class 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, CELL, CELL)
        self.pool, self.flat, self.last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False)
        weight = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])[..., None, None] / CELL**2
        with torch.no_grad():
            self.conv.weight.copy_(weight.expand(2, 3, CELL, CELL))
            self.conv.bias.fill_(-FAINTEST)
            self.last.weight.copy_(GAIN * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.flat(self.pool(torch.relu(self.conv(x)))))


def spot_evidence(fields: NDArray[np.uint8], class_index: int = 1) -> NDArray[np.float64]:
    """[n, rows, cols]: Grad-CAM of `Spots` at its positions, by numpy."""
    cells = fields.reshape(len(fields), SIDE // CELL, CELL, SIDE // CELL, CELL, 3).mean((2, 4)) / 255
    red, green, blue = np.moveaxis(cells, -1, 0)
    redder = np.maximum(red - (green + blue) / 2 - FAINTEST, 0)
    bluer = np.maximum(blue - (red + green) / 2 - FAINTEST, 0)
    return np.maximum(GAIN * (redder - bluer) * (1 if class_index else -1), 0)


def write_spots_bundle(folder: Path, *, mpp: float = 4.0) -> Path:
    return write_bundle_of(folder, Spots(), size_px=SIDE, mpp=mpp)


def spots_bundle(folder: Path) -> ModelBundle:
    return load_bundle(write_spots_bundle(folder))


def blank(count: int = 1) -> NDArray[np.uint8]:
    """Patches of plain tissue, in which `Spots` sees nothing."""
    return np.full((count, SIDE, SIDE, 3), TISSUE, np.uint8)


def with_spot(row: int, col: int, colour: tuple[int, int, int] = RED) -> NDArray[np.uint8]:
    """One patch whose position (row, col), of 5 x 5, is of another colour."""
    patch = blank()
    patch[0, row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL] = colour
    return patch


def card_for(**changes) -> Card:
    values = {
        "name": "made up",
        "architecture": "torchvision/resnet18",
        "class_names": ("other", "IDC"),
        "positive_class": "IDC",
        "patch_size_px": 50,
        "mpp": 4.0,
        "input_px": 50,
        "mean": (0.5, 0.4, 0.5),
        "std": (0.2, 0.2, 0.2),
        "threshold": Threshold(value=0.5, chosen="for the test"),
        "weights": Weights(sha256="0" * 64),
    }
    return Card.model_validate(values | changes)


def bundle_of(make: Callable[[], nn.Module], **changes) -> ModelBundle:
    """A network made in memory with a card of one's own."""
    return ModelBundle(card=card_for(**changes), path=Path("made up"), digest="ab" * 32, build=make)


def noise(count: int, side: int = 50, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def places_of_words(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Fills with where each text of the sheets drawn from now on stands, (x, y) in px of the page."""
    placed: dict[str, tuple[int, int]] = {}
    original = Sheet.text

    def text(self: Sheet, x: float, y: float, words: str, **more) -> None:
        placed[words] = round(x), round(y)
        original(self, x, y, words, **more)

    monkeypatch.setattr(Sheet, "text", text)
    return placed
