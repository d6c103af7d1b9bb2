"""Loading: read, lower, simplify, and check against the reference runtime."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import ERROR
from ..errors import LoadError
from .crosscheck import Points, Reference, crosscheck, first_difference, sample_points
from .extents import with_extents
from .onnx_import import Imported, TensorInfo, import_model
from .onnx_reader import parse_model, read_bytes, runnable, with_external_data
from .runtime import OwnRuntime, Runtime
from .simplify import simplify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..graph import Graph
    from ..ops.added import Operator


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded network.

    built            the graph, or for a module loaded live what builds it from the module's tensors of the moment.
    inputs, outputs  names, shapes (dynamic dimensions as 1) and element types of the source's tensors, in its order;
                     the graph's inputs and outputs are in the same order.
    source           the file (or class of the module) it came from, for messages.
    operator_counts  operator name of the source to how often it occurs there.
    model            the ONNX file's bytes, unpacked, weights stored in other files inside; None for a torch module.
    runtime          runs the source itself, to replay witnesses: onnxruntime, or the module.
    """

    built: Graph | Callable[[], Graph]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    source: str
    operator_counts: Mapping[str, int]
    model: bytes | None
    runtime: Reference

    @property
    def graph(self) -> Graph:
        """The computation as core operators, parameters as numpy arrays; if loaded live, as the torch tensors that the
        module has now, or what follows from them (batch normalisation's scale, for instance)."""
        return self.built() if callable(self.built) else self.built

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the ONNX file's bytes (unpacked), or of a torch module's parameters in graph order."""
        if self.model is not None:
            return hashlib.sha256(self.model).hexdigest()
        digest = hashlib.sha256()
        for node in self.graph.nodes:
            digest.update(f"{node.op}{node.inputs}{node.shape}{sorted(node.attributes.items())}".encode())
            for key in sorted(node.params):
                digest.update(np.ascontiguousarray(_plain(node.params[key])).tobytes())
        return digest.hexdigest()

    @property
    def parameter_count(self) -> int:
        """Number of floating-point parameters in the graph."""
        return sum(
            int(np.prod(array.shape, dtype=np.int64))
            for node in self.graph.nodes
            for key, array in node.params.items()
            if key != "indices" and not key.endswith(ERROR)
        )


def _plain(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def load(
    source: str | os.PathLike[str] | bytes | Any,
    example_input: Any = None,
    *,
    check: bool = True,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    live: bool = False,
    threads: int = 1,
    operators: Sequence[Operator] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Network:
    """Load a network and check the result against the reference runtime.

    source         path of an ONNX file (plain or gzip; ``FILE`` also finds ``FILE.gz``; weights may lie in other
                   files beside it), the bytes of one, or a torch module.
    example_input  for a module: a tensor, or a tuple of its arguments, with the shapes that the network is to have.
    check          compare with onnxruntime (the module itself for torch) at a few points.
    lower, upper   a box, as flat arrays over all inputs in order, to draw these points from.
    live           for a module: follow its parameters and buffers as they change, so that bounds can be differentiated
                   and are always of the module as it is now. The network is the module in evaluation mode, even while
                   it is trained: batch normalisation by the running statistics, no dropout (a warning says so).
    threads        of onnxruntime, per operator.
    operators      operators that the source uses and Boundsmith does not have (or is to take from here all the same).
                   An ONNX model that onnxruntime cannot run because of them is compared, and its witnesses are
                   replayed, with the operators' own `evaluate`.
    shapes         of an ONNX model's inputs, by name, where the model leaves extents open (1 if not given here).

    Raises `LoadError` if the source cannot be read, has unsupported operators (all are listed at once) or disagrees
    with the reference.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _load_onnx(read_bytes(path), path.name, path.parent, check, lower, upper, threads, operators, shapes)
    if isinstance(source, bytes):
        return _load_onnx(source, "model", None, check, lower, upper, threads, operators, shapes)
    return _load_module(source, example_input, live, check, operators)


def _load_module(source: Any, example_input: Any, live: bool, check: bool, operators: Sequence[Operator]) -> Network:
    """A torch module; raises `LoadError` that says what to give instead where `source` is not one."""
    if not _is_module(source):
        kind = type(source).__name__
        if isinstance(source, Mapping):
            raise LoadError(
                f"a {kind} of tensors says nothing of how they are used; build the module, load them into it with "
                "load_state_dict, and give the module: load(module, example_input)."
            )
        what = f"the class {source.__name__} (an instance is wanted)" if isinstance(source, type) else f"a {kind}"
        raise LoadError(
            f"cannot load {what}; give the path or bytes of an ONNX file, or a torch module with an example input."
        )
    if example_input is None:
        raise LoadError("a torch module needs an example input that fixes its shapes: load(module, example_input).")
    from .torch_export import load_torch

    return load_torch(source, example_input, live=live, check=check, operators=operators)


def _is_module(source: Any) -> bool:
    """Whether `source` is a torch module; nothing is one while torch is not imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def _load_onnx(
    content: bytes,
    label: str,
    folder: Path | None,
    check: bool,
    lower: np.ndarray | None,
    upper: np.ndarray | None,
    threads: int,
    operators: Sequence[Operator] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Network:
    model = parse_model(content, label)
    if folder is not None:
        content = with_external_data(model, content, folder, label)
    imported = import_model(with_extents(model, shapes, label) if shapes else model, label, operators)
    runtime = _runtime(Runtime(runnable(model, content), imported.inputs, label, threads), imported, operators)
    network = Network(
        built=simplify(imported.graph),
        inputs=imported.inputs,
        outputs=imported.outputs,
        source=label,
        operator_counts=imported.operator_counts,
        model=content,
        runtime=runtime,
    )
    # The message and the unsimplified weights of a large network would otherwise stay while onnxruntime makes its copy.
    del model, imported
    if not check:
        return network
    # (Which operator is to blame is looked for in the model as it is, with extents of 1.)
    blame = None if shapes else partial(first_difference, content, label, operators=operators)
    return check_network(network, blame, lower, upper)


def _runtime(runtime: Runtime, imported: Imported, operators: Sequence[Operator]) -> Reference:
    """onnxruntime, unless it has none of the operators that the user adds."""
    return OwnRuntime(imported.graph) if operators and not runtime.usable else runtime


def check_network(
    network: Network,
    blame: Callable[[Points], str] | None = None,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
) -> Network:
    """Compare a network's graph with its runtime at a few points of a box; raises `LoadError` if they differ.

    Where the runtime differs by its optimisations only (they round the activations of products with dequantised
    weights, for instance), the network that comes back has a runtime without those.
    """
    points = sample_points(network.inputs, lower, upper)
    check = partial(crosscheck, network.graph, network.inputs, label=network.source, points=points)
    exact = network.runtime.exactly()
    try:
        check(network.runtime, blame=blame if exact is None else None)
    except LoadError:
        if exact is None:
            raise
        check(exact, blame=blame)
        return replace(network, runtime=exact)
    return network


__all__ = ["Network", "Reference", "check_network", "load"]
