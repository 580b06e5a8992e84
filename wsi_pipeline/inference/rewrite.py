"""Networks written otherwise, so that they compute the same with less work."""

from itertools import product

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsi_pipeline.models.ensemble import Ensemble, Member


def rewrite(network: nn.Module, side_px: int) -> nn.Module:
    """The network with its batch norms folded and its smallest convolutions as products: exact but for rounding.

    An ensemble's members are rewritten one by one; what is not written in Python (TorchScript) stays as it is.

    Args:
        network: In evaluation mode, RGB [n, 3, side_px, side_px] in; it is used up.
        side_px: Side of its input.
    """
    if isinstance(network, Ensemble):
        for member in network.members:
            if isinstance(member, Member):
                member.network = rewrite(member.network, side_px)
        return network
    if isinstance(network, torch.jit.ScriptModule):
        return network
    return multiply_small_maps(fold(network), side_px)


def fold(network: nn.Module) -> nn.Module:
    """The network with each batch norm folded into the convolution before it."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    graph = fx.symbolic_trace(network)
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.args else None
        if not (isinstance(before, fx.Node) and before.op == node.op == "call_module" and len(before.users) == 1):
            continue
        convolution, norm = modules[str(before.target)], modules[str(node.target)]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            graph.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.eval()


@torch.inference_mode()
def multiply_small_maps(network: nn.Module, side_px: int) -> nn.Module:
    """The network with a matrix product for each convolution over a map of fewer pixels than its kernel.

    Most of such a kernel lies on the zeros around the map: 3 x 3 over the 2 x 2 px that a ResNet-18 makes of 50 x 50 px
    multiplies 9 numbers for each answer, of which 4 are not zero.
    """
    sizes: dict[str, tuple[int, int]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: sizes.update({name: tuple(given[0].shape[2:])}))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    network(torch.zeros(1, 3, side_px, side_px))
    for hook in hooks:
        hook.remove()
    for name, (height, width) in sizes.items():
        convolution = network.get_submodule(name)
        if isinstance(convolution, nn.Conv2d) and _is_smaller(height, width, convolution):
            network.set_submodule(name, MapProduct(convolution, height, width))
    return network


def _is_smaller(height: int, width: int, convolution: nn.Conv2d) -> bool:
    plain = convolution.groups == 1 and convolution.dilation == (1, 1) and convolution.padding_mode == "zeros"
    rows, cols = convolution.kernel_size
    return plain and not isinstance(convolution.padding, str) and height * width < rows * cols


class MapProduct(nn.Module):
    """A convolution over maps of one small size, as the matrix from all their numbers to all answers."""

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
