"""Problems are cut to what their rows mention: the same values there, and the same verdicts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.specs.read import read_property
from boundsmith.specs.write import save_property
from boundsmith.verify.budget import Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.options import Options
from boundsmith.verify.problem import Group, Problem, join
from boundsmith.verify.result import Verdict
from boundsmith.verify.strategy import verify_files
from boundsmith.verify.trimmed import trimmed
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.networks import node
from tests.onnx_files import assert_witness, save
from tests.queries import query_of

SIZE = 24


class Maker:
    """A random graph of nodes that can be cut, on an input of `SIZE` entries."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes = [node("x", "Input", (), (SIZE,))]

    def add(self, op, inputs, shape, params=None, **attributes):
        self.nodes.append(node(f"v{len(self.nodes)}", op, inputs, shape, params, **attributes))
        return len(self.nodes) - 1

    def dense(self, source, size):
        """Sparse, so that cuts reach through it; some rows are empty."""
        shape = (size, self.nodes[source].size)
        weight = self.rng.normal(size=shape) * (self.rng.random(shape) < 2.0 / shape[1])
        params = {"weight": weight} | ({"bias": self.rng.normal(size=size)} if self.rng.random() < 0.5 else {})
        return self.add("Linear", [source], (size,), params)

    def entrywise(self, source):
        shape = self.nodes[source].shape
        op = self.rng.choice(["Relu", "Scale", "LeakyRelu", "Sin", "Pow", "Clip", "Add", "Mul", "Max", "Constant"])
        if op == "Scale":
            return self.add("Scale", [source], shape, {"scale": self.rng.normal(size=shape[-1:]), "shift": np.ones(())})
        if op == "LeakyRelu":
            return self.add("LeakyRelu", [source], shape, {"slope": self.rng.random(shape[-1:])})
        if op in ("Add", "Mul", "Max", "Constant"):
            other = self.add("Constant", [], shape, {"value": self.rng.normal(size=shape)})
            if op != "Constant":
                other = self.add("Take", [source], shape, self.indices(source, shape), fill=0.5)
            signs = {"signs": (1, -1)} if op in ("Add", "Constant") else {}
            return self.add("Add" if op == "Constant" else op, [source, other], shape, **signs)
        extra = {"Pow": {"exponent": 2.0}, "Clip": {"min": -1.0, "max": 0.5}}.get(op, {})
        return self.add(op, [source], shape, **extra)

    def indices(self, source, shape):
        return {"indices": self.rng.integers(-1, self.nodes[source].size, shape)}

    def moved(self, source):
        shape = self.nodes[source].shape
        kind = self.rng.integers(4)
        if kind == 0:
            return self.add("Take", [source], (2, SIZE // 2), self.indices(source, (2, SIZE // 2)), fill=-1.0)
        if kind == 1:
            first = self.add("Reshape", [source], (4, self.nodes[source].size // 4))
            return self.add("Transpose", [first], self.nodes[first].shape[::-1], perm=(1, 0))
        if kind == 2:
            axis = int(self.rng.integers(len(shape)))
            doubled = tuple(2 * length if k == axis else length for k, length in enumerate(shape))
            both = self.add("Concat", [source, self.entrywise(source)], doubled, axis=axis)
            return self.add("Take", [both], (SIZE,), self.indices(both, (SIZE,)), fill=0.0)
        return self.add("Reshape", [source], (self.nodes[source].size,))

    def made(self):
        last = 0
        for _ in range(int(self.rng.integers(3, 9))):
            step = self.rng.integers(3)
            if step == 0:
                flat = self.add("Reshape", [last], (self.nodes[last].size,))
                last = self.dense(flat, SIZE)
            else:
                last = self.entrywise(last) if step == 1 else self.moved(last)
        self.add("Reshape", [last], (self.nodes[last].size,))
        return Graph(tuple(self.nodes), (0,), (len(self.nodes) - 1,))


def problem_of(graph, columns, seed=0):
    """Rows over a few columns of the output, in two groups."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(2):
        rows = np.zeros((2, graph.nodes[-1].size))
        rows[:, columns] = rng.normal(size=(2, len(columns)))
        groups.append(
            Group(np.zeros(SIZE), np.ones(SIZE), rows, np.ones(2), np.zeros(2, dtype=bool), np.array([0, 1]), 2)
        )
    return Problem(graph, tuple(groups), graph.nodes[-1].size, SimpleNamespace())


def rows_at(problem, x):
    (y,) = evaluate(problem.graph, [x])
    return np.stack([y.reshape(len(x), -1) @ group.rows.T for group in problem.groups])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3))
def test_rows_have_the_same_values(seed, count):
    graph = Maker(seed).made()
    rng = np.random.default_rng(seed)
    columns = rng.choice(graph.nodes[-1].size, size=count, replace=False)
    problem = problem_of(graph, columns, seed)
    cut = trimmed(problem)
    x = rng.normal(size=(20, SIZE))
    np.testing.assert_allclose(rows_at(cut, x), rows_at(problem, x), rtol=1e-12, atol=1e-12)
    if cut is not problem:
        assert cut.graph.nodes[-1].shape == (count,)
        assert cut.graph.nodes[cut.graph.inputs[0]].shape == (SIZE,)


def test_random_graphs_are_cut():
    """The test above is about something."""
    cut = 0
    for seed in range(40):
        problem = problem_of(Maker(seed).made(), [0])
        cut += trimmed(problem) is not problem
    assert cut > 20


def branches(op="Sin", **attributes):
    """Three outputs, of an input each, through layers of 30 entries of their own."""
    copies = np.kron(np.eye(3), np.ones((30, 1)))
    return Graph(
        (
            node("x", "Input", (), (3,)),
            node("z", "Linear", [0], (90,), {"weight": copies}),
            node("h", op, [1], (90,), **attributes),
            node("y", "Linear", [2], (3,), {"weight": copies.T / 30}),
        ),
        (0,),
        (3,),
    )


@pytest.mark.parametrize(("op", "attributes"), [("Log", {}), ("Pow", {"exponent": 0.5}), ("Pow", {"exponent": -1.0})])
def test_operators_that_may_have_no_value_keep_all_entries(op, attributes):
    """That output 1 has no value somewhere counts, even where no row mentions it."""
    query = query_of(3, 3, [(Box(np.ones(3), 2 * np.ones(3)), [[1.0, 0.0, 0.0]], [-5.0])])
    plain, partial = (join(query, {"N": graph}) for graph in (branches(), branches(op, **attributes)))
    assert trimmed(plain).graph.nodes[-1].size == 1
    assert trimmed(partial) is partial


SHIFTS = np.linspace(-3.0, 3.0, 40, dtype=np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(40, 1)).astype(np.float32)


def sums_of_relus(path):
    """Every output is the same sum of 40 ReLUs, of an input of its own."""
    return save(
        path,
        [
            helper.make_node("Unsqueeze", ["X", "last"], ["u"]),
            helper.make_node("Add", ["u", "shifts"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("MatMul", ["r", "weights"], ["m"]),
            helper.make_node("Squeeze", ["m", "last"], ["Y"]),
        ],
        [("X", (1, 5))],
        [("Y", (1, 5))],
        [
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(SHIFTS, "shifts"),
            numpy_helper.from_array(WEIGHTS, "weights"),
        ],
    )


@pytest.mark.parametrize(("gap", "record"), [(-1e-3, False), (1e-3, False), (-100.0, True)])
@pytest.mark.parametrize("output", [0, 3])
def test_a_threshold_near_the_minimum_of_one_output(tmp_path, gap, record, output):
    """The least value of a piecewise-linear function is that at a kink or an end: the root knows it. A record is about
    the network as it is, of which less is known."""
    network = sums_of_relus(tmp_path / "net.onnx")
    kinks = np.concatenate([-SHIFTS.astype(float), [-3.5, 3.5]])
    least = (np.maximum(kinks[:, None] + SHIFTS.astype(float), 0) @ WEIGHTS.astype(float)).min()
    box = Box(np.full(5, -3.5), np.full(5, 3.5))
    query = query_of(5, 5, [(box, np.eye(5)[output : output + 1], [least + gap])])
    save_property(query, tmp_path / "query.vnnlib", "2.0")
    options = Options(threads=1, record=record)
    result = verify_files(tmp_path / "query.vnnlib", {"": network}, options, Deadline.after(20))
    assert result.verdict is (Verdict.SAT if gap > 0 else Verdict.UNSAT)
    if gap > 0:
        assert_witness(result, read_property(tmp_path / "query.vnnlib"), {"N": network})
    else:
        assert record or result.counters["domains"] <= 3
        assert (result.record is not None) == record
