"""The plain path, step by step, that every engine is held to; and networks small enough to try them all."""

from dataclasses import replace
from uuid import uuid4

import numpy as np
import torch
from torch.nn import functional

from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.models.ensemble import Ensemble

CPU = "cpu"


def plain_probabilities(bundle, fields):
    """Probabilities float64 [n, classes] by the bundle's own network: nothing folded, nothing filled up."""
    card = bundle.card
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (card.mean, card.std))
    images = torch.from_numpy(((fields.transpose(0, 3, 1, 2) / np.float32(255)) - mean) / std)
    if card.input_px != card.patch_size_px:
        side = (card.input_px, card.input_px)
        images = functional.interpolate(images, side, mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        logits = bundle.build()(images).double().numpy()
    logits = logits / card.temperature + np.array(card.bias or [0.0] * len(card.class_names))
    spread = np.exp(logits - logits.max(1, keepdims=True))
    return spread / spread.sum(1, keepdims=True)


def bundle_of(architecture, classes=2, **card):
    """A bundle of random weights whose batch norms all do something."""
    torch.manual_seed(0)
    network = build_network(architecture, classes).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    shipped = load_bundle("idc-resnet18")
    names = tuple(f"class {n}" for n in range(classes))
    own = {"architecture": architecture, "class_names": names, "positive_class": names[-1], "context": None}
    own |= {"quantization": None}
    if architecture == "idc-residual-7ch":
        own |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    state = network.state_dict()
    # Logits of random weights are large: the temperature and biases bring them to where probabilities differ.
    with torch.inference_mode():
        logits = network(torch.rand(8, 3, 50, 50))
    temperature = float((logits - logits[:, :1]).std())
    bias = tuple((-(logits - logits[:, :1]).mean(0) / temperature).tolist())
    own |= {"temperature": temperature, "bias": bias}

    def build():
        again = build_network(architecture, classes).eval()
        again.load_state_dict(state)
        return again

    return replace(shipped, card=shipped.card.model_copy(update=own | card), digest=uuid4().hex, build=build)


def ensemble_of(*members):
    """An ensemble, as `open_ensemble` makes it, of bundles that lie nowhere."""
    from wsi_pipeline.models.ensemble import Member

    first = members[0].card
    own = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "input_px": first.patch_size_px, "temperature": 1.0, "bias": None}
    return replace(
        members[0],
        card=first.model_copy(update=own),
        digest=uuid4().hex,
        build=lambda: Ensemble([Member(member.build(), member.card) for member in members]).eval(),
    )


def random_fields(count, size=50, seed=0):
    """Noise, and flat colours, black and white among them: the borders of the first convolution show there."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    fields[1::3] = rng.integers(0, 256, (len(fields[1::3]), 1, 1, 3))
    fields[0], fields[-1] = 0, 255
    return fields
