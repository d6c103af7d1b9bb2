"""Attacks on queries that compare softmax outputs look at what the softmax reads, and at nothing else otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify.api import verify
from boundsmith.verify.arrays import Backend
from boundsmith.verify.attack.ranks import before_softmax
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options
from boundsmith.verify.problem import join
from boundsmith.verify.result import Verdict
from boundsmith.verify.rows import prepare_rows
from onnx import helper, numpy_helper

from tests.networks import node
from tests.onnx_files import assert_witness, save
from tests.queries import query_of


def softmax_file(path, weight, shape, operator="Softmax", axis=-1):
    """``softmax(weight x)`` with the product in `shape`."""
    size, inputs = weight.shape
    nodes = [
        helper.make_node("Gemm", ["X", "W"], ["z"], transB=1),
        helper.make_node("Reshape", ["z", "shape"], ["r"]),
        helper.make_node(operator, ["r"], ["s"], axis=axis),
        helper.make_node("Reshape", ["s", "flat"], ["Y"]),
    ]
    weights = [
        numpy_helper.from_array(weight.astype(np.float32), "W"),
        numpy_helper.from_array(np.array(shape, np.int64), "shape"),
        numpy_helper.from_array(np.array([1, size], np.int64), "flat"),
    ]
    return save(path, nodes, [("X", (1, inputs))], [("Y", (1, size))], weights)


def looked_at(file, clauses, size):
    """The graph of the query and the graph that attacks follow."""
    box = Box(-np.ones(3), np.ones(3))
    problem = join(query_of(3, size, [(box, *clause) for clause in clauses]), {"N": load(file).graph})
    graph = Backend("float64").graph(problem.graph)
    return graph, before_softmax(graph, prepare_rows(problem.groups, np.zeros(1)))


def difference(size, first, second):
    row = np.zeros((1, size))
    row[0, first], row[0, second] = 1.0, -1.0
    return row


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(1, 6), (2, 3), (1, 3, 2)])
def test_the_order_is_the_same(tmp_path, seed, shape):
    rng = np.random.default_rng(seed)
    file = softmax_file(tmp_path / "net.onnx", rng.normal(size=(6, 3)), shape)
    count = shape[-1]
    clauses = [(np.concatenate([difference(6, 0, 1), difference(6, count - 1, 0)]), [0.0, 0.0])]
    graph, attacked = looked_at(file, [*clauses, (difference(6, 6 - count, 5), [0.0])], 6)
    assert not any(node.op == "Exp" for node in attacked.nodes)
    points = rng.uniform(-1, 1, (50, 3))
    before, after = output_vector(attacked, points), output_vector(graph, points)
    grouped = [values.reshape(50, -1, count) for values in (before, after)]
    np.testing.assert_array_equal(*(np.argsort(values, axis=2) for values in grouped))


def test_the_order_of_many_is_the_same(tmp_path):
    """Forty scores have too many differences to be written with them."""
    file = softmax_file(tmp_path / "net.onnx", np.random.default_rng(0).normal(size=(40, 3)), (1, 40))
    graph, attacked = looked_at(file, [(difference(40, 3, 39), [0.0])], 40)
    assert not any(node.op in ("Exp", "LogSoftmax") for node in attacked.nodes)
    points = np.random.default_rng(1).uniform(-1, 1, (50, 3))
    order = [np.argsort(output_vector(which, points), axis=1) for which in (attacked, graph)]
    np.testing.assert_array_equal(*order)


@pytest.mark.parametrize(
    ("rows", "offset"),
    [
        (difference(6, 0, 1), 0.1),
        (difference(6, 0, 4), 0.0),
        (2.0 * difference(6, 0, 1) + difference(6, 0, 2), 0.0),
        (abs(difference(6, 0, 1)), 0.0),
        (np.eye(6)[:1], 0.0),
    ],
)
def test_other_rows_are_asked_of_the_outputs(tmp_path, rows, offset):
    file = softmax_file(tmp_path / "net.onnx", np.random.default_rng(0).normal(size=(6, 3)), (2, 3))
    graph, attacked = looked_at(file, [(difference(6, 0, 1), [0.0]), (rows, [offset])], 6)
    assert attacked is graph


@pytest.mark.parametrize(("operator", "axis"), [("LogSoftmax", -1), ("Softmax", 0), ("Sigmoid", None)])
def test_other_functions_stay(tmp_path, operator, axis):
    rng = np.random.default_rng(0)
    if axis is None:
        weights = [numpy_helper.from_array(rng.normal(size=(6, 3)).astype(np.float32), "W")]
        nodes = [helper.make_node("Gemm", ["X", "W"], ["z"], transB=1), helper.make_node(operator, ["z"], ["Y"])]
        file = save(tmp_path / "net.onnx", nodes, [("X", (1, 3))], [("Y", (1, 6))], weights)
    else:
        file = softmax_file(tmp_path / "net.onnx", rng.normal(size=(6, 3)), (2, 3), operator, axis)
    graph, attacked = looked_at(file, [(difference(6, 0, 1), [0.0])], 6)
    assert attacked is graph


@pytest.mark.parametrize("shape", [(6, 4), (6, 5), (1,)])
def test_logistic_sums_stay(shape):
    """``1 / (1 + sum_j exp(x_ij - w_ij))`` is no softmax where the w_ij are something else."""
    size = int(np.prod(shape))
    total = node("t", "Sum", (4,), shape[:-1], axes=(len(shape) - 1,), keepdims=False)
    nodes = (
        node("x", "Input", (), (2 * size,)),
        node("x1", "Take", (0,), shape, {"indices": np.arange(size).reshape(shape)}, fill=0.0),
        node("x2", "Take", (0,), shape, {"indices": np.arange(size, 2 * size).reshape(shape)}, fill=0.0),
        node("d", "Add", (1, 2), shape, signs=(1, -1)),
        node("e", "Exp", (3,), shape),
        total,
        node("s", "Scale", (5,), total.shape, {"shift": np.ones(())}),
        node("y", "Reciprocal", (6,), total.shape),
        node("flat", "Reshape", (7,), (total.size,)),
    )
    graph = Graph(nodes, (0,), (8,))
    row = np.zeros((1, total.size))
    row[0, -1], row[0, 0] = -1.0, row[0, 0] + 1.0
    box = Box(np.zeros(2 * size), np.ones(2 * size))
    problem = join(query_of(2 * size, total.size, [(box, row, [0.0])]), {"N": graph})
    assert before_softmax(problem.graph, prepare_rows(problem.groups, np.zeros(1))) is problem.graph


def test_a_witness_beyond_a_saturated_softmax(tmp_path):
    """Logits of hundreds: the softmax is 0 or 1 almost everywhere, without gradients."""
    rng = np.random.default_rng(5)
    weight = 60.0 * rng.normal(size=(10, 40))
    file = softmax_file(tmp_path / "net.onnx", weight, (1, 10))
    centre = np.sign(weight[0]) * 0.3
    box = Box(centre - 0.2, centre + 0.2)
    property = query_of(40, 10, [(box, difference(10, 0, k), [0.0]) for k in range(1, 10)])
    result = verify({"N": load(file)}, property, 5.0, Options(method="attack"))
    assert result.verdict is Verdict.SAT
    assert_witness(result, property, {"N": file})
