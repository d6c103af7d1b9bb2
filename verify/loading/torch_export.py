"""From a torch module to a graph, through `torch.export`."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from operator import getitem
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError
from .builder import GraphBuilder, LoweringError, Masked, Value, Variable, check_masks, is_known
from .crosscheck import crosscheck, sample_points
from .lowering import Call
from .lowering_table import lowering_of
from .onnx_import import TensorInfo
from .simplify import simplify
from .torch_call import AtenCall, Handler
from .torch_operators import ROWS as COMPUTING
from .torch_recurrent import ROWS as RECURRENT
from .torch_reductions import ROWS as REDUCING
from .torch_shapes import ROWS as MOVING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..graph import Graph
    from ..ops.added import Operator
    from .lowering import Lowering

HANDLERS: Mapping[str, Handler] = MappingProxyType({**COMPUTING, **MOVING, **RECURRENT, **REDUCING})
"""aten operator name (without overload) to how it is lowered."""

_CHECKS = frozenset({"_assert_tensor_metadata"})
"""What export adds to check the module's own assumptions; it makes no value."""

_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError)

_UNTRACEABLE = (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, AttributeError, KeyError)
"""What `torch.export` raises where a module cannot be traced: its own errors, and those of the module's own code."""


class ModuleRuntime:
    """A torch module in evaluation mode as the reference that witnesses are replayed on."""

    def __init__(self, module: Any, inputs: tuple[TensorInfo, ...]) -> None:
        self._module = module
        self._inputs = inputs

    def exactly(self) -> None:
        """The module is run in one way only."""

    def run(self, *points: np.ndarray) -> tuple[np.ndarray, ...]:
        """The module's outputs at one point: one array a network input, of its size in any shape."""
        import torch

        device = next((p.device for p in self._module.parameters()), torch.device("cpu"))
        tensors = [
            torch.tensor(np.asarray(point, dtype=info.dtype).reshape(info.shape), device=device)
            for info, point in zip(self._inputs, points, strict=True)
        ]
        with torch.no_grad(), evaluating(self._module):
            result = self._module(*tensors)
        outputs = result if isinstance(result, tuple | list) else (result,)
        return tuple(output.cpu().numpy() for output in outputs)


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """The module in evaluation mode; afterwards every submodule is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def load_torch(
    module: Any, example_input: Any, live: bool = False, check: bool = True, operators: Sequence[Operator] = ()
) -> Any:
    """A `torch.nn.Module` as a `Network`.

    example_input  a tensor, or a tuple of them: the shapes and types the network is to have, batch axis included.
    live           keep parameters as the module's own `nn.Parameter` objects in `Node.params`, unfused, so that what
                   is computed from the graph is differentiable by them; else they are numpy copies, and simplified.
    check          compare the graph with the module at a few points.
    operators      operators that the user adds, by their torch names (``aten.cosh``).

    The module is traced in evaluation mode and left as it was. Raises `LoadError` if it cannot be traced, or for all
    its unsupported operators at once.
    """
    import torch

    from .network import Network

    if not isinstance(module, torch.nn.Module):
        raise LoadError(f"cannot load a {type(module).__name__}; give the path of an ONNX file or a torch module.")
    examples = tuple(example_input) if isinstance(example_input, tuple | list) else (example_input,)
    label = type(module).__name__
    added = {name: lowering_of(operator) for operator in operators for name in operator.names}
    translator = _Translator(_exported(module, examples, label, added), module, label, live, added)
    graph, inputs, outputs, counts = translator.run(examples)
    runtime = ModuleRuntime(module, inputs)
    network = Network(graph, inputs, outputs, label, counts, None, runtime)
    if check:
        plain = graph.map_params(lambda array: array if isinstance(array, np.ndarray) else array.detach().cpu().numpy())
        crosscheck(plain, inputs, runtime, label, sample_points(inputs))
    return network


def _operator_name(target: Any) -> str:
    """The operator that a node of an exported program applies, without its namespace and overload."""
    return str(getattr(target, "_opname", getattr(target, "__name__", target)))


def _full_name(target: Any) -> str:
    """The operator with its namespace: ``aten.cosh``."""
    return f"{getattr(target, 'namespace', '')}.{_operator_name(target)}"


def _covered(target: Any, added: Mapping[str, Lowering]) -> bool:
    return _full_name(target) in added or _operator_name(target) in HANDLERS


def _computes(node: Any) -> bool:
    return node.op == "call_function" and node.target is not getitem and _operator_name(node.target) not in _CHECKS


def _exported(module: Any, examples: tuple[Any, ...], label: str, added: Mapping[str, Lowering]) -> Any:
    """The module as an exported program without mutation.

    Composite operators that have a handler are kept whole; where some operator has none, torch's own decompositions
    take apart what they can.
    """
    import torch

    try:
        with evaluating(module), torch.no_grad():
            exported = torch.export.export(module, examples, strict=False)
            program = exported.run_decompositions({})
            if all(_covered(node.target, added) for node in program.graph.nodes if _computes(node)):
                return program
            table = torch.export.default_decompositions()
            for operator in [key for key in table if _covered(key, added)]:
                table.pop(operator)
            return exported.run_decompositions(table)
    except _UNTRACEABLE as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise LoadError(
            f"{label}: torch.export cannot trace the module ({type(error).__name__}: {reason}); "
            "avoid control flow that depends on values."
        ) from None


class _Translator:
    """The state of one translation: what every node of the exported program stands for."""

    def __init__(
        self, program: Any, module: Any, label: str, live: bool, added: Mapping[str, Lowering] | None = None
    ) -> None:
        self.added = added or {}
        self.program = program
        self.label = label
        self.live = live
        self.tensors = dict(program.state_dict)
        self.tensors.update(program.constants)
        if live:
            self.tensors.update(module.named_parameters())
        self.values: dict[str, Any] = {}
        self.failed: set[str] = set()
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()

    def run(
        self, examples: tuple[Any, ...]
    ) -> tuple[Graph, tuple[TensorInfo, ...], tuple[TensorInfo, ...], dict[str, int]]:
        """The graph, its inputs and outputs, and how often each operator occurs."""
        double = any(str(example.dtype) == "torch.float64" for example in examples)
        self.builder = GraphBuilder(np.dtype(np.float64 if double else np.float32))
        sources = self._placeholders(examples)
        results: tuple[Any, ...] = ()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self._lower(node)
            elif node.op == "output":
                results = tuple(node.args[0])
        if self.complaints:
            raise LoadError(
                f"{self.label}: cannot load {len(self.complaints)} operator(s): {'; '.join(self.complaints)}. "
                "Replace them in the module."
            )
        if any(isinstance(self.values[result.name], Masked) for result in results):
            raise LoadError(f"{self.label}: entries of an output are minus infinity.")
        outputs = [self.builder.variable(self.values[result.name]) for result in results]
        graph = simplify(self.builder.graph([variable for variable, _ in sources], outputs), not self.live)
        infos = tuple(
            TensorInfo(f"output_{k}" if len(outputs) > 1 else "output", value.shape, self.builder.dtype)
            for k, value in enumerate(outputs)
        )
        return graph, tuple(info for _, info in sources), infos, dict(sorted(self.counts.items()))

    def _placeholders(self, examples: tuple[Any, ...]) -> list[tuple[Variable, TensorInfo]]:
        """Bind the program's arguments: user inputs to graph inputs, the rest to the module's tensors."""
        signature = self.program.graph_signature
        held = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        remaining = iter(examples)
        sources = []
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in held:
                self.values[node.name] = self._known(self.tensors[held[node.name]])
                continue
            example = next(remaining)
            dtype = np.dtype(str(example.dtype).removeprefix("torch."))
            variable = self.builder.input(node.name, tuple(example.shape), dtype)
            self.values[node.name] = variable
            sources.append((variable, TensorInfo(node.name, variable.shape, dtype)))
        return sources

    def _known(self, tensor: Any) -> Any:
        """A tensor of the module as a parameter of the graph."""
        return tensor if self.live else tensor.detach().cpu().numpy()

    def _lower(self, node: Any) -> None:
        self.builder.label = node.name
        if any(source.name in self.failed for source in node.all_input_nodes):
            self.failed.add(node.name)
            return
        if node.target is getitem:
            self.values[node.name] = self.values[node.args[0].name][node.args[1]]
            return
        name = _operator_name(node.target)
        if name in _CHECKS:
            return
        self.counts[name] += 1
        try:
            self.values[node.name] = self._result(node, name)
        except LoweringError as reason:
            self._complain(node, name, str(reason))
        except _MALFORMED as error:
            self._complain(node, name, f"its arguments are not covered ({type(error).__name__}: {error})")

    def _result(self, node: Any, name: str) -> Any:
        arguments = self._arguments(node)
        tensors = [self.values[source.name] for source in node.all_input_nodes]
        if all(is_known(value) for value in tensors) and not any(isinstance(v, tuple) for v in tensors):
            return self._computed(node)
        check_masks(name, (self.values[source.name] for source in node.all_input_nodes))
        own = self.added.get(_full_name(node.target))
        if own is not None:
            given = {key: value for key, value in arguments.items() if not hasattr(value, "shape")}
            tensors = [value for value in arguments.values() if hasattr(value, "shape")]
            return own.lower(Call(self.builder, name, tuple(tensors), given, 0))
        handler = HANDLERS.get(name)
        if handler is None:
            raise LoweringError("the operator is not supported")
        return handler(AtenCall(self.builder, arguments))

    def _arguments(self, node: Any) -> dict[str, Any]:
        """The node's arguments by schema name, defaults included."""
        schema = node.target._schema.arguments
        bound = {entry.name: entry.default_value for entry in schema if entry.has_default_value()}
        bound.update({entry.name: self._resolved(arg) for entry, arg in zip(schema, node.args, strict=False)})
        bound.update({key: self._resolved(arg) for key, arg in node.kwargs.items()})
        ordered = [entry.name for entry in schema if entry.name in bound]
        return {name: bound[name] for name in ordered}

    def _resolved(self, argument: Any) -> Any:
        if isinstance(argument, tuple | list):
            return tuple(self._resolved(item) for item in argument)
        return self.values[argument.name] if hasattr(argument, "all_input_nodes") else argument

    def _computed(self, node: Any) -> Any:
        """An operator on tensors of the module alone: run it (live parameters stay differentiable)."""
        import torch
        from torch.utils._pytree import tree_map

        def tensor(argument: Any) -> Any:
            if not hasattr(argument, "all_input_nodes"):
                return argument
            value = self.values[argument.name]
            return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

        args, kwargs = tree_map(tensor, (tuple(node.args), dict(node.kwargs)))
        result = node.target(*args, **kwargs)
        return result if self.live or not isinstance(result, torch.Tensor) else result.numpy()

    def _complain(self, node: Any, name: str, reason: str) -> None:
        self.failed.add(node.name)
        shapes = ", ".join(
            str(list(self.values[source.name].shape)) for source in node.all_input_nodes if self._has_shape(source.name)
        )
        self.complaints.append(f"aten.{name} (node {node.name}, inputs {shapes or 'none'}): {reason}")

    def _has_shape(self, name: str) -> bool:
        value: Value | tuple[Value, ...] | None = self.values.get(name)
        return value is not None and not isinstance(value, tuple)
