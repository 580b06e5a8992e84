"""Networks written otherwise, so that they compute the same with less work."""

from collections import defaultdict
from typing import Literal

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsi_pipeline.inference.small_maps import TILE_PX, MapProduct, WinogradConvolution
from wsi_pipeline.models.ensemble import Ensemble, Member

SmallMaps = Literal["convolutions", "products", "winograd"]
"""How convolutions over small maps are computed: as such, as `MapProduct`, or as `WinogradConvolution` too, which needs
single precision. Products are for OpenVINO, which gives a field of view the same answer wherever in a batch it lies.
PyTorch's do not: they round the last rows of a matrix in another order."""


def rewrite(network: nn.Module, side_px: int, small_maps: SmallMaps) -> nn.Module:
    """The network with its batch norms folded and its convolutions over small maps as asked: exact but for rounding.

    An ensemble's members are rewritten one by one; what is not written in Python (TorchScript) stays as it is.

    Args:
        network: In evaluation mode, RGB [n, 3, side_px, side_px] in; it is used up.
        side_px: Side of its input; an ensemble's members have their own.
        small_maps: See `SmallMaps`.
    """
    if isinstance(network, Ensemble):
        for member in network.members:
            if isinstance(member, Member):
                member.network = rewrite(member.network, member.side, small_maps)
        return network
    if isinstance(network, torch.jit.ScriptModule):
        return network
    folded = fold(network)
    if small_maps == "convolutions":
        return folded
    return rewrite_small_maps(folded, side_px, winograd=small_maps == "winograd")


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
def rewrite_small_maps(network: nn.Module, side_px: int, *, winograd: bool) -> nn.Module:
    """The network with its convolutions over small maps written as `MapProduct` and `WinogradConvolution`."""
    for name, (height, width) in _map_sizes(network, side_px).items():
        convolution = network.get_submodule(name)
        if not isinstance(convolution, nn.Conv2d) or not _is_plain(convolution):
            continue
        rows, cols = convolution.kernel_size
        if height * width < rows * cols:
            network.set_submodule(name, MapProduct(convolution, height, width))
        elif winograd and max(height, width) <= TILE_PX and _is_3x3(convolution):
            network.set_submodule(name, WinogradConvolution(convolution, height, width))
    return network


def _map_sizes(network: nn.Module, side_px: int) -> dict[str, tuple[int, int]]:
    """Height and width of what each convolution is given, by its name; without those that are given several sizes."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: found[name].add(tuple(given[0].shape[2:])))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    if hooks:
        network(torch.zeros(1, 3, side_px, side_px))
    for hook in hooks:
        hook.remove()
    return {name: sizes.pop() for name, sizes in found.items() if len(sizes) == 1}


def _is_plain(convolution: nn.Conv2d) -> bool:
    plain = convolution.groups == 1 and convolution.dilation == (1, 1) and convolution.padding_mode == "zeros"
    return plain and not isinstance(convolution.padding, str)


def _is_3x3(convolution: nn.Conv2d) -> bool:
    return (convolution.kernel_size, convolution.stride, convolution.padding) == ((3, 3), (1, 1), (1, 1))
