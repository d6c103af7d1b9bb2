"""Small problems for the tests of splitting activations, and exact answers about them by Z3."""

from __future__ import annotations

import numpy as np
import z3
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import Deadline, MemoryBudget
from boundsmith.verify.graph import Graph
from boundsmith.verify.problem import Group, Problem
from boundsmith.verify.rows import prepare_rows
from boundsmith.verify.search.activation_search import ActivationSearch

from tests.networks import node
from tests.onnx_files import rational
from tests.programs.piecewise import exact_minimum, linear, outputs

DOUBLE = Backend("float64")


def problem_of(graph, *groups):
    """A problem from ``(lower, upper, [(rows, offsets), ...])`` triples."""
    made = []
    for lower, upper, clauses in groups:
        rows = np.concatenate([rows for rows, _ in clauses])
        offsets = np.concatenate([offset for _, offset in clauses])
        of = np.repeat(np.arange(len(clauses)), [len(offset) for _, offset in clauses])
        strict = np.zeros(len(offsets), dtype=bool)
        made.append(Group(np.asarray(lower, float), np.asarray(upper, float), rows, offsets, strict, of, len(clauses)))
    return Problem(graph, tuple(made), graph.nodes[graph.outputs[0]].size, None)


def random_problem(graph, seed, shift, rows=(1, 2), boxes=1):
    """Clauses whose exact least values are all the shift (of the first box; more on others), with a random box each."""
    rng = np.random.default_rng(seed)
    size, count = graph.nodes[0].size, graph.nodes[graph.outputs[0]].size
    groups = []
    for k in range(boxes):
        lower = rng.uniform(-1.2, 0.0, size)
        upper = lower + rng.uniform(0.2, 1.8, size)
        clauses = []
        for amount in rows:
            matrix, offsets = rng.normal(size=(amount, count)), rng.normal(size=amount)
            least = exact_minimum(graph, lower, upper, matrix, offsets)
            # With several rows a shift of all offsets shifts the least value by as much.
            clauses.append((matrix, offsets + least - (shift if k == 0 else abs(shift) + 0.01)))
        groups.append((lower, upper, clauses))
    return problem_of(graph, *groups[::-1])


def margins(problem, group, points):
    """The least ``max_s(rows y - offsets)`` of a group's clauses at points ``[P, n]``: unsafe where <= 0."""
    chosen = problem.groups[group]
    left = outputs(problem.graph, points) @ chosen.rows.T - chosen.offsets
    strongest = [left[:, chosen.clause == k].max(axis=1, initial=-np.inf) for k in range(chosen.count)]
    return np.min(strongest, axis=0)


def checker(problem, slack=0.0):
    """Confirms a point by the graph itself, in float64; the point stands for the witness."""

    def check(points, groups):
        for point, group in zip(np.asarray(points, np.float64), np.asarray(groups), strict=True):
            own = problem.groups[int(group)]
            inside = np.clip(point, own.lower, own.upper)
            if margins(problem, int(group), inside[None])[0] <= slack:
                return inside
        return None

    return check


def search_of(problem, backend=DOUBLE, workers=1, memory=1 << 28):
    """The search of a problem, not yet started."""
    lower, upper = backend.box(
        np.stack([group.lower for group in problem.groups]), np.stack([group.upper for group in problem.groups])
    )
    rows = prepare_rows(problem.groups, lower)
    plan = make_plan(backend.graph(problem.graph))
    finer = problem.groups if backend.dtype == "float32" else None
    return ActivationSearch(plan, rows, lower, upper, MemoryBudget(memory), workers, groups=finer)


def decide(problem, seconds=20.0, check=None, **settings):
    """The search after one run, and the witness."""
    search = search_of(problem, **settings)
    report = search.run(Deadline.after(seconds), check or checker(problem))
    return search, report.witness


def pooling(seed, inputs=2):
    """Convolution over a 4 x 4 image of an affine map of the input, ReLU, maximum of windows, dense."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("x", "Input", (), (inputs,)),
        linear(rng, "a", 0, inputs, 9),
        node("image", "Reshape", (1,), (1, 1, 3, 3)),
        node(
            "conv",
            "Conv",
            (2,),
            (1, 1, 2, 2),
            {"weight": rng.normal(size=(1, 1, 2, 2)) / 2, "bias": 0.3 * rng.normal(size=1)},
            strides=(1, 1),
            pads=(0, 0, 0, 0),
            dilations=(1, 1),
            groups=1,
        ),
        node("relu", "Relu", (3,), (1, 1, 2, 2)),
    ]
    index = np.arange(4).reshape(1, 1, 2, 2)
    for row in (0, 1):
        window = np.ascontiguousarray(index[:, :, row : row + 1, :])
        nodes.append(node(f"w{row}", "Take", (4,), (1, 1, 1, 2), {"indices": window}))
    nodes += [node("pool", "Max", (5, 6), (1, 1, 1, 2)), node("flat", "Reshape", (7,), (2,)), linear(rng, "y", 8, 2, 2)]
    return Graph(tuple(nodes), (0,), (9,))


def exists_unsafe(problem):
    """Whether some point is unsafe, in exact arithmetic; None if Z3 gives up."""
    size = problem.graph.nodes[problem.graph.inputs[0]].size
    x = [z3.Real(f"x{index}") for index in range(size)]
    y = _values(problem.graph, x)[problem.graph.outputs[0]]
    cases = []
    for group in problem.groups:
        box = [
            z3.And(v >= rational(low), v <= rational(high))
            for v, low, high in zip(x, group.lower, group.upper, strict=True)
        ]
        for clause in range(group.count):
            chosen = group.clause == clause
            rows = [
                _affine(row, -offset, y) <= 0
                for row, offset in zip(group.rows[chosen], group.offsets[chosen], strict=True)
            ]
            cases.append(z3.And(*box, *rows))
    solver = z3.Solver()
    solver.set("timeout", 20_000)
    solver.add(z3.Or(cases))
    answer = str(solver.check())
    return {"sat": True, "unsat": False}.get(answer)


def _affine(row, constant, values):
    terms = [rational(c) * v for c, v in zip(row, values, strict=True) if c != 0]
    return z3.Sum([*terms, rational(constant)])


def _values(graph, x):
    """Every node's entries as Z3 terms; equalities are substituted, so the terms are functions of `x` alone."""
    values = []
    for inner in graph.nodes:
        sources = [values[source] for source in inner.inputs]
        if inner.op == "Input":
            values.append(list(x))
        elif inner.op == "Linear":
            bias = inner.params["bias"]
            values.append([_affine(row, b, sources[0]) for row, b in zip(inner.params["weight"], bias, strict=True)])
        elif inner.op == "Add":
            values.append(
                [
                    z3.Sum([s * v for s, v in zip(inner.attributes["signs"], entry, strict=True)])
                    for entry in zip(*sources, strict=True)
                ]
            )
        elif inner.op == "Concat":
            values.append([v for source in sources for v in source])
        else:
            values.append([_function(inner, e, entry) for e, entry in enumerate(zip(*sources, strict=True))])
    return values


def _function(inner, index, inputs):
    """One entry of an elementwise node."""
    z, zero, one = inputs[0], z3.RealVal(0), z3.RealVal(1)
    if inner.op in ("Max", "Min"):
        best = z
        for other in inputs[1:]:
            best = z3.If(best >= other if inner.op == "Max" else best <= other, best, other)
        return best
    if inner.op == "LeakyRelu":
        return z3.If(z > 0, z, rational(inner.params["slope"][index]) * z)
    if inner.op == "Clip":
        low, high = inner.attributes["min"], inner.attributes["max"]
        z = z3.If(z < rational(low), rational(low), z) if np.isfinite(low) else z
        return z3.If(z > rational(high), rational(high), z) if np.isfinite(high) else z
    return {
        "Relu": lambda: z3.If(z > 0, z, zero),
        "Abs": lambda: z3.If(z > 0, z, -z),
        "Sign": lambda: z3.If(z > 0, one, z3.If(z < 0, -one, zero)),
        "IsPositive": lambda: z3.If(z > 0, one, zero),
        "IsNonNegative": lambda: z3.If(z >= 0, one, zero),
        "IsZero": lambda: z3.If(z == 0, one, zero),
    }[inner.op]()
