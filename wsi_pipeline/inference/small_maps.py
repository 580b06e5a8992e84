"""Convolutions over maps of few pixels, written as matrix products that take less work for the same answers.

A network made for pictures of 224 px ends, at 50 px, in maps of 4 x 4 and 2 x 2 px. Libraries compute these as they do
large ones, zeros of the padding and all.
"""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

TILE_PX = 4
"""Longest side of a map that `WinogradConvolution` takes."""

_POINTS = (0.0, 2 / 3, -2 / 3, 1.5, -1.5)
"""Where Winograd's polynomials are evaluated, besides infinity: the usual 0, 1, -1, 2, -2 round four times as much
(Barabasz et al., *ACM Trans Math Softw* 46:37, 2020, on what makes good points)."""


class MapProduct(nn.Module):
    """A convolution over maps of fewer pixels than its kernel, as the matrix from all their numbers to all answers.

    Most of such a kernel lies on the zeros around the map: 3 x 3 over the 2 x 2 px that a ResNet-18 makes of 50 x 50 px
    multiplies nine numbers for each answer, of which four are not zero.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d, height: int, width: int) -> None:
        """Write the convolution's weights, and zeros where it does not reach, into the matrix.

        Args:
            convolution: Without groups and dilation, padded with zeros.
            height: Of the maps it is given.
            width: The same.
        """
        super().__init__()
        kernel, stride, padding = convolution.kernel_size, convolution.stride, convolution.padding
        rows, cols = (
            (size + 2 * int(padding[axis]) - kernel[axis]) // stride[axis] + 1
            for axis, size in enumerate((height, width))
        )
        self._shape = rows, cols, convolution.out_channels
        # Channels last on both sides: that is how the maps lie in memory.
        weight = torch.zeros(*self._shape, height, width, convolution.in_channels)
        for row, y in product(range(rows), range(height)):
            for col, x in product(range(cols), range(width)):
                down, across = y - row * stride[0] + int(padding[0]), x - col * stride[1] + int(padding[1])
                if 0 <= down < kernel[0] and 0 <= across < kernel[1]:
                    weight[row, col, :, y, x] = convolution.weight[:, :, down, across]
        bias = None if convolution.bias is None else convolution.bias.repeat(rows * cols)
        self.register_buffer("weight", weight.flatten(3).flatten(0, 2), persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """From [n, channels, height, width] to the convolution's [n, channels, rows, columns]."""
        answers = functional.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)
        maps: Tensor = answers.unflatten(1, self._shape)
        return maps.permute(0, 3, 1, 2)


class WinogradConvolution(nn.Module):
    """A 3 x 3 convolution over maps of at most 4 x 4 px, in one tile of Winograd's F(4 x 4, 3 x 3).

    A pair of channels takes 36 multiplications where the sum itself takes 144 (Lavin & Gray, *Fast Algorithms for
    Convolutional Neural Networks*, CVPR 2016). In single precision it rounds to a millionth of the answers, seven times
    as much as the sum; in half precision it would lose digits that count.
    """

    pixels: Tensor
    weight: Tensor
    answers: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d, height: int, width: int) -> None:
        """Transform the convolution's weights.

        Args:
            convolution: 3 x 3, with a padding of one zero and nothing else.
            height: Of the maps it is given, at most 4.
            width: The same.
        """
        super().__init__()
        pixels, kernel, answers = _winograd()
        weight = torch.einsum("ap,bq,oipq->abio", kernel, kernel, convolution.weight.double())
        inner = [pixels[:, 1 : 1 + size] for size in (height, width)]  # the padding around is zero
        self._shape = height, width, convolution.out_channels
        self.register_buffer("pixels", torch.kron(*inner).float(), persistent=False)
        self.register_buffer("weight", weight.flatten(0, 1).float(), persistent=False)
        self.register_buffer("answers", torch.kron(answers[:height], answers[:width]).float(), persistent=False)
        self.register_buffer("bias", convolution.bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """From [n, channels, height, width] to the convolution's [n, channels, height, width]."""
        values = self.pixels @ x.permute(0, 2, 3, 1).flatten(1, 2)  # [n, 36, channels]
        products = (values.transpose(0, 1) @ self.weight).transpose(0, 1)
        answers = self.answers @ products
        if self.bias is not None:
            answers = answers + self.bias
        return answers.reshape(-1, *self._shape).permute(0, 3, 1, 2)


def _winograd() -> tuple[Tensor, Tensor, Tensor]:
    """What takes 6 pixels to values at the points, 3 numbers of a kernel to theirs, and products to 4 answers.

    Float64 [6, 6], [6, 3] and [4, 6]. A polynomial that is a product of two is known from its values at enough points
    (Toom 1963, Cook 1966); transposed, that is a convolution (Winograd 1980).
    """
    points = torch.tensor(_POINTS, dtype=torch.float64)
    last = torch.eye(6, dtype=torch.float64)[5]  # the point at infinity has the highest coefficient
    others = [torch.cat([points[:n], points[n + 1 :]]) for n in range(len(points))]
    scales = torch.stack([(point - rest).prod() for point, rest in zip(points, others, strict=True)])
    pixels = torch.stack([*(_polynomial(rest) for rest in others), _polynomial(points)])
    kernel = torch.cat([torch.vander(points, 3, increasing=True) / scales[:, None], last[None, 3:]])
    answers = torch.cat([torch.vander(points, 4, increasing=True), last[None, 2:]]).T.contiguous()
    return pixels, kernel, answers


def _polynomial(roots: Tensor) -> Tensor:
    """Coefficients [6] of the polynomial with these roots, the constant first."""
    found = torch.eye(6, dtype=torch.float64)[0]
    for root in roots:
        found = found.roll(1) - root * found
    return found
