"""What is done to patches in training: on its device, by torchvision's v2 transforms where they do it.

All chance comes from torch's global generator on the CPU, which the training seeds anew in each step: a resumed one
then sees the same patches as an uninterrupted one. What a v2 transform draws once for a whole batch is drawn for each
of `CHUNKS` parts of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wsi_pipeline.training.recipe import AugmentationSettings

CHUNKS = 8
WHITE = 255.0

# Ruifrok & Johnston 2001: haematoxylin, eosin, and a residual, as optical densities of RGB.
STAINS = functional.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]), dim=1)
_DENSITY = -torch.log((torch.arange(256).float() + 1) / 256)


class Augmentation:
    """Symmetries, small affine changes, stains, contrast and brightness, in this order.

    Args:
        settings: A recipe's; what is 0 there is not done.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        self._settings = settings
        self._affine, self._colour = _affine(settings), _colour(settings)

    def __call__(self, patches: Tensor) -> Tensor:
        """Changed patches.

        Args:
            patches: uint8 [n, side, side, 3] on any device.

        Returns:
            float32 [n, 3, side, side], 0..255.
        """
        if self._settings.symmetries:
            patches = _by_chunk(patches, random_symmetry)
        changed = patches.permute(0, 3, 1, 2)
        if self._affine is not None:
            changed = _by_chunk(changed, self._affine)
        if self._settings.stain_jitter:
            values = stain_jitter(changed.permute(0, 2, 3, 1), self._settings.stain_jitter).permute(0, 3, 1, 2)
        else:
            values = changed.float()
        if self._colour is not None:
            values = _by_chunk(values / 255, self._colour) * 255
        return values


def random_symmetry(patches: Tensor) -> Tensor:
    """One of the 8 symmetries of the square for all of [n, side, side, ...]."""
    turn, flip = int(torch.randint(4, ())), int(torch.randint(2, ()))
    turned = torch.rot90(patches, turn, (1, 2))
    return turned.flip(2) if flip else turned


def stain_jitter(patches: Tensor, deviation: float) -> Tensor:
    """Each patch with its stains stronger or weaker: HED jitter (Tellez et al., IEEE TMI 2018), but normal.

    Haematoxylin, eosin and residual are multiplied by 1 + N(0, deviation) and get N(0, deviation / 3) added.

    Args:
        patches: uint8 [n, h, w, 3].
        deviation: 0 changes nothing but rounding.

    Returns:
        float32 [n, h, w, 3], 0..255.
    """
    n, device = len(patches), patches.device
    factor = 1 + deviation * torch.randn(n, 3)
    shift = deviation / 3 * torch.randn(n, 3)
    # Unmix, change and mix again is one 3 x 3 matrix for each patch.
    mix = (torch.linalg.inv(STAINS) @ (factor[:, :, None] * STAINS)).to(device)
    density = _DENSITY.to(device)[patches.reshape(n, -1, 3).int()]
    changed = torch.baddbmm((shift @ STAINS).to(device)[:, None], density, mix)
    return (changed.neg_().exp_() * 256 - 1).clamp_(0, 255).reshape(patches.shape)


def mix_up(patches: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each patch blended with its neighbour in the batch, labels alike (mixup, Zhang et al., ICLR 2018).

    Args:
        patches: float [n, ...].
        targets: float [n, classes], shares.
        alpha: Of the beta distribution that the blend is drawn from.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    mixed, labels = (share * values + (1 - share) * values.roll(1, 0) for values in (patches, targets))
    return mixed, labels


def _by_chunk(patches: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([change(part) for part in patches.chunk(CHUNKS)])


def _affine(settings: AugmentationSettings) -> Callable[[Tensor], Tensor] | None:
    if not (settings.rotation_degrees or settings.zoom or settings.shear_degrees):
        return None
    from torchvision.transforms import v2

    change: Callable[[Tensor], Tensor] = v2.RandomAffine(
        degrees=settings.rotation_degrees,
        scale=(1 - settings.zoom, 1 + settings.zoom) if settings.zoom else None,
        shear=settings.shear_degrees or None,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=WHITE,
    )
    return change


def _colour(settings: AugmentationSettings) -> Callable[[Tensor], Tensor] | None:
    if not (settings.contrast or settings.brightness):
        return None
    from torchvision.transforms import v2

    change: Callable[[Tensor], Tensor] = v2.ColorJitter(brightness=settings.brightness, contrast=settings.contrast)
    return change
