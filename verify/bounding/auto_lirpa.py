"""An optional second opinion: bounds by auto_LiRPA (0.7 or newer), where the user has installed it.

The graph is handed over as a torch module made of plain torch functions, which auto_LiRPA traces. Only `boundsmith
bounds --engine auto-lirpa` and cross-checks use this; nothing in verification depends on it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import to_numpy
from ..errors import UnsupportedError
from ..graph import Graph, Node
from ..problem import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..loading.network import Network

OLDEST = (0, 7)


def require_auto_lirpa() -> Any:
    """The auto_LiRPA package; raises `UnsupportedError`, saying what to do, if it is missing or too old."""
    if importlib.util.find_spec("auto_LiRPA") is None:
        raise UnsupportedError(
            "the engine auto-lirpa needs auto_LiRPA 0.7 or newer, which is not installed; "
            "install it from its authors' repository, or leave out --engine"
        )
    import auto_LiRPA

    found = getattr(auto_LiRPA, "__version__", None) or importlib.metadata.version("auto_LiRPA")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST:
        raise UnsupportedError(f"the engine auto-lirpa needs auto_LiRPA 0.7 or newer; version {found} is installed")
    return auto_LiRPA


def auto_lirpa_bounds(
    network: Network | Graph, lower: np.ndarray, upper: np.ndarray, method: str = "CROWN"
) -> tuple[np.ndarray, np.ndarray]:
    """Output bounds ``[B, m]`` for boxes ``[B, n]`` computed by auto_LiRPA.

    Raises `UnsupportedError` if the package is missing, or names the operators that the hand-over does not cover.
    """
    library = require_auto_lirpa()
    import torch

    module = torch_module(flatten(network if isinstance(network, Graph) else network.graph))
    low, high = torch.as_tensor(lower, dtype=torch.float32), torch.as_tensor(upper, dtype=torch.float32)
    middle = (low + high) / 2
    bounded = library.BoundedModule(module, middle[:1])
    region = library.PerturbationLpNorm(norm=float("inf"), x_L=low, x_U=high)
    below, above = bounded.compute_bounds(x=(library.BoundedTensor(middle, region),), method=method)
    return below.detach().numpy(), above.detach().numpy()


def _functions() -> Mapping[str, Callable[[Node, Mapping[str, Any], Sequence[Any]], Any]]:
    """How each operator is said in plain torch; arguments are the node, its parameters as tensors, and its inputs."""
    import torch
    from torch.nn import functional

    def convolution(node: Node, p: Mapping[str, Any], xs: Sequence[Any]) -> Any:
        pads, spatial = node.attributes["pads"], len(node.shape) - 2
        if tuple(pads[:spatial]) != tuple(pads[spatial:]) or spatial != 2:
            raise UnsupportedError(
                f"the engine auto-lirpa takes symmetric two-dimensional convolutions only ({node.name})"
            )
        x = xs[0].reshape(xs[0].shape[0], *node.input_shapes[0][1:])
        y = functional.conv2d(
            x,
            p["weight"],
            p.get("bias"),
            tuple(node.attributes["strides"]),
            tuple(pads[:spatial]),
            tuple(node.attributes["dilations"]),
            node.attributes["groups"],
        )
        return y.reshape(y.shape[0], *node.shape)

    def leaky(node: Node, p: Mapping[str, Any], xs: Sequence[Any]) -> Any:
        slopes = np.unique(np.asarray(node.params["slope"]))
        if slopes.size == 1:
            return functional.leaky_relu(xs[0], float(slopes[0]))
        return functional.relu(xs[0]) - p["slope"] * functional.relu(-xs[0])

    def signed_sum(node: Node, p: Mapping[str, Any], xs: Sequence[Any]) -> Any:
        total = xs[0] if node.attributes["signs"][0] > 0 else -xs[0]
        for sign, x in zip(node.attributes["signs"][1:], xs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total

    def scaled(node: Node, p: Mapping[str, Any], xs: Sequence[Any]) -> Any:
        y = xs[0] * p["scale"] if "scale" in p else xs[0]
        return y + p["shift"] if "shift" in p else y

    return {
        "Linear": lambda node, p, xs: functional.linear(xs[0], p["weight"], p.get("bias")),
        "Conv": convolution,
        "Scale": scaled,
        "Add": signed_sum,
        "Reshape": lambda node, p, xs: xs[0].reshape(xs[0].shape[0], *node.shape),
        "Transpose": lambda node, p, xs: xs[0].permute(0, *(axis + 1 for axis in node.attributes["perm"])),
        "Concat": lambda node, p, xs: torch.cat(list(xs), dim=node.attributes["axis"] % len(node.shape) + 1),
        "Relu": lambda node, p, xs: functional.relu(xs[0]),
        "LeakyRelu": leaky,
        "Sigmoid": lambda node, p, xs: torch.sigmoid(xs[0]),
        "Tanh": lambda node, p, xs: torch.tanh(xs[0]),
        "Sin": lambda node, p, xs: torch.sin(xs[0]),
        "Cos": lambda node, p, xs: torch.cos(xs[0]),
        "Arctan": lambda node, p, xs: torch.arctan(xs[0]),
        "Exp": lambda node, p, xs: torch.exp(xs[0]),
        "Reciprocal": lambda node, p, xs: torch.reciprocal(xs[0]),
        "Pow": lambda node, p, xs: xs[0] ** node.attributes["exponent"],
        "Mul": lambda node, p, xs: xs[0] * xs[1],
        "MatMul": lambda node, p, xs: xs[0] @ xs[1],
    }


def torch_module(graph: Graph) -> Any:
    """A `torch.nn.Module` that computes a graph of one input and one output, float32, from plain torch functions.

    Raises `UnsupportedError` listing all operators that have no such form.
    """
    import torch

    functions = _functions()
    missing = sorted({node.op for node in graph.nodes} - set(functions) - {"Input"})
    if missing:
        raise UnsupportedError(
            f"the engine auto-lirpa does not take these operators: {', '.join(missing)}; leave out --engine"
        )

    class GraphModule(torch.nn.Module):
        """The graph as a module; parameters are buffers, so that a trace sees constants."""

        def __init__(self) -> None:
            super().__init__()
            for index, node in enumerate(graph.nodes):
                for key, value in node.params.items():
                    self.register_buffer(f"p{index}_{key}", torch.as_tensor(np.array(to_numpy(value), np.float32)))

        def forward(self, x: Any) -> Any:
            values: list[Any] = []
            for index, node in enumerate(graph.nodes):
                if node.op == "Input":
                    values.append(x.reshape(x.shape[0], *node.shape))
                    continue
                params = {key: getattr(self, f"p{index}_{key}") for key in node.params}
                values.append(functions[node.op](node, params, [values[source] for source in node.inputs]))
            return values[graph.outputs[0]]

    return GraphModule().eval()
