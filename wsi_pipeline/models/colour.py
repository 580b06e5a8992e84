"""CIELAB and HSV of RGB pixels on the network's own device, in the arithmetic of scikit-image.

`rgb2hsv` is made of differences, divisions and one remainder. The same operations stand here in the same order, so hue
and saturation are those of scikit-image bit for bit, in float64 as in float32. `rgb2lab` raises to a power and takes
cube roots, whose last bit differs between libraries; a* then multiplies a difference of two numbers near 1 by 500.
L* and a* lie within 2^-40 (float64) and 2^-13 (float32) of scikit-image in float64. All this holds for each of the
16,777,216 colours of 8 bits.
"""

import torch
from torch import Tensor, nn

# sRGB (IEC 61966-2-1) to CIE XYZ, rows for X and Y, each divided by the D65 white of the 2 degree observer.
_X = (0.412453, 0.357580, 0.180423)
_Y = (0.212671, 0.715160, 0.072169)
_WHITE_X = 0.95047

_MEAN = (0.808, 0.639, 0.740, 71.5, 20.5, 0.836, 0.231)
_STD = (0.142, 0.208, 0.149, 17.1, 13.4, 0.203, 0.159)
"""Of the seven channels over 3,000 patches of 81 training cases of the published IDC split (Janowczyk 2016)."""


class SevenChannels(nn.Module):
    """RGB, L* and a* of CIELAB, hue and saturation of HSV, each at zero mean and unit variance.

    The constants belong to the architecture, not to its weights, and so stand in no bundle.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """From RGB in 0..1, float32 [n, 3, h, w], to [n, 7, h, w]."""
        return (seven_channels(rgb) - self.mean) / self.std


def seven_channels(rgb: Tensor) -> Tensor:
    """R, G, B in 0..1, L* (0..100), a* (about -86..98), hue and saturation in 0..1.

    Args:
        rgb: Float [..., 3, h, w] in 0..1; sRGB. Values outside are taken on as the formulas have it.

    Returns:
        Float of the same kind, [..., 7, h, w]. Its gradient is finite everywhere, greys and black included.
    """
    return torch.cat([rgb, lightness_and_a(rgb), hue_and_saturation(rgb)], -3)


def lightness_and_a(rgb: Tensor) -> Tensor:
    """L* and a* of CIELAB (CIE 1976; D65, 2 degrees) as `skimage.color.rgb2lab` has them.

    Args:
        rgb: Float [..., 3, h, w] in 0..1.

    Returns:
        Float [..., 2, h, w].
    """
    # What a `where` does not take must be finite too, or its gradient would be NaN: hence the clamps.
    curved = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    linear = torch.where(rgb > 0.04045, curved, rgb / 12.92)
    red, green, blue = linear.unbind(-3)
    # Sums, not a matrix product: under autocast that would be done in half precision.
    x = _root((red * _X[0] + green * _X[1] + blue * _X[2]) / _WHITE_X)
    y = _root(red * _Y[0] + green * _Y[1] + blue * _Y[2])
    return torch.stack([116 * y - 16, 500 * (x - y)], -3)


def _root(t: Tensor) -> Tensor:
    return torch.where(t > 0.008856, t.clamp(min=0.008856) ** (1 / 3), 7.787 * t + 16 / 116)


def hue_and_saturation(rgb: Tensor) -> Tensor:
    """Hue and saturation of HSV (Smith 1978) as `skimage.color.rgb2hsv` has them; both 0 for a grey.

    Args:
        rgb: Float [..., 3, h, w] in 0..1.

    Returns:
        Float [..., 2, h, w], both in 0..1.
    """
    red, green, blue = rgb.unbind(-3)
    value, delta = rgb.amax(-3), rgb.amax(-3) - rgb.amin(-3)
    grey = delta == 0
    safe = delta.masked_fill(grey, 1)
    hue = (green - blue) / safe
    # The later colour wins a tie, as there.
    hue = torch.where(green == value, 2 + (blue - red) / safe, hue)
    hue = torch.where(blue == value, 4 + (red - green) / safe, hue)
    hue = torch.remainder(hue / 6, 1).masked_fill(grey, 0)
    saturation = delta / value.masked_fill(grey, 1)
    return torch.stack([hue, saturation], -3)
