"""Grad-CAM (Selvaraju et al., ICCV 2017): where in a field of view the network finds its evidence for a class.

The channels of the last convolutional stage are weighed by how much each, on average over the field, raises the class's
log-odds; their weighted sum, cut off below zero, is a map of evidence. It is as coarse as that stage (2 x 2 positions
for a ResNet-18 on 50 px) and is enlarged to the field of view, each position covering its equal share of it.

That last step is not quite true: strides and padding move what a position sees by up to half its share, always to the
same side, and a network may weigh the lower half of its field more than the upper one. Tissue has no upright position,
so maps are the mean over the 8 symmetries of the square, each turned back: then the offsets cancel, and turned tissue
gives the same map, turned.

The unit is made to mean something: a position's value is what it would add to the class's calibrated log-odds,
``log(p / (1 - p))``, if the whole field looked like it (for networks that end in global average pooling and one linear
layer; elsewhere to first order). So maps of different fields, sizes and networks have one scale.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from wsi_pipeline.errors import BundleError, ConfigError, InferenceError
from wsi_pipeline.explanation.script import open_script
from wsi_pipeline.inference import default_batch
from wsi_pipeline.inference.devices import Device
from wsi_pipeline.inference.torch_arrays import symmetries
from wsi_pipeline.machine import memory_is_full
from wsi_pipeline.models.architectures import gradcam_layer
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import Card
from wsi_pipeline.models.ensemble import Ensemble, Member


def gradcam(
    bundle: ModelBundle,
    fields: NDArray[np.uint8],
    class_index: int,
    device: Device,
    *,
    symmetries: bool = True,
    batch_size: int | None = None,
) -> NDArray[np.float32]:
    """Grad-CAM of fields of view; see `GradCam` for many calls with one bundle.

    Args:
        bundle: The model; of an ensemble, the maps are the mean of its members', by its own temperature.
        fields: uint8 RGB [n, size_px, size_px, 3].
        class_index: Into the card's `class_names`.
        device: Where the network runs.
        symmetries: Take the mean over the 8 symmetries of the square; without it, this is Grad-CAM as it was published.
        batch_size: Fields at once; None chooses by device and size.

    Returns:
        float32 [n, size_px, size_px], at least 0, in log-odds.

    Raises:
        BundleError: where the network has no convolutional stage that can be looked at.
        ConfigError: where there is no such class.
        InferenceError: where the network fails or a map is not finite.
    """
    return GradCam(bundle, device, symmetries=symmetries, batch_size=batch_size).maps(fields, class_index)


class GradCam:
    """A bundle's networks, ready to be explained.

    Args:
        bundle: The model.
        device: Where the network runs.
        symmetries: See `gradcam`.
        batch_size: Fields at once; None chooses by device and size.

    Raises:
        BundleError: where a network has no convolutional stage that can be looked at.
    """

    def __init__(
        self, bundle: ModelBundle, device: Device, *, symmetries: bool = True, batch_size: int | None = None
    ) -> None:
        self.bundle, self.device = bundle, device
        self._symmetries, self._batch_size = symmetries, batch_size
        members, self._temperature = _members(bundle)
        self._members = [_Explained(member, bundle, device) for member in members]

    @property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """(rows, cols) of the maps before they are enlarged, each size once; empty before the first call of `maps`."""
        return tuple(sorted({member.positions for member in self._members if member.positions}))

    def maps(self, fields: NDArray[np.uint8], class_index: int) -> NDArray[np.float32]:
        """Evidence for a class; see `gradcam` for arguments, result and errors."""
        card = self.bundle.card
        if not 0 <= class_index < len(card.class_names):
            raise ConfigError("class", f"{class_index} is no class of {card.name}", f"It has {list(card.class_names)}.")
        side, found = card.patch_size_px, np.empty(fields.shape[:3], np.float32)
        batch = self._batch_size or default_batch(card, self.device, max(1, len(fields)))
        for start in tqdm(range(0, len(fields), batch), "Grad-CAM", disable=None, leave=False, delay=2):
            part = torch.from_numpy(fields[start : start + batch]).to(self.device)
            rgb = part.permute(0, 3, 1, 2).float() / 255
            maps = [self._evidence(member, rgb, class_index, side) for member in self._members]
            found[start : start + batch] = (torch.stack(maps).mean(0) / self._temperature).cpu().numpy()
        return found

    def _evidence(self, member: "_Explained", rgb: Tensor, class_index: int, side: int) -> Tensor:
        if not self._symmetries:
            return member.evidence(rgb, class_index, side)
        turned = [member.evidence(form.contiguous(), class_index, side) for form in symmetries(rgb, (-2, -1))]
        return torch.stack([_turn_back(evidence, n) for n, evidence in enumerate(turned)]).mean(0)


class _Explained:
    """One network and the stage of it that is looked at."""

    def __init__(self, member: Member, bundle: ModelBundle, device: Device) -> None:
        self._where = f"network {bundle.card.name}"
        self._member = member.to(device).eval().requires_grad_(False)
        if isinstance(member.network, torch.jit.ScriptModule):
            member.network = script = open_script(member.network, bundle.path)
            self._stage: nn.Module = script.stage
        else:
            self._stage = gradcam_layer(member.network)
        self.positions: tuple[int, int] | None = None

    def evidence(self, rgb: Tensor, class_index: int, side: int) -> Tensor:
        """float32 [n, side, side] for RGB in 0..1, [n, 3, side, side]."""
        from captum.attr import LayerAttribution, LayerGradCam

        def score(batch: Tensor) -> Tensor:
            return log_odds(self._member(batch), class_index)

        try:
            coarse = LayerGradCam(score, self._stage).attribute(rgb, relu_attributions=True).detach().float()
        except (RuntimeError, MemoryError, AssertionError) as error:  # captum asserts where the stage gives no tensor
            if memory_is_full(error):
                hint = "Try a smaller --batch-size."
                raise InferenceError(self._where, "the device's memory is full", hint) from error
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InferenceError(self._where, f"cannot be explained ({reason})") from error
        if coarse.ndim != 4:
            raise BundleError(
                self._where,
                f"its last stage gives {list(coarse.shape)}, which is no map",
                "Grad-CAM explains convolutional networks only.",
            )
        if not coarse.isfinite().all():
            raise InferenceError(self._where, "gave evidence that is not finite", "The weights are damaged.")
        self.positions = (coarse.shape[2], coarse.shape[3])
        # The mean over positions of what captum sums: without it, finer maps would have smaller values.
        per_field = coarse * (coarse.shape[2] * coarse.shape[3])
        return LayerAttribution.interpolate(per_field, (side, side), "bilinear")[:, 0]  # type: ignore[no-any-return]


def _turn_back(maps: Tensor, form: int) -> Tensor:
    """[n, side, side] of the form number `form` of `symmetries`, as the field itself lies."""
    mirrored, quarters = divmod(form, 4)
    back = torch.rot90(maps, -quarters, (-2, -1))
    return back.flip(-1) if mirrored else back


def log_odds(log_probabilities: Tensor, class_index: int) -> Tensor:
    """``log(p / (1 - p))`` of one class, [n], from the logarithms of all classes' probabilities, [n, classes].

    Unlike a single logit this has a gradient for each class of a network that gives [0, z], too.
    """
    others = [n for n in range(log_probabilities.shape[1]) if n != class_index]
    return log_probabilities[:, class_index] - torch.logsumexp(log_probabilities[:, others], 1)


def _members(bundle: ModelBundle) -> tuple[list[Member], float]:
    """The networks, each with its own calibration, and the temperature of what they say together."""
    network: nn.Module = bundle.build()
    card: Card = bundle.card
    if isinstance(network, Ensemble):
        return [member for member in network.members if isinstance(member, Member)], card.temperature
    return [Member(network, card)], 1.0
