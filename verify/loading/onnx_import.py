"""From an ONNX model to a graph of core operators."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError, UnsupportedError
from .builder import GraphBuilder, LoweringError, Masked, Value, Variable, check_masks, is_finite
from .extents import symbolic_axes
from .folding import FOLDED_ONLY, fold
from .folding_exact import exact_results, relative_error
from .forms import FORMS
from .guards import MOVING, check_range, moved_mask
from .lowering import Call, Lowering
from .lowering_shape import static_shape, static_size
from .lowering_table import DOMAINS, LOWERINGS, lowering_of
from .marks import NONE, Marks
from .onnx_order import in_order
from .onnx_reader import attribute_value, declared_shape, element_type, tensor_to_array
from .precise import ROUNDOFFS, UNIT, Precise
from .shortening import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..graph import Graph
    from ..ops.added import Operator

OLDEST_OPSET = 7
"""From here on operators broadcast as numpy does."""

_DEFAULTS_SINCE = 4
"""The version of the file format from which on an input's stored value is only its default."""

_MALFORMED = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    UnsupportedError,
)
"""What reading the attributes and inputs of a damaged operator may raise."""

_STATIC: Mapping[str, Callable[[Call], np.ndarray]] = MappingProxyType({"Shape": static_shape, "Size": static_size})
_WEIGHTED = frozenset(
    {
        *("MatMul", "Gemm", "Conv", "ConvTranspose", "PRelu", "RNN", "GRU", "LSTM", "BatchNormalization"),
        *("InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"),
    }
)
"""Operators that can have no use for infinite constants. (Others may read limits and masks, or refuse them.)"""

_LIMITED = frozenset({"Clip", "Pad", "Constant", "ConstantOfShape", "RNN", "GRU", "LSTM"})
"""Operators that may have infinite attributes."""

_AS_THE_RUNTIME = frozenset({"Resize", "Upsample", "Range", "ConstantOfShape", "TopK"})
"""Operators that read numbers for sizes and positions, which are what the runtime computes."""

_PRECISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose", "BatchNormalization", "PRelu"),
        *("InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"),
    }
)
"""Operators whose lowerings take constants with their errors."""

_IN_ATTRIBUTES = frozenset({"Clip", "Pad", "Pow", "Max", "Min"})
"""Operators whose constants may become settings, which have no room for an error."""

_MOST_LISTED = 50
_GRAPH = 5
"""The type of an attribute that is a graph."""

IMPORTED: Mapping[str, str] = MappingProxyType({"If": "branches of one shape where the condition is not constant"})
"""Operators that take more than a lowering, because they hold graphs, with what is not covered."""


@dataclass(frozen=True)
class TensorInfo:
    """A network input or output: its name, its shape (dynamic dimensions as 1) and its element type.

    symbolic   the axes whose extents the model leaves open, with the names that it gives them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    symbolic: tuple[tuple[int, str], ...] = ()


def require_entries(outputs: Sequence[TensorInfo], label: str) -> None:
    """Raise `LoadError` for a network whose outputs hold no number at all: nothing can be asked about it."""
    if not any(math.prod(info.shape) for info in outputs):
        listed = ", ".join(f"{info.name} of shape {list(info.shape)}" for info in outputs)
        raise LoadError(f"{label}: its outputs have no entries ({listed}); there is nothing to bound.")


@dataclass(frozen=True, eq=False)
class Imported:
    """A model as a graph, before simplification.

    `values` maps the source's tensor names, in its own order, to graph nodes or arrays.
    """

    graph: Graph
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    values: Mapping[str, Value]
    operator_counts: Mapping[str, int]


def import_model(model: Any, label: str, operators: Sequence[Operator] = ()) -> Imported:
    """Lower a `ModelProto`; `label` names its source in messages, `operators` are those that the user adds.

    Raises `LoadError`: for all unsupported operators at once, for weights that are not finite, for inputs without a
    usable shape or type, and for damaged models.
    """
    return _Importer(model, label, operators).run()


def full_name(node: Any) -> str:
    """The operator that a node of a model applies, with its domain unless that is the standard one."""
    return str(node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}")


class _Importer:
    """The state of one import: the builder and what every tensor name stands for."""

    def __init__(self, model: Any, label: str, operators: Sequence[Operator] = ()) -> None:
        self.label = label
        self.added = {name: lowering_of(operator) for operator in operators for name in operator.names}
        self.proto = model.graph
        self.version = int(model.ir_version)
        self.opset = self._opset(model)
        self.values: dict[str, Value] = {}
        self.exact: dict[str, Precise] = {}
        """Over the reals: constants computed from others that are not what the runtime makes of them."""
        self.marks: dict[str, Marks] = {}
        self.failed: set[str] = set()
        self.unmade: dict[str, tuple[Any, int]] = {}
        self.complaints: list[str] = []

    def _opset(self, model: Any) -> int:
        versions = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
        version = max(versions, default=1)
        if version < OLDEST_OPSET:
            raise LoadError(
                f"{self.label}: uses operator set {version}; at least {OLDEST_OPSET} is needed. "
                "Convert it with onnx.version_converter or export it again."
            )
        return int(version)

    def run(self) -> Imported:
        self._read_initializers(self.proto)
        declared = [self._declared(info, "input") for info in self._inputs()]
        double = any(info.dtype == np.float64 for info in declared) or self._declares_double_output()
        self.builder = GraphBuilder(np.dtype(np.float64 if double else np.float32))
        sources = []
        for info in declared:
            variable = self.builder.input(info.name, info.shape, info.dtype)
            self.values[info.name] = variable
            sources.append(variable)
        with np.errstate(all="ignore"):
            for node in in_order(self.proto.node, self.label):
                self._lower(node)
        outputs = self._outputs()
        infos = tuple(
            TensorInfo(info.name, value.shape, value.dtype)
            for info, value in zip(self.proto.output, outputs, strict=True)
        )
        require_entries(infos, self.label)
        counts = Counter(node.op_type for node in self.proto.node)
        graph = self.builder.graph(sources, outputs)
        return Imported(graph, tuple(declared), infos, self.values, dict(sorted(counts.items())))

    def _inputs(self) -> list[Any]:
        """The inputs that have no value in the file: a stored one makes a constant of an input.

        Where all have one, and the file is of a version in which that is but a default, they are inputs all the same.
        """
        free = [info for info in self.proto.input if info.name not in self.values]
        if free:
            return free
        if not self.proto.input or self.version < _DEFAULTS_SINCE:
            raise LoadError(f"{self.label}: has no inputs (everything that it reads is stored in it).")
        for info in self.proto.input:
            del self.values[info.name]
        return list(self.proto.input)

    def _declares_double_output(self) -> bool:
        return any(info.type.tensor_type.elem_type == 11 for info in self.proto.output)

    def _read_initializers(self, graph: Any) -> None:
        if graph.sparse_initializer:
            raise LoadError(f"{self.label}: has sparse initializers, which are not supported; store them densely.")
        for tensor in graph.initializer:
            try:
                array = tensor_to_array(tensor)
            except LoadError as error:
                raise LoadError(f"{self.label}: {error}") from None
            self.values[tensor.name] = array
            self._check_finite(tensor.name, array)

    def _check_finite(self, name: str, array: np.ndarray) -> None:
        """Raise for a stored tensor with NaN or, unless only limits of clips and the like, infinite values."""
        if array.dtype.kind == "f" and not is_finite(array) and not self._only_limits(name, array):
            kind = "NaN" if np.isnan(array).any() else "infinite"
            raise LoadError(f"{self.label}: initializer {name} has {kind} values; the network is damaged.")

    def _only_limits(self, name: str, array: np.ndarray) -> bool:
        """Whether a tensor with infinite values serves operators only for which those make sense."""
        readers = {node.op_type for node in self.proto.node if name in node.input}
        return readers.isdisjoint(_WEIGHTED) and not np.isnan(array).any()

    def _declared(self, info: Any, role: str) -> TensorInfo:
        what = f"{self.label}: {role} {info.name}"
        if not info.type.HasField("tensor_type"):
            raise LoadError(f"{what} is not a tensor; only tensors are supported.")
        dtype = element_type(info.type.tensor_type.elem_type, what)
        if dtype.kind == "f" and dtype.itemsize < 4:
            raise LoadError(f"{what} has element type {dtype.name}; export the network as float32 or float64.")
        shape = declared_shape(info)
        if shape is None:
            raise LoadError(f"{what} declares no shape; export the network with a fixed input shape.")
        return TensorInfo(info.name, shape, dtype, symbolic_axes(info))

    def _lower(self, node: Any) -> None:
        outputs = [name for name in node.output if name]
        missing = [name for name in node.input if name and name not in self.values]
        self._complain_of_unmade(missing)
        if node.op_type == "If" and node.domain in DOMAINS and not missing:
            self._lower_branches(node)
            return
        row = self.added.get(full_name(node)) or (LOWERINGS.get(node.op_type) if node.domain in DOMAINS else None)
        if row is None and not (node.domain in DOMAINS and node.op_type in (*FOLDED_ONLY, *IMPORTED)):
            self._complain(node, "the operator is not supported")
        elif missing:
            unknown = [name for name in missing if name not in self.failed]
            if unknown:
                raise LoadError(
                    f"{self.label}: operator {node.op_type} ({node.name or outputs}) reads tensor {unknown[0]}, "
                    "which nothing before it makes; the model is damaged."
                )
            self.failed.update(outputs)
        else:
            self._lower_known(node, row or Lowering(node.op_type, _constants_only), outputs)

    def _lower_known(self, node: Any, row: Lowering, outputs: list[str]) -> None:
        self.builder.label = outputs[0] if outputs else node.name
        try:
            made = self._results(node, row, len(outputs))
        except LoweringError as reason:
            self._complain(node, str(reason))
            return
        except _MALFORMED as error:
            self._complain(node, f"its attributes and inputs do not fit each other ({type(error).__name__}: {error})")
            return
        except LoadError as error:
            raise LoadError(f"{self.label}: {error}") from None
        for position, name in enumerate(node.output):
            if not name:
                continue
            if position < len(made):
                self.values[name] = made[position]
                if node.op_type == "Constant":
                    self._check_finite(name, np.asarray(made[position]))
            else:
                self.failed.add(name)
                self.unmade[name] = (node, position)

    def _complain_of_unmade(self, names: list[str]) -> None:
        """Blame operators whose further outputs, which their lowerings do not make, are read after all."""
        for name in names:
            if name in self.unmade:
                node, position = self.unmade.pop(name)
                self._complain(node, f"its output {position} is read, which is not covered")

    def _lower_branches(self, node: Any) -> None:
        """An If: the branch that a constant condition takes, or a choice between the values of both."""
        condition = self.values.get(node.input[0]) if len(node.input) == 1 else None
        branches = {item.name: item.g for item in node.attribute if item.type == _GRAPH}
        try:
            if condition is None or set(branches) != {"then_branch", "else_branch"} or math.prod(condition.shape) != 1:
                raise LoweringError("it does not have one condition and two branches")
            if isinstance(condition, Variable):
                self._choose(node, condition, branches)
                return
            taken = branches["then_branch" if np.asarray(condition).reshape(()) else "else_branch"]
            for name, made in zip(node.output, self._run_branch(taken), strict=True):
                if made in self.values:
                    self.values[name] = self.values[made]
                    if made in self.exact:
                        self.exact[name] = self.exact[made]
                    if made in self.marks:
                        self.marks[name] = self.marks[made]
                else:
                    self.failed.add(name)
        except LoweringError as reason:
            self._complain(node, str(reason))
        except _MALFORMED as error:
            self._complain(node, f"its branches do not fit its outputs ({type(error).__name__}: {error})")

    def _run_branch(self, graph: Any) -> list[str]:
        """Lower a branch's operators among those around it; the names of its outputs."""
        self._read_initializers(graph)
        for node in in_order(graph.node, self.label):
            self._lower(node)
        return [info.name for info in graph.output]

    def _choose(self, node: Any, condition: Variable, branches: dict[str, Any]) -> None:
        """Both branches, and of each pair of outputs the one that the condition takes."""
        sides = [
            [self._operand(name) for name in self._run_branch(branches[side])]
            for side in ("then_branch", "else_branch")
        ]
        self.builder.label = node.output[0]
        single = self.builder.reshape(condition, ())
        for name, first, second in zip(node.output, *sides, strict=True):
            if first is None or second is None:
                self.failed.add(name)
                continue
            if tuple(first.shape) != tuple(second.shape):
                raise LoweringError(
                    f"its condition depends on the network's inputs and its branches have shapes {list(first.shape)} "
                    f"and {list(second.shape)}"
                )
            operands = (single, first, second)
            check_masks("If", operands)
            if self.marks:
                raise LoweringError("its condition and some lengths depend on the network's inputs")
            made = LOWERINGS["Where"].lower(Call(self.builder, "Where", operands, {}, self.opset))
            self.values[name] = made[0] if isinstance(made, tuple) else made

    def _operand(self, name: str) -> Value | None:
        """What a name stands for; a constant that is not exact as a node, which has room for its error."""
        value, found = self.values.get(name), self.exact.get(name)
        return value if found is None else self.builder.constant(value, found)

    def _results(self, node: Any, row: Lowering, outputs: int) -> tuple[Value, ...]:
        if row.op_type in FORMS and full_name(node) not in self.added:
            FORMS[row.op_type].check(node.input, [item.name for item in node.attribute])
        attributes = {item.name: attribute_value(item) for item in node.attribute}
        for name, value in attributes.items() if node.op_type not in _LIMITED else ():
            if isinstance(value, float) and not math.isfinite(value):
                raise LoweringError(f"its attribute {name} is {value}")
        for name in ("to", "dtype"):
            if isinstance(attributes.get(name), int):
                attributes[name] = element_type(attributes[name], f"the result of {node.op_type}")
        inputs = tuple(self.values[name] if name else None for name in node.input)
        marks = tuple(self.marks.get(name, NONE) for name in node.input) if self.marks else ()
        call = Call(self.builder, node.op_type, inputs, attributes, self.opset, outputs, marks)
        if self.opset < row.since:
            raise LoweringError(
                f"its form before operator set {row.since} is not covered (this model uses {self.opset})"
            )
        made = self._made(call, row, [self.exact.get(name) for name in node.input], list(node.output))
        mark = follow(call, made[0])
        if mark.matters:
            self.marks.update((name, mark) for name in node.output)
        return made

    def _made(self, call: Call, row: Lowering, exact: list[Precise | None], names: list[str]) -> tuple[Value, ...]:
        if call.op_type in _STATIC:
            return (_STATIC[call.op_type](call),)
        if not any(isinstance(value, Variable) for value in call.inputs):
            made = tuple(value if isinstance(value, Variable) else np.asarray(value) for value in fold(call, row))
            arrays = [value for value in made if isinstance(value, np.ndarray)]
            if len(arrays) == len(made):
                exactly = exact_results(call, row, exact, arrays, fold)
                self.exact.update(
                    (name, value) for name, value in zip(names, exactly, strict=False) if value is not None
                )
            return made
        check_range(call)
        first = call.inputs[0] if call.inputs else None
        if isinstance(first, Masked) and call.op_type in MOVING:
            return (moved_mask(call, row, first),)
        check_masks(call.op_type, call.inputs)
        with self._over_the_reals(call, exact) as own:
            result = row.lower(own)
        return result if isinstance(result, tuple) else (result,)

    @contextmanager
    def _over_the_reals(self, call: Call, exact: list[Precise | None]) -> Iterator[Call]:
        """The call with its computed constants in float64; meanwhile the builder knows how exact they are."""
        if call.op_type in _AS_THE_RUNTIME or all(value is None for value in exact):
            yield call
            return
        if call.op_type in _PRECISE:
            pairs = zip(call.inputs, exact, strict=True)
            yield replace(call, inputs=tuple(value if found is None else found for value, found in pairs))
            return
        error = max(relative_error(value) for value in exact if value is not None)
        if call.op_type in _IN_ATTRIBUTES and error > ROUNDOFFS * UNIT:
            raise LoweringError("it reads constants that are computed from others and not exact; store their values")
        inputs = [value if found is None else found.high for value, found in zip(call.inputs, exact, strict=True)]
        self.builder.relative_error = error
        try:
            yield replace(call, inputs=tuple(inputs))
        finally:
            self.builder.relative_error = 0.0

    def _complain(self, node: Any, reason: str) -> None:
        self.failed.update(name for name in node.output if name)
        shapes = ", ".join(str(self._shape(name)) for name in node.input if name)
        name = node.name or (node.output[0] if node.output else "")
        self.complaints.append(f"{full_name(node)} (node {name}, inputs {shapes or 'none'}): {reason}")

    def _shape(self, name: str) -> list[int] | str:
        return list(self.values[name].shape) if name in self.values else "unknown"

    def _unsupported_message(self) -> str:
        listed = "; ".join(self.complaints[:_MOST_LISTED])
        more = len(self.complaints) - _MOST_LISTED
        return (
            f"{self.label}: cannot load {len(self.complaints)} operator(s): {listed}"
            f"{f'; and {more} more' if more > 0 else ''}. "
            "Replace them, or see `boundsmith supports --onnx-operators` for what is covered."
        )

    def _outputs(self) -> list[Variable]:
        made = []
        self._complain_of_unmade([info.name for info in self.proto.output])
        if self.complaints:
            raise LoadError(self._unsupported_message())
        for info in self.proto.output:
            if info.name not in self.values:
                raise LoadError(f"{self.label}: output {info.name} is made by no operator; the model is damaged.")
            mark = self.marks.get(info.name, NONE)
            if mark.matters and not mark.checked:
                raise LoadError(f"{self.label}: the shape of output {info.name} depends on the network's inputs.")
            if isinstance(self.values[info.name], Masked):
                raise LoadError(f"{self.label}: entries of output {info.name} are minus infinity.")
            self.builder.label = info.name
            value = self._operand(info.name)
            assert value is not None
            made.append(self.builder.variable(value))
        return made


def _constants_only(call: Call) -> Value:
    raise LoweringError("it is supported of constants only")
