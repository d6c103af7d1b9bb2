"""Which network each of a query's declarations speaks about, and in which order its tensors come."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from .errors import LoadError
from .loading.network import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from ..specs.property import Property, TensorDeclaration
    from .loading.network import Network, Reference
    from .loading.onnx_import import TensorInfo

T = TypeVar("T")


def assign(property: Property, given: Mapping[str, T]) -> dict[str, T]:
    """What is given (files or networks, by name) for every declared network.

    The empty name stands for the only network that is neither given by its name nor declared equal to another; one
    that is declared equal to another shares what that one has. Raises `LoadError` for a declared network without
    anything, and for what no declaration asks for.
    """
    source = property.source or "the query"
    declared = [network.name for network in property.networks]
    unknown = sorted(set(given) - set(declared) - {""})
    if unknown:
        raise LoadError(f"{source} declares no network {unknown[0]}; it declares {', '.join(declared)}")
    rest = [network.name for network in property.networks if not network.equal_to and network.name not in given]
    if "" in given and not rest:
        raise LoadError(f"{source}: a network without a name is given, but all that it declares are given by name")
    known = {**given, rest[0]: given[""]} if "" in given and len(rest) == 1 else dict(given)
    assigned: dict[str, T] = {}
    for network in property.networks:
        if network.name in known:
            assigned[network.name] = known[network.name]
        elif network.equal_to in assigned:
            assigned[network.name] = assigned[network.equal_to]
        else:
            raise LoadError(
                f"{source}: no file is given for network {network.name}; it declares {', '.join(declared)}, so add "
                f"--network {network.name}=FILE (in Python, pass the networks by name)"
            )
    return assigned


def in_declared_order(property: Property, name: str, network: Network) -> Network:
    """The network with its inputs and outputs in the order in which the query declares them, where it names them.

    Declarations without a name of the file's stand for the remaining tensors in order. Raises `LoadError` for a name
    that the file does not have, and for a declared element type or shape that is not the tensor's.
    """
    inputs = _order(property, name, property.inputs, network.inputs, "input")
    outputs = _order(property, name, property.outputs, network.outputs, "output")
    _check_tensors(property, name, property.inputs, [network.inputs[k] for k in inputs])
    _check_tensors(property, name, property.outputs, [network.outputs[k] for k in outputs])
    if inputs == sorted(inputs) and outputs == sorted(outputs):
        return network
    graph = replace(
        network.graph,
        inputs=tuple(network.graph.inputs[k] for k in inputs),
        outputs=tuple(network.graph.outputs[k] for k in outputs),
    )
    return replace(
        network,
        built=graph,
        inputs=tuple(network.inputs[k] for k in inputs),
        outputs=tuple(network.outputs[k] for k in outputs),
        runtime=_Reordered(network.runtime, tuple(inputs), tuple(outputs)),
    )


def _order(
    property: Property, name: str, tensors: Sequence[TensorDeclaration], infos: Sequence[TensorInfo], kind: str
) -> list[int]:
    """The position in the file of each declared tensor of the network; the file's own order where counts differ."""
    declared = [tensor for tensor in tensors if tensor.network == name]
    names = [info.name for info in infos]
    for tensor in declared:
        if tensor.onnx_name is not None and tensor.onnx_name not in names:
            raise LoadError(
                f"{property.source or 'the query'}: {tensor.name} stands for {kind} {tensor.onnx_name!r}, which "
                f"network {name} does not have; its {kind}s are {', '.join(names)}"
            )
    if len(declared) != len(names):
        return list(range(len(names)))
    taken = [tensor.onnx_name for tensor in declared]
    rest = iter(k for k, other in enumerate(names) if other not in taken)
    order = [names.index(wanted) if wanted is not None else next(rest, -1) for wanted in taken]
    if sorted(order) != list(range(len(names))):
        raise LoadError(
            f"{property.source or 'the query'}: two declarations stand for the same {kind} of network {name}"
        )
    return order


def with_declared_extents(property: Property, name: str, network: Network) -> Network:
    """The network with the extents that the query declares, where its model leaves some open; else the network."""
    tensors = [tensor for tensor in property.inputs if tensor.network == name]
    if network.model is None or len(tensors) != len(network.inputs) or not any(i.symbolic for i in network.inputs):
        return network
    order = _order(property, name, property.inputs, network.inputs, "input")
    infos = [network.inputs[k] for k in order]
    shapes = {info.name: _extents(tensor, info) for tensor, info in zip(tensors, infos, strict=True)}
    if all(shapes[info.name] == info.shape for info in infos):
        return network
    return replace(load(network.model, check=False, shapes=shapes), source=network.source)


def _extents(tensor: TensorDeclaration, info: TensorInfo) -> tuple[int, ...]:
    """The shape of an input as declared, if the model allows it; a flat one fixes a single open extent."""
    declared, free = tensor.shape or (), [axis for axis, _ in info.symbolic]
    if len(declared) == len(info.shape) and all(
        axis in free or extent == info.shape[axis] for axis, extent in enumerate(declared)
    ):
        return declared
    if len(free) == 1 and tensor.size % math.prod(info.shape) == 0:
        extent = tensor.size // math.prod(info.shape)
        return tuple(extent if axis in free else known for axis, known in enumerate(info.shape))
    return info.shape


def check_equal(property: Property, networks: Mapping[str, Network]) -> None:
    """Raise `LoadError` where networks that the query declares equal are not the same."""
    for declared in property.networks:
        if declared.equal_to is None:
            continue
        own, other = networks[declared.name], networks[declared.equal_to]
        if own is not other and own.sha256 != other.sha256:
            raise LoadError(
                f"{property.source or 'the query'} declares network {declared.name} equal to {declared.equal_to}, but "
                f"{own.source} and {other.source} differ; give both the same file, or declare them isomorphic"
            )


def _check_tensors(
    property: Property, name: str, tensors: Sequence[TensorDeclaration], infos: Sequence[TensorInfo]
) -> None:
    """Raise `LoadError` for a tensor of the network that is declared with another type or shape than the file's.

    The type `real` stands for any; shapes may differ in axes of extent 1, and a flat one stands for any.
    """
    declared = [tensor for tensor in tensors if tensor.network == name]
    if property.version == "1.0" or len(declared) != len(infos):
        return
    for tensor, info in zip(declared, infos, strict=True):
        what = f"{property.source or 'the query'} declares {tensor.name} as {tensor.element_type}"
        if tensor.element_type not in ("real", info.dtype.name):
            raise LoadError(
                f"{what}, but {info.name} of network {name} has type {info.dtype.name}; declare it so, or real"
            )
        own, given = ([extent for extent in shape if extent != 1] for shape in (info.shape, tensor.shape or ()))
        # Sizes that differ are reported with all others when query and network are joined.
        if len(given) > 1 and own != given and math.prod(own) == math.prod(given):
            raise LoadError(
                f"{what} {list(tensor.shape or ())}, but {info.name} of network {name} has shape {list(info.shape)}"
            )


@dataclass(frozen=True)
class _Reordered:
    """A runtime whose inputs and outputs come in another order: position k of ours is position ``inputs[k]`` of its."""

    runtime: Reference
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def run(self, *points: np.ndarray) -> tuple[np.ndarray, ...]:
        """One array a network input in, one array a network output out."""
        own = dict(zip(self.inputs, points, strict=True))
        results = self.runtime.run(*(own[k] for k in range(len(points))))
        return tuple(results[k] for k in self.outputs)

    def exactly(self) -> _Reordered | None:
        """The same without optimisations that may approximate."""
        runtime = self.runtime.exactly()
        return None if runtime is None else replace(self, runtime=runtime)
