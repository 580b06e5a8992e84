"""A bundle with everything: a network that symmetries move, and a second stage."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from helpers import write_bundle_of

from wsi_pipeline.context import Context
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.bundle import load_bundle

CONTEXT = Context(sigmas=(0.7, 2.0), shrink=1.0, intercept=-0.2, own=0.6, near=(0.5, 0.3), trust=(-0.1, 0.1))


class Corner(torch.nn.Module):
    """Logit of class 1: 12 times (mean red of the top left quarter - 0.75), red in 0..1 before normalisation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        logit = 12.0 * (x[:, 0, :half, :half].mean(dim=(1, 2)) - 0.75)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def write_corner_bundle(folder: Path) -> Path:
    """`Corner` at 40x; `load_with_context` adds the second stage, for which WSInfer's form has no room."""
    return write_bundle_of(folder, Corner(), size_px=50, mpp=0.25)


def load_with_context(name: str | Path) -> ModelBundle:
    """`load_bundle` for a bundle that has a second stage."""
    bundle = load_bundle(name)
    digest = sha256(f"{bundle.digest} with context".encode()).hexdigest()
    return replace(bundle, card=bundle.card.model_copy(update={"context": CONTEXT}), digest=digest)


def add_context() -> None:
    """Let every bundle that a run of this process loads have the second stage, from now on."""
    from wsi_pipeline.pipeline import batch, model

    batch.load_bundle = model.load_bundle = load_with_context
