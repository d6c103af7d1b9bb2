"""Building a graph of core operators: constructors that check sizes, pick the cheapest form and share structure.

Importers hold every tensor as a `Value`: a `Variable` (it depends on the network's inputs) or an array (it does not).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ..errors import LoadError
from ..graph import Array, Graph, Node
from .precise import ROUNDOFFS, UNIT, Precise, parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LARGEST_TENSOR = 1 << 26
"""Scalars in the largest tensor that is built while importing; stored weights may be larger."""

MOST_AXES = 24
"""Axes of a tensor: numpy's limit is 32 in its older versions, and lowerings add a few."""

LARGEST_TOTAL = 1 << 28
"""Scalars in all tensors together that importing may build."""


class LoweringError(LoadError):
    """One operator of a network cannot be lowered; the importer collects these and reports all of them at once."""


@dataclass(frozen=True)
class Variable:
    """A tensor that depends on the inputs: its node, its shape (no batch axis) and its element type in the source.

    `integral` says that its values are whole numbers whatever the type.
    """

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype
    integral: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Masked(Variable):
    """A tensor some entries of which are minus infinity: the `hidden` ones, whose values in the graph mean nothing.

    What excludes positions from a softmax. Only lowerings that know of it may be given one; the importers see to that.
    """

    hidden: np.ndarray = field(kw_only=True, compare=False)


MASK_READERS = frozenset({"Softmax", "softmax", "_softmax"})
"""The operators, in ONNX's and aten's names, whose lowerings take a `Masked` operand."""


def check_masks(op_type: str, values: Iterable[Any]) -> None:
    """Raise `LoweringError` where an operator that knows nothing of masks is given a masked tensor."""
    if op_type not in MASK_READERS and any(isinstance(value, Masked) for value in values):
        raise LoweringError("it reads entries that are minus infinity, which only a softmax right behind them may")


Value = Variable | Array


def is_known(value: Value | None) -> TypeGuard[Array]:
    """Whether `value` is an array, that is, does not depend on the network's inputs."""
    return value is not None and not isinstance(value, Variable)


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape of a variable or array."""
    return tuple(value.shape)


class GraphBuilder:
    """Collects nodes. `label` names the source tensor that the next nodes belong to.

    Every method that returns a `Variable` appends at most a few nodes and checks the size of what it makes; sizes
    beyond the limits raise `LoadError` before anything is allocated.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.label = ""
        self.relative_error = 0.0
        """By how much, relative to themselves, float64 arrays may be off that lowerings are given at the moment: they
        were computed from constants, and not exactly."""
        self._built = 0

    def check_axes(self, count: int) -> None:
        """Raise `LoadError` for a tensor of more axes than arrays may have."""
        if count > MOST_AXES:
            raise LoadError(f"tensor {self.label} has {count} axes; at most {MOST_AXES} are supported, so reshape it.")

    def claim(self, shape: Iterable[int]) -> tuple[int, ...]:
        """`shape` as a tuple of ints, after counting it against the size limits."""
        extents = tuple(int(extent) for extent in shape)
        size = math.prod(extents)
        self.check_axes(len(extents))
        if any(extent < 0 for extent in extents):
            raise LoweringError(f"its shape {list(extents)} has a negative dimension")
        if size > LARGEST_TENSOR or self._built + size > LARGEST_TOTAL:
            raise LoadError(
                f"tensor {self.label} of shape {list(extents)} is too large: a tensor may have {LARGEST_TENSOR:,} "
                f"scalars and all together {LARGEST_TOTAL:,}; check the network's declared shapes."
            )
        self._built += size
        return extents

    def add(
        self,
        op: str,
        inputs: Sequence[Variable],
        shape: Iterable[int],
        params: Mapping[str, Array | Precise] | None = None,
        attributes: Mapping[str, Any] | None = None,
        like: Variable | None = None,
        integral: bool | None = None,
    ) -> Variable:
        """Append a node. Element type and integrality follow `like` (default the first input)."""
        extents = self.claim(shape)
        stored: dict[str, Array] = {}
        for key, array in (params or {}).items():
            stored.update(self._stored(key, array))
        self.nodes.append(
            Node(
                name=self.label,
                op=op,
                inputs=tuple(x.index for x in inputs),
                shape=extents,
                params=MappingProxyType(stored),
                attributes=MappingProxyType(dict(attributes or {})),
            )
        )
        model = like if like is not None else inputs[0] if inputs else None
        dtype = model.dtype if model is not None else self.dtype
        whole = integral if integral is not None else model is not None and model.integral and not params
        return Variable(len(self.nodes) - 1, extents, dtype, whole)

    def _stored(self, key: str, array: Array | Precise) -> dict[str, Array]:
        """A parameter as a node keeps it; integers and live parameters as they are.

        Stored numbers are kept in the graph's own type. Where that does not hold them, they were computed while
        loading: they stay in float64, with a bound on the error.
        """
        if isinstance(array, Precise):
            if not array.is_finite:
                raise LoweringError("its constants are NaN, infinite, or computed from numbers that nearly cancel")
            return parameters(**{key: array})
        if not isinstance(array, np.ndarray | np.generic):
            return {key: array}
        plain = np.asarray(array)
        if plain.dtype.kind != "f":
            return {key: plain}
        if not is_finite(plain):
            raise LoweringError("its constants are NaN or infinite")
        if plain.dtype.itemsize < 8 or (self.dtype == np.float64 and not self.relative_error):
            return {key: plain.astype(self.dtype, copy=False)}
        return parameters(**{key: self.computed(plain)})

    def exactly(self, array: np.ndarray | Precise) -> Precise:
        """An array that a lowering was given, for calculating with it."""
        if isinstance(array, Precise):
            return array
        plain = np.asarray(array)
        given = plain.dtype != np.float64 or (self.dtype == np.float64 and not self.relative_error)
        return Precise.of(plain) if given else self.computed(plain)

    def computed(self, array: np.ndarray) -> Precise:
        """A float64 array that a lowering was given, or computed with a few operations that do not cancel."""
        with np.errstate(over="ignore"):
            stored = not self.relative_error and np.array_equal(array.astype(np.float32), array)
        return Precise.of(array, error=0.0 if stored else (ROUNDOFFS * UNIT + 4 * self.relative_error) * abs(array))

    def input(self, name: str, shape: Sequence[int], dtype: np.dtype) -> Variable:
        """A graph input."""
        self.label = name
        made = self.add("Input", (), shape)
        return Variable(made.index, made.shape, dtype, dtype.kind != "f")

    def constant(self, value: Array, exactly: Precise | None = None) -> Variable:
        """An array as a node, for operators that take it as an operand; `exactly` is what it is over the reals."""
        if isinstance(value, np.ndarray):
            made = self.add("Constant", (), value.shape, {"value": self.real(value) if exactly is None else exactly})
            dtype = self.dtype if value.dtype == np.float64 else value.dtype
            return Variable(made.index, made.shape, dtype, value.dtype.kind != "f")
        made = self.add("Constant", (), value.shape, {"value": value})
        return Variable(made.index, made.shape, self.dtype)

    def variable(self, value: Value) -> Variable:
        """`value` itself if it is a variable, else a constant node of it."""
        return value if isinstance(value, Variable) else self.constant(value)

    def retyped(self, x: Variable, dtype: np.dtype) -> Variable:
        """`x` under another element type of the source; its values stay."""
        return Variable(x.index, x.shape, dtype, x.integral or dtype.kind != "f")

    def reshape(self, x: Variable, shape: Iterable[int]) -> Variable:
        """`x` in another shape of the same size."""
        extents = tuple(int(extent) for extent in shape)
        if math.prod(extents) != x.size:
            raise LoweringError(f"cannot reshape {list(x.shape)} to {list(extents)}")
        x = self._before_reshapes(x)
        return x if x.shape == extents else self.add("Reshape", (x,), extents)

    def _before_reshapes(self, x: Variable) -> Variable:
        """The tensor that `x` is only a reshaped view of."""
        index = x.index
        while self.nodes[index].op == "Reshape":
            index = self.nodes[index].inputs[0]
        return Variable(index, self.nodes[index].shape, x.dtype, x.integral)

    def as_rows(self, x: Variable, width: int) -> Variable:
        """`x` as rows of `width`: the tensor that it is a view of if that has such rows already, else a reshape."""
        source = self._before_reshapes(x)
        return source if source.shape[-1:] == (width,) else self.reshape(x, (x.size // max(width, 1), width))

    def transpose(self, x: Variable, perm: Sequence[int]) -> Variable:
        """`x` with axes permuted; where only axes of extent 1 move, a reshape."""
        order = tuple(int(axis) % len(x.shape) for axis in perm) if x.shape else ()
        if sorted(order) != list(range(len(x.shape))) or len(perm) != len(x.shape):
            raise LoweringError(f"permutation {list(perm)} does not fit shape {list(x.shape)}")
        shape = tuple(x.shape[axis] for axis in order)
        moved = [axis for axis in order if x.shape[axis] != 1]
        if moved == sorted(moved):
            return self.reshape(x, shape)
        return self.add("Transpose", (x,), shape, attributes={"perm": order})

    def is_joined(self, x: Variable) -> bool:
        """Whether `x` is a view of several tensors that lie in it one after the other."""
        node = self.nodes[self._before_reshapes(x).index]
        return node.op == "Concat" and math.prod(node.shape[: node.attributes["axis"]]) == 1

    def _one_part(self, x: Variable, flat: np.ndarray) -> tuple[Variable, np.ndarray]:
        """Of tensors joined one after the other, the one that all of `flat` picks from, and where in it."""
        low, high = (int(flat.min()), int(flat.max())) if flat.size else (-1, -1)
        if low < 0 or not self.is_joined(x):
            return x, flat
        start = 0
        for index in self.nodes[x.index].inputs:
            part = Variable(index, self.nodes[index].shape, x.dtype, x.integral)
            if start <= low and high < start + part.size:
                return self._one_part(self._before_reshapes(part), flat - start)
            start += part.size
        return x, flat

    def take(self, x: Variable, indices: np.ndarray, fill: float = 0.0) -> Variable:
        """``y.flat = x.flat[indices]``; index -1 means `fill`."""
        # `ascontiguousarray` would give a scalar an axis.
        flat = np.asarray(indices, dtype=np.int64, order="C").reshape(self.claim(indices.shape))
        has_fill = bool(flat.size) and int(flat.min()) < 0
        source, flat = self._one_part(self._before_reshapes(x), flat)
        earlier = self.nodes[source.index]
        if earlier.op == "Take":
            inner = earlier.params["indices"].reshape(-1)
            inner_fill = earlier.attributes["fill"]
            inner_filled = bool(inner.size) and int(inner.min()) < 0
            if not (has_fill and inner_filled) or inner_fill == fill:
                flat = np.where(flat >= 0, inner[np.maximum(flat, 0)], -1) if has_fill else inner[flat]
                fill = inner_fill if inner_filled else fill
                has_fill = bool(flat.size) and int(flat.min()) < 0
                parent = earlier.inputs[0]
                source = Variable(parent, self.nodes[parent].shape, x.dtype, x.integral)
        if not has_fill and flat.size == source.size and np.array_equal(flat.reshape(-1), np.arange(source.size)):
            return self.reshape(source, flat.shape)
        whole = x.integral and (not has_fill or float(fill).is_integer())
        return self.add("Take", (source,), flat.shape, {"indices": flat}, {"fill": float(fill)}, like=x, integral=whole)

    def broadcast(self, x: Variable, shape: Sequence[int]) -> Variable:
        """`x` repeated to `shape` by numpy's broadcasting rules."""
        extents = tuple(shape)
        if x.shape == extents:
            return x
        if x.size == math.prod(extents) and len(x.shape) <= len(extents):
            return self.reshape(x, extents)
        self.claim(extents)
        indices = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        return self.take(x, np.broadcast_to(indices, extents))

    def scale(
        self, x: Variable, scale: Array | Precise | None = None, shift: Array | Precise | None = None
    ) -> Variable:
        """``x * scale + shift``, with `x` and the arrays broadcast against each other."""
        operands = {key: array for key, array in (("scale", scale), ("shift", shift)) if array is not None}
        shape = np.broadcast_shapes(x.shape, *(tuple(array.shape) for array in operands.values()))
        x = self.broadcast(x, shape)
        params = {key: self.real(array) for key, array in operands.items() if not _is_neutral(key, array)}
        whole = x.integral and all(_is_whole(array) for array in operands.values())
        return self.add("Scale", (x,), shape, params, integral=whole) if params else x

    def real(self, array: Array | Precise) -> Array | Precise:
        """An array of whole numbers in the graph's float type, or as exact numbers where that has not room for them."""
        if not isinstance(array, np.ndarray) or array.dtype.kind == "f":
            return array
        made = array.astype(self.dtype)
        return (
            made
            if array.dtype.kind == "b" or array.dtype.itemsize < 4 or _same_integers(made, array)
            else (Precise.of(array))
        )

    def affine(self, x: Variable, scale: float | Precise = 1.0, shift: float = 0.0) -> Variable:
        """``x * scale + shift`` with two numbers; those that float32 does not hold count as rounded."""
        factor = scale if isinstance(scale, Precise) else self.computed(np.asarray(scale, dtype=np.float64))
        return self.scale(
            x,
            None if scale == 1.0 else factor,
            None if shift == 0.0 else self.computed(np.asarray(shift, dtype=np.float64)),
        )

    def sum_of(self, terms: Sequence[Variable], signs: Sequence[int]) -> Variable:
        """``sum_k signs[k] * terms[k]`` with broadcasting."""
        shape = np.broadcast_shapes(*(x.shape for x in terms))
        if len(terms) == 1:
            return terms[0] if signs[0] == 1 else self.affine(terms[0], -1.0)
        operands = [self.broadcast(x, shape) for x in terms]
        whole = all(x.integral for x in terms)
        return self.add("Add", operands, shape, attributes={"signs": tuple(signs)}, integral=whole)

    def masked(self, x: Variable, added: Array) -> Variable:
        """``x + added`` where entries of `added` may be minus infinity; live, it becomes a constant."""
        added = added if isinstance(added, np.ndarray) else added.detach().cpu().numpy()
        hidden = np.isneginf(added)
        shifted = self.scale(x, shift=np.where(hidden, 0.0, added))
        return Masked(
            shifted.index, shifted.shape, shifted.dtype, shifted.integral, hidden=np.broadcast_to(hidden, shifted.shape)
        )

    def difference(self, a: Value, b: Value) -> Variable:
        """``a - b``, at least one of them a variable."""
        if is_known(b):
            return self.scale(self.variable(a), shift=-self.real(b))
        if is_known(a):
            return self.scale(b, scale=np.asarray(-1.0), shift=a)
        return self.sum_of((a, b), (1, -1))

    def unary(
        self, op: str, x: Variable, attributes: Mapping[str, Any] | None = None, integral: bool = False
    ) -> Variable:
        """An elementwise operator of one operand."""
        return self.add(op, (x,), x.shape, attributes=attributes, integral=integral)

    def elementwise(self, op: str, operands: Sequence[Variable], integral: bool = False) -> Variable:
        """An elementwise operator of several operands, broadcast to a common shape."""
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        aligned = [self.broadcast(x, shape) for x in operands]
        return self.add(op, aligned, shape, integral=integral)

    def product(self, a: Variable, b: Variable) -> Variable:
        """``a * b``; a square where both are the same tensor."""
        whole = a.integral and b.integral
        if a.index == b.index:
            return self.unary("Pow", a, {"exponent": 2.0}, integral=whole)
        return self.elementwise("Mul", (a, b), integral=whole)

    def same(self, a: Variable, b: Variable) -> Variable:
        """A value of which `a` and `b` are two forms; lines that nobody chooses are those of `a`."""
        return self.add("Same", (a, b), a.shape)

    def reduce_sum(self, x: Variable, axes: Sequence[int], keepdims: bool) -> Variable:
        """The sum over `axes` (non-negative)."""
        chosen = tuple(sorted(set(axes)))
        shape = tuple(
            1 if axis in chosen else extent for axis, extent in enumerate(x.shape) if keepdims or axis not in chosen
        )
        if all(x.shape[axis] == 1 for axis in chosen):
            return self.reshape(x, shape)
        return self.add("Sum", (x,), shape, attributes={"axes": chosen, "keepdims": keepdims}, integral=x.integral)

    def linear(self, x: Variable, weight: Array | Precise, bias: Array | Precise | None = None) -> Variable:
        """``x @ weight.T + bias`` over the last axis; `weight` is ``[out, in]``."""
        if x.shape[-1:] != tuple(weight.shape[1:]):
            raise LoweringError(f"weight {list(weight.shape)} does not fit an input of shape {list(x.shape)}")
        params = {"weight": self.real(weight)}
        if bias is not None:
            params["bias"] = self.real(bias)
        return self.add("Linear", (x,), (*x.shape[:-1], weight.shape[0]), params)

    def graph(self, inputs: Sequence[Variable], outputs: Sequence[Variable]) -> Graph:
        """The finished graph."""
        return Graph(tuple(self.nodes), tuple(x.index for x in inputs), tuple(x.index for x in outputs))


@np.errstate(over="ignore", invalid="ignore")
def is_finite(array: np.ndarray) -> bool:
    """Whether all values are finite; no temporary of the array's size unless one may not be."""
    return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def _same_integers(reals: np.ndarray, integers: np.ndarray) -> bool:
    """Whether floating-point numbers are the very integers they were made from."""
    limit = 2.0 ** (24 if reals.dtype == np.float32 else 53)
    return bool((abs(reals) < limit).all()) or not np.any((Precise.of(integers) - Precise.of(reals)).high)


def _is_neutral(role: str, array: Array | Precise) -> bool:
    """Whether scaling by, or shifting by, an array changes nothing."""
    if isinstance(array, Precise):
        return not np.any(array.distance) and _is_neutral(role, array.high)
    return isinstance(array, np.ndarray) and bool(np.all(array == (1 if role == "scale" else 0)))


def _is_whole(array: Array | Precise) -> bool:
    """Whether an array is known to hold whole numbers only."""
    if isinstance(array, Precise):
        return not np.any(array.distance) and _is_whole(array.high)
    if not isinstance(array, np.ndarray):
        return False
    return array.dtype.kind != "f" or bool(np.all(array == np.floor(array)))
