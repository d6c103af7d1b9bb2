"""Simplification keeps what a graph computes and removes what it can."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.loading.onnx_import import import_model
from boundsmith.verify.loading.onnx_reader import parse_model
from boundsmith.verify.loading.simplify import simplify
from onnx import NodeProto, helper

from .models import model_of

F = np.float32


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 3).normal(size=shape).astype(F)


def operators_after(
    nodes: list[NodeProto], shape: list[int], weights: dict[str, np.ndarray], fold: bool = True
) -> Counter[str]:
    """Operators of the simplified graph, after checking that it equals the original at random points."""
    imported = import_model(parse_model(model_of(nodes, {"x": shape}, ["y"], weights), "test"), "test")
    simple = simplify(imported.graph, fold)
    points = np.random.default_rng(0).normal(size=(5, *shape)).astype(F)
    before, after = evaluate(imported.graph, [points]), evaluate(simple, [points])
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
    counts = Counter(node.op for node in simple.nodes)
    assert counts.pop("Input") == 1
    return counts


def node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


STATISTICS = {"s": normal(4), "t": normal(4), "m": normal(4), "v": normal(4) ** 2 + 0.5}


@pytest.mark.parametrize("groups", [1, 2])
def test_normalisation_after_convolutions(groups: int) -> None:
    for op, weight in (("Conv", normal(4, 4 // groups, 3, 3)), ("ConvTranspose", normal(4, 4 // groups, 3, 3))):
        nodes = [node(op, "x w", "a", group=groups, pads=[1, 1, 1, 1]), node("BatchNormalization", "a s t m v", "y")]
        assert operators_after(nodes, [1, 4, 5, 5], {"w": weight, **STATISTICS}) == {op: 1}


@pytest.mark.parametrize("groups", [1, 2])
def test_normalisation_before_a_convolution(groups: int) -> None:
    nodes = [node("BatchNormalization", "x s t m v", "a"), node("Conv", "a w", "y", group=groups)]
    weights = {"w": normal(6, 4 // groups, 3, 3), **STATISTICS}
    assert operators_after(nodes, [1, 4, 5, 5], weights) == {"Conv": 1}
    nodes = [node("BatchNormalization", "x s t m v", "a"), node("Conv", "a w", "y", group=groups, pads=[1, 1, 1, 1])]
    assert operators_after(nodes, [1, 4, 5, 5], weights) == {"Scale": 1, "Conv": 1}


def test_scaling_around_dense_layers() -> None:
    nodes = [
        node("Sub", "x t", "a"),
        node("Div", "a s", "b"),
        node("Flatten", "b", "c"),
        node("MatMul", "c w", "d"),
        node("Add", "d u", "e"),
        node("Mul", "e k", "f"),
        node("Neg", "f", "y"),
    ]
    weights = {"t": normal(1, 2, 2), "s": normal(1), "w": normal(4, 3), "u": normal(3), "k": normal(3)}
    assert operators_after(nodes, [1, 2, 2], weights) == {"Reshape": 1, "Linear": 1}


def test_channel_normalisation_of_a_reshaped_vector() -> None:
    nodes = [
        node("Gemm", "x w", "a"),
        node("Reshape", "a r", "b"),
        node("BatchNormalization", "b s t m v", "y"),
    ]
    weights = {"w": normal(3, 16), "r": np.asarray([1, 4, 2, 2]), **STATISTICS}
    assert operators_after(nodes, [1, 3], weights) == {"Linear": 1, "Reshape": 1}


def test_adjacent_and_parallel_dense_layers_merge() -> None:
    nodes = [
        node("Gemm", "x w b", "a"),
        node("Gemm", "a v", "c"),
        node("Gemm", "x u b", "d"),
        node("Sub", "c d", "e"),
        node("Relu", "e", "y"),
    ]
    weights = {"w": normal(3, 4), "b": normal(4), "v": normal(4, 4), "u": normal(3, 4)}
    assert operators_after(nodes, [1, 3], weights) == {"Linear": 1, "Relu": 1}


def test_an_expanding_product_of_dense_layers_is_kept() -> None:
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a v", "y")]
    assert operators_after(nodes, [1, 100], {"w": normal(100, 2), "v": normal(2, 100)}) == {"Linear": 2}


def test_a_layer_with_two_readers_stays_for_both() -> None:
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("Mul", "a k", "c"), node("Add", "b c", "y")]
    weights = {"w": normal(3, 4), "k": normal(4)}
    assert operators_after(nodes, [1, 3], weights) == {"Linear": 1, "Relu": 1, "Scale": 1, "Add": 1}


def test_moves_compose_and_cancel() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 2, 1]),
        node("Transpose", "a", "b", perm=[0, 2, 1]),
        node("Reshape", "b r", "c"),
        node("Slice", "c zero three", "d"),
        node("Gather", "d picks", "e", axis=0),
        node("Relu", "e", "y"),
    ]
    weights = {"r": np.asarray([6]), "zero": np.asarray([0]), "three": np.asarray([3]), "picks": np.asarray([2, 0])}
    assert operators_after(nodes, [1, 2, 3], weights) == {"Take": 1, "Relu": 1}


def test_sums_of_sums_and_gates() -> None:
    nodes = [
        node("Sigmoid", "x", "g"),
        node("Mul", "x g", "a"),
        node("Relu", "x", "b"),
        node("Sub", "a b", "c"),
        node("Sin", "x", "d"),
        node("Sub", "d c", "y"),
    ]
    assert operators_after(nodes, [2, 3], {}) == {"Silu": 1, "Relu": 1, "Sin": 1, "Add": 1}


def test_without_folding_parameters_stay() -> None:
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Identity", "c", "y")]
    assert operators_after(nodes, [1, 3], {"w": normal(3, 4), "b": normal(4)}, fold=False) == {"Linear": 1, "Scale": 1}


def test_dead_and_neutral_nodes_go() -> None:
    nodes = [node("Mul", "x one", "a"), node("Add", "a zero", "b"), node("Sin", "x", "unused"), node("Relu", "b", "y")]
    assert operators_after(nodes, [2], {"one": np.ones(2, F), "zero": np.zeros(1, F)}) == {"Relu": 1}


def lattice_weights(pairs: list[tuple[int, int]], maximum: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The two dense layers that take minima or maxima of pairs, their neurons in random order."""
    order = np.random.default_rng(seed).permutation(4 * len(pairs))
    first, second = np.zeros((4 * len(pairs), 6), F), np.zeros((len(pairs), 4 * len(pairs)), F)
    spread = 0.5 if maximum else -0.5
    for row, (a, b) in enumerate(pairs):
        for k, (signs, factor) in enumerate([((1, 1), 0.5), ((-1, -1), -0.5), ((1, -1), spread), ((-1, 1), spread)]):
            neuron = order[4 * row + k]
            first[neuron, [a, b]] = signs
            second[row, neuron] = factor
    return first, second


@pytest.mark.parametrize("maximum", [True, False])
def test_minima_and_maxima_spelt_as_dense_layers(maximum: bool) -> None:
    pairs = [(0, 5), (2, 1), (3, 4)]
    first, second = lattice_weights(pairs, maximum, 4)
    nodes = [
        node("Sin", "x", "s"),
        node("MatMul", "s w", "a"),
        node("Add", "a zero", "b"),
        node("Relu", "b", "c"),
        node("MatMul", "c v", "y"),
    ]
    weights = {"w": first.T, "v": second.T, "zero": np.zeros(12, F)}
    assert operators_after(nodes, [2, 6], weights) == {"Sin": 1, "Take": 2, "Add": 2, "Relu": 1}


@pytest.mark.parametrize(("row", "column", "value"), [(0, 0, 0.25), (1, 3, -0.5), (2, 11, 0.5)])
def test_almost_minima_are_left_alone(row: int, column: int, value: float) -> None:
    first, second = lattice_weights([(0, 5), (2, 1), (3, 4)], True, 4)
    changed = second.copy()
    changed[row, column] = value
    if np.array_equal(changed, second):
        changed[row, column] = -value
    nodes = [
        node("Sin", "x", "s"),
        node("MatMul", "s w", "a"),
        node("Relu", "a", "c"),
        node("MatMul", "c v", "y"),
    ]
    assert operators_after(nodes, [2, 6], {"w": first.T, "v": changed.T}) == {"Sin": 1, "Linear": 2, "Relu": 1}


NEAR = [float(np.nextafter(F(1), F(2))), 1.0 - 1e-6, 1e-30]


@pytest.mark.parametrize("maximum", [True, False])
@pytest.mark.parametrize("layer", ["first", "second", "bias"])
@pytest.mark.parametrize("near", NEAR)
def test_weights_off_by_one_unit_are_no_minima(maximum: bool, layer: str, near: float) -> None:
    """The identity is exact or not used: any weight that is not exactly 1 or 0.5, or a bias, keeps both layers."""
    first, second = lattice_weights([(0, 5), (2, 1), (3, 4)], maximum, 4)
    bias = np.zeros(12, F)
    if layer == "bias":
        bias[7] = near - 1.0
    else:
        changed = first if layer == "first" else second
        row, column = np.argwhere(changed if near > 0.5 else changed == 0)[5]
        changed[row, column] = near * (changed[row, column] if near > 0.5 else 1.0)
    nodes = [
        node("Sin", "x", "s"),
        node("MatMul", "s w", "a"),
        node("Add", "a bias", "b"),
        node("Relu", "b", "c"),
        node("MatMul", "c v", "y"),
    ]
    weights = {"w": first.T, "v": second.T, "bias": bias}
    assert operators_after(nodes, [2, 6], weights) == {"Sin": 1, "Linear": 2, "Relu": 1}


@pytest.mark.parametrize("mix", ["swapped operands", "doubled pattern", "one bank of both"])
def test_banks_with_other_patterns_are_left_alone(mix: str) -> None:
    first, second = lattice_weights([(0, 5), (2, 1), (3, 4)], True, 4)
    neurons = np.flatnonzero(second[0])
    if mix == "swapped operands":
        first[neurons[0]] = np.roll(first[neurons[0]], 1)
    elif mix == "doubled pattern":
        first[neurons[0]] = first[neurons[1]]
    else:
        other, _ = lattice_weights([(0, 5), (2, 1), (3, 4)], False, 4)
        signs = first[neurons].prod(axis=1, where=first[neurons] != 0)
        second[0, neurons[signs < 0]] = -0.5
        np.testing.assert_array_equal(other, first)
    nodes = [
        node("Sin", "x", "s"),
        node("MatMul", "s w", "a"),
        node("Relu", "a", "c"),
        node("MatMul", "c v", "y"),
    ]
    assert operators_after(nodes, [2, 6], {"w": first.T, "v": second.T}) == {"Sin": 1, "Linear": 2, "Relu": 1}


def test_rows_of_a_layer_of_few_inputs_are_taken_from_its_weight() -> None:
    nodes = [
        node("Gemm", "x w b", "a"),
        node("Gather", "a i", "p", axis=1),
        node("Gather", "a j", "q", axis=1),
        node("Sub", "p q", "d"),
        node("Relu", "d", "r"),
        node("Add", "r q", "y"),
    ]
    weights = {"w": normal(2, 6), "b": normal(6), "i": np.asarray([0, 2, 4]), "j": np.asarray([5, 3, 1])}
    assert operators_after(nodes, [1, 2], weights) == {"Linear": 2, "Relu": 1, "Add": 1}
