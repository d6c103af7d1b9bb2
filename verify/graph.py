"""The computation graph: one immutable, topologically ordered, statically shaped description of a network.

Shapes are the ONNX file's own shapes (dynamic dimensions resolved to 1). Every tensor that flows through the graph
carries one extra leading axis ``B``: a batch of sub-domains, data points or samples. So a node of shape ``(1, 3, 8,
8)`` evaluates to an array ``[B, 1, 3, 8, 8]``; axis ``k`` of ``shape`` is axis ``k + 1`` of the array.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .arrays import ERROR, to_numpy
from .rounding import irregular

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

    @cached_property
    def has_errors(self) -> bool:
        """Whether the node says that parameters may be off (`LinearRule.parameter_error`)."""
        return any(key.endswith(ERROR) for key in self.params)

    @cached_property
    def irregular(self) -> bool:
        """Whether sums with the node's weights get the worst-case allowance for rounding (see `rounding`); weights that
        are trained right now are taken to be regular."""
        weight = self.params.get("weight", self.params.get("matrix"))
        if weight is None or getattr(weight, "requires_grad", False):
            return False
        return irregular(to_numpy(weight))

    @cached_property
    def squared(self) -> tuple[Node, float]:
        """The node with the squares of its weights in units of the largest one, and that one (numpy arrays only)."""
        key = "weight" if "weight" in self.params else "matrix"
        weight = self.params[key]
        largest = float(abs(weight).max(initial=0.0)) or 1.0
        params = {**self.params, key: (weight / weight.dtype.type(largest)) ** 2}
        return replace(self, params=MappingProxyType(params)), largest


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

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that read each node's value, one that reads it twice named twice."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for source in node.inputs:
                found[source].append(position)
        return tuple(map(tuple, found))

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
