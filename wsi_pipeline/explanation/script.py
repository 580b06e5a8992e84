"""TorchScript made explainable: cut in two at its last map, with an ordinary module between the halves.

Modules in TorchScript take no hooks, so that nobody can watch what passes through them. But the graph of what they do
can be cut where the last convolutional map goes into the pooling that ends it: all that comes after depends on that map
alone in the usual networks. Where it does not, the network is refused.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import BundleError

_CONVOLUTIONS = ("aten::conv2d", "aten::_convolution", "aten::convolution")
_POOLING = (
    "aten::adaptive_avg_pool2d",
    "aten::adaptive_max_pool2d",
    "aten::avg_pool2d",
    "aten::max_pool2d",
    "aten::mean",
)
_ATTENTION = ("aten::scaled_dot_product_attention", "aten::_native_multi_head_attention", "aten::layer_norm")
_HINT = "Grad-CAM explains convolutional networks; bundles with model.safetensors can always be explained."

_Graph = Any
"""Of torch's TorchScript compiler, which has no types."""


class Script(nn.Module):
    """The same function as the TorchScript it was made of. The map passes through `stage`, which takes hooks."""

    def __init__(self, trunk: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stage = nn.Identity()
        self._trunk, self._head = trunk, head

    def forward(self, x: Tensor) -> Tensor:
        """From [n, 3, h, w] to logits [n, classes]."""
        with torch.no_grad():
            features = self._trunk(x)
        # The head may work in place, which the map that is looked at must not suffer.
        return self._head(self.stage(features).clone())


def open_script(network: torch.jit.ScriptModule, where: Path) -> Script:
    """Cut a network in two.

    Args:
        network: In eval mode and on its device, where the result stays.
        where: The bundle, for messages.

    Raises:
        BundleError: where it has no convolutions, or cannot be cut.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is of the past is no news to a user
            graph = torch.jit.freeze(network, optimize_numerics=False).graph
            torch._C._jit_pass_inline(graph)  # noqa: SLF001  (the compiler has no public interface)
            return Script(_trunk(graph.copy(), where), _head(graph.copy(), where))
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise BundleError(where, f"its TorchScript cannot be taken apart ({reason[0]})", _HINT) from error


def _trunk(graph: _Graph, where: Path) -> Callable[[Tensor], Tensor]:
    """From the image to the map."""
    found = _last_map(graph, where)
    graph.eraseOutput(0)
    graph.registerOutput(found)
    torch._C._jit_pass_dce(graph)  # noqa: SLF001
    return _function("trunk", graph, keep=1, where=where)


def _head(graph: _Graph, where: Path) -> Callable[[Tensor], Tensor]:
    """From the map to the logits."""
    found = _last_map(graph, where)
    given = graph.addInput("features")
    found.replaceAllUsesWith(given)
    for node in reversed(list(graph.nodes())):
        # What only the trunk needs goes; checks, such as of a shape, have no outputs and go with it.
        if not any(output.uses() for output in node.outputs()):
            node.destroy()
    return _function("head", graph, keep=2, where=where)


def _last_map(graph: _Graph, where: Path) -> Any:
    """What goes into the last pooling of a convolution's map; without such pooling, what the last convolution gives."""
    mapped, convolution, pooled, attention = set[str](), None, None, False
    for node in graph.nodes():
        kinds, given = _inside(node)
        if not kinds.isdisjoint(_CONVOLUTIONS):
            convolution, pooled, attention = node, None, False
        elif mapped.isdisjoint(given):
            continue  # it works on something else than maps, such as the image itself
        elif node.kind() in _POOLING:
            pooled = next(iter(node.inputs()))
        attention |= not kinds.isdisjoint(_ATTENTION)
        mapped.update(value.debugName() for value in node.outputs())
    if convolution is None:
        raise BundleError(where, "its TorchScript has no convolution", _HINT)
    if pooled is not None:
        return pooled
    if attention:
        # There, the last convolution is the first layer, whose map says nothing of the answer.
        raise BundleError(where, "its TorchScript is a transformer", _HINT)
    return next(iter(convolution.outputs()))


def _inside(node: Any) -> tuple[set[str], set[str]]:
    """Kinds of a node and of those in its branches, and the names of all values that they take."""
    kinds, given = {node.kind()}, {value.debugName() for value in node.inputs()}
    for block in node.blocks():
        given |= {value.debugName() for value in block.outputs()}
        for inner in block.nodes():
            more = _inside(inner)
            kinds |= more[0]
            given |= more[1]
    return kinds, given


def _function(name: str, graph: _Graph, *, keep: int, where: Path) -> Callable[[Tensor], Tensor]:
    """A graph as a function of its input number `keep`; the others must not be needed."""
    inputs = list(graph.inputs())
    for n in reversed(range(len(inputs))):
        if n == keep:
            continue
        if inputs[n].uses():
            raise BundleError(where, "its TorchScript has more than one way from the image to the answer", _HINT)
        graph.eraseInput(n)
    function: Callable[[Tensor], Tensor] = torch._C._create_function_from_graph(name, graph)  # noqa: SLF001
    return function
