"""From a torch module to a graph, through `torch.export`."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from operator import getitem
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError
from .builder import GraphBuilder, LoweringError, Masked, Value, Variable, check_masks, is_known
from .crosscheck import crosscheck, sample_points
from .lowering import Call
from .lowering_table import lowering_of
from .onnx_import import TensorInfo, require_entries
from .simplify import simplify
from .torch_call import WITHOUT_EFFECT, AtenCall, Handler, Watched
from .torch_module import (
    USER_CODE_ERRORS,
    Arguments,
    ModuleRuntime,
    element_type,
    evaluating,
    first_line,
    output_tensors,
    warn_of_training,
)
from .torch_operators import ROWS as COMPUTING
from .torch_recurrent import ROWS as RECURRENT
from .torch_reductions import ROWS as REDUCING
from .torch_shapes import ROWS as MOVING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Graph
    from ..ops.added import Operator
    from .lowering import Lowering

HANDLERS: Mapping[str, Handler] = MappingProxyType({**COMPUTING, **MOVING, **RECURRENT, **REDUCING})
"""aten operator name (without overload) to how it is lowered."""

_CHECKS = frozenset({"_assert_tensor_metadata"})
"""What export adds to check the module's own assumptions; it makes no value."""

_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError)


def load_torch(
    module: Any, example_input: Any, live: bool = False, check: bool = True, operators: Sequence[Operator] = ()
) -> Any:
    """A `torch.nn.Module` as a `Network`.

    example_input  a tensor, or a tuple of the module's arguments: the shapes and types the network is to have, batch
                   axis included.
    live           build the graph anew whenever it is read, from the parameters and buffers that the module has then,
                   unfused, so that what is computed from the graph is differentiable by them; else they are numpy
                   copies, and simplified.
    check          compare the graph with the module at a few points.
    operators      operators that the user adds, by their torch names (``aten.cosh``).

    The module is traced in evaluation mode and left as it was. Raises `LoadError` if it cannot be traced, or for all
    its unsupported operators at once.
    """
    from .network import Network

    label = type(module).__name__
    if live:
        warn_of_training(module)
    arguments = Arguments(example_input, label)
    added = {name: lowering_of(operator) for operator in operators for name in operator.names}
    program = _exported(module, arguments.examples, label, added)

    def translated() -> Translation:
        return _Translator(program, module, label, live, added).run(arguments)

    first = translated()
    runtime = ModuleRuntime(module, first.inputs, arguments, label)
    network = Network(
        (lambda: translated().graph) if live else first.graph,
        *(first.inputs, first.outputs, label, first.counts, None, runtime),
    )
    if check:
        plain = first.graph.map_params(lambda a: a if isinstance(a, np.ndarray) else a.detach().cpu().numpy())
        crosscheck(plain, first.inputs, runtime, label, sample_points(first.inputs))
    return network


@dataclass(frozen=True, eq=False)
class Translation:
    """A module as a graph, its inputs and outputs, and how often each operator occurs."""

    graph: Graph
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    counts: Mapping[str, int]


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

    if isinstance(module, torch.jit.ScriptModule):
        raise LoadError(
            f"{label}: is a TorchScript module, which torch.export does not take; give the module it was made from, or "
            "export it to ONNX."
        )
    try:
        with evaluating(module), torch.no_grad(), warnings.catch_warnings():
            # Of torch's own making, and nothing that a user can change.
            warnings.simplefilter("ignore", FutureWarning)
            exported = torch.export.export(module, examples, strict=False)
            program = exported.run_decompositions({})
            if all(_covered(node.target, added) for node in program.graph.nodes if _computes(node)):
                return program
            table = torch.export.default_decompositions()
            for operator in [key for key in table if _covered(key, added)]:
                table.pop(operator)
            return exported.run_decompositions(table)
    except USER_CODE_ERRORS as error:
        raise LoadError(
            f"{label}: torch.export cannot trace the module ({type(error).__name__}: {first_line(error)}); "
            "check that it runs on the example input, and avoid control flow that depends on values."
        ) from None


def _attribute(module: Any, path: str) -> Any:
    """The tensor that a module holds under a dotted name; None if it holds none there."""
    import torch

    found = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, torch.Tensor) else None


def _is_same(value: Any, default: Any) -> bool:
    """Whether an argument is the default one; lists of numbers may be tuples."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return bool(value == default)


class _Translator:
    """The state of one translation: what every node of the exported program stands for."""

    def __init__(
        self, program: Any, module: Any, label: str, live: bool, added: Mapping[str, Lowering] | None = None
    ) -> None:
        self.added = added or {}
        self.program = program
        self.label = label
        self.live = live
        self.tensors = {**program.state_dict, **program.constants}
        if live:
            own = {name: _attribute(module, name) for name in self.tensors}
            self.tensors.update((name, tensor) for name, tensor in own.items() if tensor is not None)
        self.values: dict[str, Any] = {}
        self.failed: set[str] = set()
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()

    def run(self, arguments: Arguments) -> Translation:
        """Translate every node, and check what the module returns."""
        double = np.dtype(np.float64) in arguments.dtypes
        self.builder = GraphBuilder(np.dtype(np.float64 if double else np.float32))
        sources = self._placeholders(arguments)
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self._lower(node)
        results = self._results()
        if self.complaints:
            raise LoadError(
                f"{self.label}: cannot load {len(self.complaints)} operator(s): {'; '.join(self.complaints)}. "
                "Replace them in the module."
            )
        if not all(hasattr(self.values[name], "shape") for name in results):
            raise LoadError(f"{self.label}: returns a value that is not a tensor.")
        if any(isinstance(self.values[name], Masked) for name in results):
            raise LoadError(f"{self.label}: entries of an output are minus infinity.")
        self.builder.label = "output"
        outputs = [self.builder.variable(self.values[name]) for name in results]
        graph = simplify(self.builder.graph([variable for variable, _ in sources], outputs), not self.live)
        infos = tuple(
            TensorInfo(f"output_{k}" if len(outputs) > 1 else "output", value.shape, self.builder.dtype)
            for k, value in enumerate(outputs)
        )
        require_entries(infos, self.label)
        return Translation(graph, tuple(info for _, info in sources), infos, dict(sorted(self.counts.items())))

    def _results(self) -> list[str]:
        """The names of the nodes whose tensors the module returns, as `output_tensors` finds them."""
        names = []
        for spec in self.program.graph_signature.output_specs:
            if spec.kind.name != "USER_OUTPUT":
                raise LoadError(f"{self.label}: changes {spec.target} whenever it is called; a network must not.")
            if not hasattr(spec.arg, "value"):
                names.append(spec.arg.name)
            elif spec.arg.value is not None:
                output_tensors(spec.arg.value, self.label)
        if not names:
            output_tensors(None, self.label)
        return names

    def _placeholders(self, arguments: Arguments) -> list[tuple[Variable, TensorInfo]]:
        """Bind the program's arguments: user inputs to graph inputs, the rest to the module's tensors."""
        remaining = iter(arguments.leaves)
        sources = []
        for spec in self.program.graph_signature.input_specs:
            name = spec.arg.name
            if spec.kind.name != "USER_INPUT":
                self.values[name] = self._known(self.tensors[spec.target], spec.target)
                continue
            example = next(remaining)
            if not hasattr(example, "dtype"):
                self.values[name] = example
                continue
            dtype = element_type(example, f"{self.label}: input {name}")
            self.builder.label = name
            variable = self.builder.input(name, tuple(example.shape), dtype)
            self.values[name] = variable
            sources.append((variable, TensorInfo(name, variable.shape, dtype)))
        return sources

    def _known(self, tensor: Any, name: str) -> Any:
        """A tensor of the module as a parameter of the graph; a copy unless live, as the module may change it."""
        element_type(tensor, f"{self.label}: {name}")
        return tensor if self.live else tensor.detach().cpu().numpy().copy()

    def _lower(self, node: Any) -> None:
        self.builder.label = node.name
        if any(source.name in self.failed for source in node.all_input_nodes):
            self.failed.add(node.name)
            return
        if node.target is getitem:
            made = self.values[node.args[0].name]
            if isinstance(made, tuple) and node.args[1] < len(made):
                self.values[node.name] = made[node.args[1]]
            else:
                self._complain(node, "getitem", f"output {node.args[1]} of {node.args[0].name} is not covered")
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
        watched = Watched(arguments)
        result = handler(AtenCall(self.builder, watched))
        unread = self._told(node) - watched.read - WITHOUT_EFFECT
        if unread:
            raise LoweringError(f"its argument {min(unread)} is not covered")
        return result

    def _told(self, node: Any) -> set[str]:
        """The arguments of a node that are given and have another value than the default one."""
        schema = {entry.name: entry for entry in node.target._schema.arguments}
        given = {**dict(zip(schema, node.args, strict=False)), **node.kwargs}
        return {
            name
            for name, value in given.items()
            if value is not None
            and not (schema[name].has_default_value() and _is_same(value, schema[name].default_value))
        }

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
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise LoweringError("it draws random numbers")
        result = node.target(*args, **kwargs)

        def known(value: Any) -> Any:
            return self._known(value, node.name) if isinstance(value, torch.Tensor) else value

        return tuple(known(value) for value in result) if isinstance(result, tuple | list) else known(result)

    def _complain(self, node: Any, name: str, reason: str) -> None:
        self.failed.add(node.name)
        shapes = ", ".join(
            str(list(self.values[source.name].shape)) for source in node.all_input_nodes if self._has_shape(source.name)
        )
        self.complaints.append(f"aten.{name} (node {node.name}, inputs {shapes or 'none'}): {reason}")

    def _has_shape(self, name: str) -> bool:
        value: Value | tuple[Value, ...] | None = self.values.get(name)
        return value is not None and not isinstance(value, tuple)
