"""Loading: read, lower, simplify, and check against the reference runtime."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError
from .crosscheck import Points, Reference, crosscheck, first_difference, sample_points
from .extents import with_extents
from .onnx_import import Imported, TensorInfo, import_model
from .onnx_reader import parse_model, read_bytes, runnable, with_external_data
from .runtime import OwnRuntime, Runtime
from .simplify import simplify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Graph
    from ..ops.added import Operator


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded network.

    graph            the computation as core operators, parameters as numpy arrays (torch tensors if loaded live).
    inputs, outputs  names, shapes (dynamic dimensions as 1) and element types of the source's tensors, in its order;
                     the graph's inputs and outputs are in the same order.
    source           the file (or class of the module) it came from, for messages.
    operator_counts  operator name of the source to how often it occurs there.
    model            the ONNX file's bytes, unpacked, weights stored in other files inside; None for a torch module.
    runtime          runs the source itself, to replay witnesses: onnxruntime, or the module.
    """

    graph: Graph
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    source: str
    operator_counts: Mapping[str, int]
    model: bytes | None
    runtime: Reference

    @cached_property
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
            if key != "indices"
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
    example_input  for a module: a tensor, or a tuple of tensors, with the shapes that the network is to have.
    check          compare with onnxruntime (the module itself for torch) at a few points.
    lower, upper   a box, as flat arrays over all inputs in order, to draw these points from.
    live           for a module: keep its parameters in the graph as they are, so that bounds can be differentiated.
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
    from .torch_export import load_torch

    if example_input is None:
        raise LoadError("a torch module needs an example input that fixes its shapes: load(module, example_input).")
    return load_torch(source, example_input, live=live, check=check, operators=operators)


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
        graph=simplify(imported.graph),
        inputs=imported.inputs,
        outputs=imported.outputs,
        source=label,
        operator_counts=imported.operator_counts,
        model=content,
        runtime=runtime,
    )
    # The message and the unsimplified weights of a large network would otherwise stay while onnxruntime makes its copy.
    del model, imported
    if check:
        # (Which operator is to blame is looked for in the model as it is, with extents of 1.)
        blame = None if shapes else partial(first_difference, content, label, operators=operators)
        check_network(network, blame, lower, upper)
    return network


def _runtime(runtime: Runtime, imported: Imported, operators: Sequence[Operator]) -> Reference:
    """onnxruntime, unless it has none of the operators that the user adds."""
    return OwnRuntime(imported.graph) if operators and not runtime.usable else runtime


def check_network(
    network: Network,
    blame: Callable[[Points], str] | None = None,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
) -> None:
    """Compare a network's graph with its runtime at a few points of a box; raises `LoadError` if they differ."""
    points = sample_points(network.inputs, lower, upper)
    crosscheck(network.graph, network.inputs, network.runtime, network.source, points, blame)


__all__ = ["Network", "Reference", "check_network", "load"]
