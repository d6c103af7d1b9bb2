"""One or more nodes of every operator, with the values that its inputs may take: what the property tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from boundsmith.verify.graph import Array, Node

Domain = Callable[[np.ndarray], np.ndarray]
"""Maps any reals to values that an input may take, monotonically, so that intervals stay intervals."""


def real(x: np.ndarray) -> np.ndarray:
    """All reals."""
    return x


def positive(x: np.ndarray) -> np.ndarray:
    """The reals from 0.01 on."""
    return np.where(x > 0, x + 1, np.exp(np.clip(x, -4.6, 0))).astype(x.dtype)


def negative(x: np.ndarray) -> np.ndarray:
    """The reals up to -0.01."""
    return -positive(-x)


def moderate(x: np.ndarray) -> np.ndarray:
    """Reals of size up to 50."""
    return np.clip(x, -50, 50)


def branch(x: np.ndarray) -> np.ndarray:
    """One branch of the tangent, its poles left out."""
    return (np.arctan(x) * 0.95).astype(x.dtype)


def shifted_branch(x: np.ndarray) -> np.ndarray:
    """Another branch of the tangent."""
    return (np.arctan(x) * 0.95 + 2 * np.pi).astype(x.dtype)


def bit(x: np.ndarray) -> np.ndarray:
    """0 or 1."""
    return (x > 0).astype(x.dtype)


def position(limit: int) -> Domain:
    """Whole numbers from 0 to `limit`."""

    def whole(x: np.ndarray) -> np.ndarray:
        return np.clip(np.round(x + limit / 2), 0, limit).astype(x.dtype)

    return whole


@dataclass(frozen=True, eq=False)
class Case:
    """A node, its inputs' domains, and whether gradients are compared with autograd (not at jumps)."""

    node: Node
    domains: tuple[Domain, ...]
    differentiable: bool = True

    @property
    def agreeing(self) -> bool:
        """Whether all inputs have one value."""
        return self.node.op == "Same"

    @property
    def elementwise(self) -> bool:
        return all(shape == self.node.shape for shape in self.node.input_shapes)


_RANDOM = np.random.default_rng(7)


def _array(*shape: int) -> np.ndarray:
    return _RANDOM.normal(size=shape)


def _case(
    op: str,
    shape: tuple[int, ...],
    inputs: tuple[tuple[int, ...], ...],
    params: dict[str, Array] | None = None,
    domains: tuple[Domain, ...] = (),
    differentiable: bool = True,
    **attributes: Any,
) -> Case:
    node = Node(f"a_{op}", op, tuple(range(len(inputs))), shape, params or {}, attributes, inputs)
    return Case(node, domains or (real,) * len(inputs), differentiable)


def _unary(op: str, domain: Domain = real, params: dict[str, Array] | None = None, **attributes: Any) -> Case:
    return _case(op, (2, 3), ((2, 3),), params, (domain,), **attributes)


def _conv(op: str, spatial: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...], **window: Any) -> Case:
    groups = window.get("groups", 1)
    first, second = (6, 4 // groups) if op == "Conv" else (4, 6 // groups)
    rank = len(spatial)
    attributes = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "dilations": (1,) * rank, "groups": 1, **window}
    params = {"weight": _array(first, second, *kernel), "bias": _array(6)}
    return _case(op, (2, 6, *out), ((2, 4, *spatial),), params, **attributes)


def _matmul(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> Case:
    return _case("MatMul", out, (left, right))


def _const_matmul(side: str, matrix: tuple[int, ...], x: tuple[int, ...], out: tuple[int, ...]) -> Case:
    return _case("ConstMatMul", out, (x,), {"matrix": _array(*matrix)}, side=side)


def _take(indices: Any, size: int, fill: float = 0.0) -> Case:
    indices = np.asarray(indices)
    return _case("Take", indices.shape, ((size,),), {"indices": indices}, fill=fill)


CASES: tuple[Case, ...] = (
    _case("Constant", (2, 3), (), {"value": _array(2, 3)}),
    _case("Linear", (2, 4), ((2, 3),), {"weight": _array(4, 3), "bias": _array(4)}),
    _case("Linear", (4,), ((3,),), {"weight": _array(4, 3)}),
    _case("Scale", (2, 3), ((2, 3),), {"scale": _array(2, 1), "shift": _array(3)}),
    _case("Scale", (2, 3), ((2, 3),), {"shift": _array(1)}),
    _case("Scale", (2, 3), ((2, 3),), {"scale": np.array([0.0, 1.0, -2.0])}),
    _case("Add", (2, 3), ((2, 3),) * 3, signs=(1, -1, 1)),
    _case("Add", (2, 3), ((2, 3),) * 2, signs=(-1, 1)),
    _case("Reshape", (6,), ((2, 3),)),
    _case("Transpose", (4, 2, 3), ((2, 3, 4),), perm=(2, 0, 1)),
    _case("Concat", (2, 5), ((2, 3), (2, 2)), axis=-1),
    _case("Concat", (5, 2), ((3, 2), (2, 2)), axis=0),
    _case("Sum", (2, 4), ((2, 3, 4),), axes=(1,), keepdims=False),
    _case("Sum", (1, 3, 1), ((2, 3, 4),), axes=(0, -1), keepdims=True),
    _take([[0, 3, -1], [3, 3, 1]], 7, fill=2.5),
    _take([2, 3, 4], 7),
    _take([6, 0, 4], 7),
    _take([-1, 0, -1], 7),
    _conv("Conv", (8, 9), (3, 3), (8, 9), pads=(1, 1, 1, 1)),
    _conv("Conv", (8, 9), (3, 2), (4, 5), strides=(2, 2), pads=(0, 1, 1, 1), groups=2),
    _conv("Conv", (8, 9), (3, 3), (2, 3), strides=(2, 2), dilations=(2, 2)),
    _conv("Conv", (9, 9), (2, 2), (2, 2), strides=(5, 5)),
    _conv("Conv", (9,), (3,), (3,), strides=(3,), pads=(1, 0)),
    _conv("Conv", (5, 5, 5), (2, 2, 2), (2, 4, 4), strides=(2, 1, 1)),
    _conv("ConvTranspose", (4, 5), (3, 3), (8, 10), strides=(2, 2), pads=(1,) * 4, output_padding=(1, 1)),
    _conv("ConvTranspose", (4, 5), (3, 3), (8, 10), strides=(2, 2), pads=(1, 0, 0, 1), groups=2),
    _conv("ConvTranspose", (4,), (4,), (8,), strides=(2,), pads=(1, 1)),
    _const_matmul("left", (3, 4), (2, 4, 5), (2, 3, 5)),
    _const_matmul("right", (5, 3), (2, 4, 5), (2, 4, 3)),
    _const_matmul("left", (7, 3, 4), (4, 5), (7, 3, 5)),
    _const_matmul("right", (7, 5, 3), (4, 5), (7, 4, 3)),
    _const_matmul("right", (5, 3), (5,), (3,)),
    _const_matmul("left", (4,), (2, 4, 5), (2, 5)),
    _const_matmul("right", (5,), (5,), ()),
    _const_matmul("left", (6, 2, 3, 4), (1, 2, 4, 5), (6, 2, 3, 5)),
    _matmul((2, 3, 4), (2, 4, 5), (2, 3, 5)),
    _matmul((3, 4), (2, 4, 5), (2, 3, 5)),
    _matmul((4,), (4, 5), (5,)),
    _matmul((3, 4), (4,), (3,)),
    _matmul((4,), (4,), ()),
    _unary("Relu"),
    _unary("LeakyRelu", params={"slope": np.array(0.1)}),
    _unary("LeakyRelu", params={"slope": np.array([-0.5, 1.0, 3.0])}),
    _unary("Clip", min=-1.0, max=2.0),
    _unary("Clip", min=0.0),
    _unary("Clip", max=1.5),
    _unary("Clip", min=0.1, max=0.1),
    _unary("Abs"),
    _unary(
        "Piecewise", knots=(-1.0, 0.0, 0.5, 3.0), values=(0.5, -1.0, -0.75, 2.0), slopes=(0.0, -1.5, 0.5, 1.1, -2.0)
    ),
    _unary("Piecewise", knots=(0.25,), values=(-3.0,), slopes=(0.0, 0.75)),
    _unary("Sign", differentiable=False),
    _unary("IsPositive", differentiable=False),
    _unary("IsNonNegative", differentiable=False),
    _unary("IsZero", differentiable=False),
    _unary("Floor", differentiable=False),
    _unary("Ceil", differentiable=False),
    _unary("Round", differentiable=False),
    _unary("Exp", moderate),
    _unary("Log", positive),
    _unary("Sqrt", positive),
    _unary("Softplus"),
    _unary("Softplus", threshold=6.0),
    _unary("Elu", alpha=1.0),
    _unary("Elu", alpha=1.67326),
    _unary("Elu", alpha=0.3),
    _unary("Elu", alpha=0.0),
    _unary("Elu", alpha=-0.5),
    _unary("Elu", alpha=-4.0),
    _unary("Reciprocal", positive),
    _unary("Reciprocal", negative),
    _unary("Pow", exponent=2.0),
    _unary("Pow", exponent=3.0),
    _unary("Pow", moderate, exponent=6.0),
    _unary("Pow", exponent=1.0),
    _unary("Pow", exponent=0.0),
    _unary("Pow", positive, exponent=0.5),
    _unary("Pow", positive, exponent=1.5),
    _unary("Pow", positive, exponent=-0.5),
    _unary("Pow", negative, exponent=-2.0),
    _unary("Pow", negative, exponent=-3.0),
    _unary("Sigmoid"),
    _unary("Tanh"),
    _unary("Arctan"),
    _unary("Erf"),
    _unary("Sin"),
    _unary("Cos"),
    _unary("Tan", branch),
    _unary("Tan", shifted_branch),
    _unary("Gelu", approximate="none"),
    _unary("Gelu", approximate="tanh"),
    _unary("Silu"),
    _unary("HardSwish"),
    _case("Mul", (2, 3), ((2, 3),) * 2),
    _case("Div", (2, 3), ((2, 3),) * 2, domains=(real, positive)),
    _case("Div", (2, 3), ((2, 3),) * 2, domains=(real, negative)),
    _case("Where", (2, 3), ((2, 3),) * 3, domains=(bit, real, real)),
    _case("Max", (2, 3), ((2, 3),) * 2),
    _case("Max", (2, 3), ((2, 3),) * 5),
    _case("Max", (2, 3), ((2, 3),)),
    _case("Min", (2, 3), ((2, 3),) * 3),
    _case("Same", (2, 3), ((2, 3),) * 2),
    _case("LogSoftmax", (2, 4), ((2, 4),), axis=1),
    _case("LogSoftmax", (3, 2), ((3, 2),), axis=-2),
    _case("LogSoftmax", (3, 1), ((3, 1),), axis=1),
    _case("ArgMax", (2, 1), ((2, 5),), axis=1, keepdims=True, select_last=False, differentiable=False),
    _case("ArgMax", (5,), ((2, 5),), axis=0, keepdims=False, select_last=True, differentiable=False),
    _case("GatherND", (3, 2), ((4, 5, 2), (3, 2)), domains=(real, position(3)), differentiable=False),
    _case("ScatterND", (4, 5, 2), ((4, 5, 2), (3, 2), (3, 2)), domains=(real, position(3), real), differentiable=False),
    _case(
        "DynamicSlice",
        (2, 3, 2),
        ((2, 6, 2), (1,)),
        domains=(real, position(3)),
        axis=1,
        length=3,
        differentiable=False,
    ),
)


def agreed(case: Case, intervals: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The intervals, made to meet where all inputs have one value."""
    if not case.agreeing:
        return intervals
    (lower, upper), *others = intervals
    common = np.clip(0, lower, upper).astype(lower.dtype)
    return [(lower, upper), *((np.minimum(low, common), np.maximum(high, common)) for low, high in others)]


def label(case: Case) -> str:
    """A readable name for a case."""
    node = case.node
    settings = ",".join(f"{key}={value}" for key, value in node.attributes.items())
    return f"{node.op}[{settings}]{node.input_shapes}{'/'.join(d.__name__ for d in case.domains)}"


def converted(node: Node, convert: Callable[[np.ndarray], Array]) -> Node:
    """The node with its float parameters converted."""
    params = {key: convert(value) if value.dtype.kind == "f" else value for key, value in node.params.items()}
    return Node(node.name, node.op, node.inputs, node.shape, params, node.attributes, node.input_shapes)
