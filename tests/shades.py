"""Labelled patches of one red shade each, and a model whose answer to them is a formula."""

from collections.abc import Collection, Sequence

import numpy as np
from helpers import GAIN, Redness
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import Card, Threshold, Weights


class Shades(PatchDataset):
    """Patches in memory. Their number stands in their name, so that subsets find their pixels again."""

    layout, root = "idc", "shades"
    findings: tuple[str, ...] = ()

    def __init__(
        self,
        reds: Sequence[int],
        labels: Sequence[int],
        cases: Sequence[str],
        *,
        positions: Sequence[tuple[int, int]] | None = None,
        class_names: tuple[str, ...] = ("non-IDC", "IDC"),
        positive_class: str = "IDC",
        patch_size: Size = Size(50, 50),  # noqa: B008 - frozen
        mpp: float | None = 4.0,
        group_kind: str = "case",
        broken: Collection[int] = (),
    ) -> None:
        self.class_names, self.positive_class = class_names, positive_class
        self.patch_size, self.mpp, self.group_kind = patch_size, mpp, group_kind
        self.reds, self.broken = tuple(reds), frozenset(broken)
        self.samples = tuple(
            Sample(name=f"{case}/{n}.png", label=label, group=case, position=positions[n] if positions else None)
            for n, (label, case) in enumerate(zip(labels, cases, strict=True))
        )

    def read(self, index: int) -> NDArray[np.uint8]:
        name = self.samples[index].name
        number = int(name.rsplit("/", 1)[1].removesuffix(".png"))
        if number in self.broken:
            raise DatasetError(name, "is no readable image", "Copy it again.")
        pixels = np.full((self.patch_size.height, self.patch_size.width, 3), 128, np.uint8)
        pixels[..., 0] = self.reds[number]
        return pixels


def margins(reds: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Logit of class 1 less logit of class 0."""
    return GAIN * (np.asarray(reds) / 255 - 0.5)


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


def red_bundle(folder, **changes) -> ModelBundle:
    """`Redness` with a card of one's own."""
    values = {
        "name": "red",
        "architecture": "torchvision/resnet18",
        "class_names": ("non-IDC", "IDC"),
        "positive_class": "IDC",
        "patch_size_px": 50,
        "mpp": 4.0,
        "input_px": 50,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "threshold": Threshold(value=0.4, chosen="for the test"),
        "weights": Weights(sha256="0" * 64),
    }
    card = Card.model_validate(values | changes)
    return ModelBundle(card=card, path=folder, digest="ab" * 32, build=lambda: Redness().eval())


def some_patches(seed: int = 0, cases: int = 6, per_case: int = 12, **more) -> Shades:
    """Redder where labelled IDC, on a grid of 4 columns in each case."""
    rng = np.random.default_rng(seed)
    count = cases * per_case
    labels = rng.integers(0, 2, count)
    labels[:2] = 0, 1
    reds = np.clip(rng.normal(115 + 30 * labels, 30), 0, 255).astype(int)
    names = [f"c{n // per_case}" for n in range(count)]
    positions = [(n % per_case % 4 * 50, n % per_case // 4 * 50) for n in range(count)]
    return Shades(reds.tolist(), labels.tolist(), names, **{"positions": positions} | more)
