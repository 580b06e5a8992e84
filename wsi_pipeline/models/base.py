"""What every bundle is, whichever form its folder has; its network, and PyTorch with it, waits until it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.errors import BundleError
from wsi_pipeline.geometry import FieldOfView
from wsi_pipeline.models.card import Card

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """A network with its geometry, its normalisation and its threshold."""

    card: Card
    path: Path
    digest: str
    """SHA-256 (hex) over card and weights, an ensemble's members included."""
    build: "Callable[[], nn.Module]"
    """Makes the network, float32 on the CPU in eval mode: [n, 3, input_px, input_px] -> logits [n, classes].

    Cheap (a tenth of a second for a ResNet-18), so that it can also serve to check that weights and card fit.

    An ensemble's is an `ensemble.Ensemble`, which can also give each member's probabilities.
    """

    @property
    def int8(self) -> Path | None:
        """The int8 network's graph for OpenVINO; None where the bundle has none."""
        return self.path / self.card.quantization.file if self.card.quantization else None

    @property
    def view(self) -> FieldOfView:
        """What the network sees of a slide.

        Raises:
            BundleError: where the card gives no resolution.
        """
        if self.card.mpp is None:
            raise BundleError(
                self.path,
                "was trained at several magnifications and fits no slide (its card's mpp is null)",
                "Use it on patches, or train one at a single magnification.",
            )
        return FieldOfView(size_px=self.card.patch_size_px, mpp=self.card.mpp)

    @property
    def positive(self) -> int:
        """Index of the class that the heatmap is about."""
        return self.card.class_names.index(self.card.positive_class)


def check_sha256(path: Path, expected: str) -> str:
    """The SHA-256 (hex) of a file, which must be the one on the card.

    Raises:
        BundleError: where it is not, or the file cannot be read.
    """
    found = file_sha256(path)
    if found != expected:
        raise BundleError(
            path,
            f"its SHA-256 is {found[:12]}…, the card says {expected[:12]}…",
            "The weights were altered or damaged: copy the bundle again.",
        )
    return found


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file of weights.

    Raises:
        BundleError: where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(
            path, f"cannot be read ({error.strerror})", "The bundle is incomplete: copy it again."
        ) from error
