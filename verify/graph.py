"""The computation graph: one immutable, topologically ordered, statically shaped description of a network.

Shapes are the ONNX file's own shapes (dynamic dimensions resolved to 1). Every tensor that flows through the graph
carries one extra leading axis ``B``: a batch of sub-domains, data points or samples. So a node of shape ``(1, 3, 8,
8)`` evaluates to an array ``[B, 1, 3, 8, 8]``; axis ``k`` of ``shape`` is axis ``k + 1`` of the array.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Array = Any
"""A numpy array or a torch tensor; code that takes one asks `array_namespace` which it is."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Node:
    """One operator application with one output.

    `name` is the output tensor's name in the source file (used in every message), `op` a key of the operator table,
    `inputs` indices into `Graph.nodes`, `shape` the output's shape without the batch axis, `params` the operator's
    arrays (weights, constants; numpy arrays or, in a differentiable graph, torch tensors) and `attributes` its static
    settings. `input_shapes` are the shapes of the inputs; `Graph` fills them in (an adjoint cannot do without them).
    """

    name: str
    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    params: Mapping[str, Array] = field(default_factory=lambda: _EMPTY)
    attributes: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    input_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def size(self) -> int:
        """Number of scalars in the output."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in topological order, the indices of its inputs and of its outputs."""

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        for index, node in enumerate(self.nodes):
            if any(not 0 <= source < index for source in node.inputs):
                raise ValueError(f"node {index} ({node.name}) reads a node that does not come before it")
        object.__setattr__(self, "nodes", tuple(self._with_input_shapes(node) for node in self.nodes))

    def _with_input_shapes(self, node: Node) -> Node:
        shapes = tuple(self.nodes[source].shape for source in node.inputs)
        return node if node.input_shapes == shapes else replace(node, input_shapes=shapes)

    def map_params(self, convert: Callable[[Array], Array]) -> Graph:
        """The same graph with every parameter array converted (to another dtype, device or library)."""
        return self.map_named(lambda key, value: convert(value))

    def map_named(self, convert: Callable[[str, Array], Array]) -> Graph:
        """The same by the parameters' names and arrays."""
        nodes = tuple(
            replace(node, params=MappingProxyType({key: convert(key, value) for key, value in node.params.items()}))
            if node.params
            else node
            for node in self.nodes
        )
        return replace(self, nodes=nodes)
