"""Valid graphs that exporters seldom write: any order, default values, constants in unusual places, infinite masks."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load
from onnx import NodeProto, TensorProto, helper

from .models import assert_same_as_runtime, model_of, single
from .test_general_graphs import CASES as GENERAL
from .test_lowering import CASES as PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .test_lowering import Case

F = np.float32


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 1).normal(size=shape).astype(F)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def test_nodes_in_any_order() -> None:
    nodes = [
        node("Add", "h c", "y"),
        node("MatMul", "x w", "p"),
        node("Relu", "p", "h"),
        node("Constant", "", "c", value_floats=[0.5, -0.5]),
    ]
    network = assert_same_as_runtime(model_of(nodes, {"x": [1, 3]}, ["y"], {"w": normal(3, 2)}))
    assert network.operator_counts == {"Add": 1, "Constant": 1, "MatMul": 1, "Relu": 1}


def test_what_a_branch_reads_is_made_before_it() -> None:
    branches = [
        helper.make_graph(
            [node("Mul", "late x", f"t{side}"), node("Neg", f"t{side}", f"r{side}")],
            f"side{side}",
            [],
            [helper.make_empty_tensor_value_info(f"r{side}")],
        )
        for side in range(2)
    ]
    nodes = [
        node("If", "yes", "y", then_branch=branches[0], else_branch=branches[1]),
        node("Add", "x x", "late"),
    ]
    assert_same_as_runtime(model_of(nodes, {"x": [3]}, ["y"], {"yes": np.asarray(True)}))


def test_long_chains_in_reverse_order() -> None:
    nodes = [node("Relu", f"t{k}" if k else "x", f"t{k + 1}") for k in range(2000)]
    network = load(model_of(nodes[::-1], {"x": [2]}, ["t2000"]), check=False)
    assert network.operator_counts == {"Relu": 2000}


def test_inputs_that_have_a_default_value() -> None:
    """Where every input has one they are inputs all the same; where some have none, those alone are."""
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "y")]
    weights = {"x": normal(1, 4), "w": normal(4, 2)}
    network = assert_same_as_runtime(model_of(nodes, {"x": [1, 4]}, ["y"], weights))
    assert [info.name for info in network.inputs] == ["x"]
    network = assert_same_as_runtime(model_of(nodes, {"x": [1, 4], "w": [4, 2]}, ["y"], {"w": normal(4, 2)}))
    assert [info.name for info in network.inputs] == ["x"]


def subsets() -> Iterator[tuple[str, Case, tuple[int, ...]]]:
    """Every operator's cases with every choice of which of its inputs depend on the network's."""
    for number, case in enumerate([*PLAIN, *GENERAL]):
        _, shapes, constants, _ = case
        given = [array for array in constants if array is not None]
        count = len(shapes) + len(given)
        if 2 <= count <= 4:
            for size in range(1, count + 1):
                yield from (
                    (f"{number}-{case[0]}-{chosen}", case, chosen) for chosen in combinations(range(count), size)
                )


def why_refused(model: bytes) -> str:
    try:
        load(model)
    except LoadError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("op", sorted({case[0] for _, case, _ in subsets()}))
def test_whichever_inputs_are_constant(op: str) -> None:
    """Loads as the runtime reads it, or is refused for a reason that names no error of Python's."""
    random = np.random.default_rng(0)
    for name, (op_type, shapes, constants, options), chosen in subsets():
        if op_type != op:
            continue
        settings = dict(options)
        low, high = settings.pop("low", -2.0), settings.pop("high", 2.0)
        first, opset = settings.pop("constants_first", False), settings.pop("opset", 17)
        outputs = [f"y{k}" for k in range(settings.pop("outputs", 1))]
        settings.pop("element_type", None)
        drawn: list[np.ndarray | None] = [random.uniform(low, high, shape).astype(F) for shape in shapes]
        arrays = [*constants, *drawn] if first else [*drawn, *constants]
        present = [k for k, array in enumerate(arrays) if array is not None]
        varied = {present[k] for k in chosen}
        if any(np.asarray(arrays[k]).dtype != F for k in varied):
            continue
        names = [f"i{k}" if array is not None else "" for k, array in enumerate(arrays)]
        fixed = {f"i{k}": arrays[k] for k in present if k not in varied}
        entries = {f"i{k}": list(np.shape(arrays[k])) for k in sorted(varied)}
        model = model_of([helper.make_node(op, names, outputs, **settings)], entries, outputs, fixed, opset)
        reason = why_refused(model)
        assert not re.search(r"\(\w*Error: |differs", reason), (name, reason)


MASK = np.where(np.tril(np.ones((3, 3), dtype=bool)), 0.0, -np.inf).astype(F)


def scores(*after: NodeProto) -> list[NodeProto]:
    return [node("MatMul", "x w", "s"), *after, node("Softmax", "m", "a", axis=-1), node("MatMul", "a v", "y")]


MASKED = {
    "added": scores(node("Add", "s mask", "m")),
    "and converted": scores(node("Add", "s mask", "b"), node("Cast", "b", "m", to=TensorProto.FLOAT)),
    "and moved": scores(
        node("Add", "s mask", "b"),
        node("Unsqueeze", "b axis", "c"),
        node("Identity", "c", "d"),
        node("Transpose", "d", "e", perm=[0, 2, 1]),
        node("Transpose", "e", "f", perm=[0, 2, 1]),
        node("Squeeze", "f axis", "m"),
    ),
    "chosen": scores(node("Where", "seen s minus", "m")),
    "and looked for": [
        *scores(node("Add", "s mask", "m"))[:-1],
        node("ReduceMax", "mask", "top", axes=[-1]),
        node("Equal", "top minus", "none"),
        node("Where", "none zero a", "b"),
        node("MatMul", "b v", "y"),
    ],
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_of_minus_infinity(name: str) -> None:
    constants = {
        "w": normal(4, 3),
        "v": normal(3, 2),
        "mask": MASK,
        "seen": MASK == 0,
        "minus": np.asarray(-np.inf, F),
        "zero": np.asarray(0.0, F),
        "axis": np.asarray([0]),
    }
    assert_same_as_runtime(model_of(MASKED[name], {"x": [3, 4]}, ["y"], constants))


@pytest.mark.parametrize("limit", [np.inf, -np.inf])
@pytest.mark.parametrize("op", ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
@pytest.mark.parametrize("first", [False, True])
def test_comparisons_with_infinity(op: str, limit: float, first: bool) -> None:
    assert_same_as_runtime(single(op, [[2, 3]], [np.full(3, limit, F)], constants_first=first))


@pytest.mark.parametrize("settings", [{}, {"is_causal": 1}, {"softcap": 2.0}, {"left_window_size": -1}])
def test_attention(settings: dict[str, Any]) -> None:
    opset = 25 if "left_window_size" in settings else 23
    model = single("Attention", [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 2]], [MASK], opset=opset, **settings)
    if opset == 23:
        assert_same_as_runtime(model)


def test_attention_with_an_offset_that_depends_on_the_inputs() -> None:
    assert_same_as_runtime(
        single("Attention", [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 2], [3, 3]], opset=23, is_causal=1)
    )


def test_infinite_and_missing_constants_of_the_tests_of_constants() -> None:
    nodes = [node("IsInf", "k", "a", detect_positive=0), node("IsNaN", "k", "b"), node("Or", "a b", "c")]
    nodes += [node("Where", "c x zero", "y")]
    constants = {"k": np.asarray([np.inf, -np.inf, 1.0], F), "zero": np.zeros(3, F)}
    assert_same_as_runtime(model_of(nodes, {"x": [3]}, ["y"], constants))


def test_ranges_of_large_whole_numbers_are_exact() -> None:
    nodes = [
        node("Range", "a b one", "r"),
        node("Sub", "r a", "d"),
        node("Cast", "d", "f", to=TensorProto.FLOAT),
        node("Add", "x f", "y"),
    ]
    start = np.asarray((1 << 60) + 1)
    assert_same_as_runtime(model_of(nodes, {"x": [3]}, ["y"], {"a": start, "b": start + 3, "one": np.asarray(1)}))


LARGE = np.asarray([(1 << 60) + 1, -(1 << 60) - 3, np.iinfo(np.int64).max, 7])

MOVES = {
    "Tile": [node("Tile", "k two", "r")],
    "Split": [node("Split", "k", "p r", axis=0)],
    "GatherElements": [node("GatherElements", "k places", "r")],
    "Compress": [node("Compress", "k chosen", "r")],
    "Div": [node("Div", "k three", "r")],
    "Add": [node("Sub", "k three", "r")],
}


@pytest.mark.parametrize("name", MOVES)
def test_large_whole_numbers_are_exact(name: str) -> None:
    """They are moved, divided and compared as they are, not as floating-point numbers."""
    constants = {
        "k": LARGE,
        "two": np.asarray([2]),
        "three": np.asarray(3),
        "places": np.asarray([3, 2, 0]),
        "chosen": np.asarray([True, False, True, True]),
        "ends": np.asarray([1]),
    }
    moved = [*MOVES[name], node("Mod", "r modulus", "m"), node("Cast", "m", "f", to=TensorProto.FLOAT)]
    constants["modulus"] = np.asarray(1000)
    nodes = [*moved, node("Slice", "f zero one", "g"), node("Add", "x g", "y")]
    constants |= {"zero": np.asarray([0]), "one": np.asarray([1])}
    assert_same_as_runtime(model_of(nodes, {"x": [1]}, ["y"], constants))


def test_whole_numbers_that_cannot_be_kept_are_refused() -> None:
    nodes = [node("CumSum", "k zero", "c"), node("Cast", "c", "f", to=TensorProto.FLOAT), node("Add", "x f", "y")]
    with pytest.raises(LoadError, match="whole numbers beyond"):
        load(model_of(nodes, {"x": [4]}, ["y"], {"k": LARGE, "zero": np.asarray(0)}))


@pytest.mark.parametrize("value", [3e9, -3e9, np.inf, np.nan])
def test_constants_that_a_cast_does_not_reach(value: float) -> None:
    nodes = [
        node("Cast", "k", "i", to=TensorProto.INT32),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Add", "x f", "y"),
    ]
    with pytest.raises(LoadError, match=r"int32 does not reach|NaN"):
        load(model_of(nodes, {"x": [1]}, ["y"], {"k": np.asarray([value], F)}))
