"""Random graphs over the elementwise operators, and random ascents on them, for the tests of optimised bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from boundsmith.verify.bounding.alpha import Ascent, Base, Mixture, Objective, Parameters, Splits
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate

from tests.networks import node, samples
from tests.programs.piecewise import linear

PIECEWISE = {
    "relu": ("Relu", "real", {}, {}),
    "leaky": ("LeakyRelu", "real", {"slope": np.array(0.2)}, {}),
    "steep": ("LeakyRelu", "real", {"slope": np.array([-0.5, 1.0, 1.7])}, {}),
    "abs": ("Abs", "real", {}, {}),
    "clip": ("Clip", "real", {}, {"min": -0.5, "max": 0.6}),
    "clip below": ("Clip", "real", {}, {"min": 0.0, "max": np.inf}),
    "sign": ("Sign", "real", {}, {}),
    "positive": ("IsPositive", "real", {}, {}),
    "not negative": ("IsNonNegative", "real", {}, {}),
    "zero": ("IsZero", "real", {}, {}),
    "max": ("Max", "three", {}, {}),
    "min": ("Min", "three", {}, {}),
}
SMOOTH = {
    **{op: (op, "real", {}, {}) for op in ("Sigmoid", "Tanh", "Sin", "Cos", "Erf", "Arctan", "Softplus", "Silu")},
    **{op: (op, "real", {}, {}) for op in ("HardSwish", "Exp", "Floor", "Ceil", "Round")},
    "gelu": ("Gelu", "real", {}, {"approximate": "none"}),
    "elu": ("Elu", "real", {}, {"alpha": 1.3}),
    "square": ("Pow", "real", {}, {"exponent": 2.0}),
    "cube": ("Pow", "real", {}, {"exponent": 3.0}),
    "power": ("Pow", "above", {}, {"exponent": -1.5}),
    **{op: (op, "above", {}, {}) for op in ("Log", "Sqrt", "Reciprocal")},
    "Tan": ("Tan", "branch", {}, {}),
    "Mul": ("Mul", "two", {}, {}),
    "Div": ("Div", "quotient", {}, {}),
    "Where": ("Where", "choice", {}, {}),
}
KINDS = {**PIECEWISE, **SMOOTH}
INPUTS, WIDTH = 2, 3


def graph_of(kind, seed):
    """The operator on an affine map of the input, a residual link, a ReLU, the input once more, and a dense layer."""
    op, domain, params, attributes = KINDS[kind]
    rng = np.random.default_rng(seed)
    nodes = [node("x", "Input", (), (INPUTS,)), linear(rng, "a", 0, INPUTS, WIDTH), linear(rng, "b", 0, INPUTS, WIDTH)]

    def add(name, op, inputs, params=None, **attributes):
        nodes.append(node(name, op, inputs, (WIDTH,), params, **attributes))
        return len(nodes) - 1

    def above(source):
        soft = add("soft", "Softplus", (source,))
        return add("above", "Scale", (soft,), {"shift": np.full(WIDTH, 0.2)})

    if domain == "above":
        inputs = (above(1),)
    elif domain == "branch":
        inputs = (add("branch", "Arctan", (1,)),)
    elif domain == "quotient":
        inputs = (1, above(2))
    elif domain == "choice":
        inputs = (add("bit", "IsPositive", (1,)), 2, 1)
    elif domain == "three":
        nodes.append(linear(rng, "c", 0, INPUTS, WIDTH))
        inputs = (1, 2, len(nodes) - 1)
    else:
        inputs = {"real": (1,), "two": (1, 2)}[domain]
    h = add("h", op, inputs, params, **attributes)
    s = add("sum", "Add", (h, 1, 2), signs=(1, -1, 1))
    nodes.append(linear(rng, "z", s, WIDTH, WIDTH))
    r = add("r", "Relu", (s + 1,))
    nodes.append(node("cat", "Concat", (r, 0), (WIDTH + INPUTS,), axis=0))
    nodes.append(linear(rng, "y", len(nodes) - 1, WIDTH + INPUTS, 2))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


@dataclass
class Scene:
    """Boxes ``[R, n]`` with bounds and constraints, and points ``[P, R, n]`` of them with every node's values.

    holds  bool ``[P, R]``: which points satisfy their row's constraints; the first one always does.
    """

    graph: Graph
    base: Base
    splits: dict[int, Splits]
    points: np.ndarray
    values: list[np.ndarray]
    holds: np.ndarray


def scene_of(graph, seed, rows, radius=0.7, splits=True, count=300):
    """A scene with random boxes, and random constraints that the first point satisfies."""
    rng = np.random.default_rng(seed)
    plan = make_plan(graph)
    size = graph.nodes[0].size
    centre, reach = rng.normal(size=(rows, size)), radius * rng.random((rows, size))
    lower, upper = centre - reach, centre + reach
    points = samples(lower, upper, count, seed)
    values = [
        np.stack([evaluate(graph, [points[:, row]], [index])[0].reshape(count, -1) for row in range(rows)], axis=1)
        for index in range(len(graph.nodes))
    ]
    intervals = {
        index: (low + np.zeros((rows, *low.shape[1:])), high + np.zeros((rows, *high.shape[1:])))
        for index, (low, high) in enumerate(relax(plan, lower, upper).intervals)
    }
    holds = np.ones((count, rows), dtype=bool)
    bound_by = {}
    for index in plan.sources if splits else ():
        low, high = (end.reshape(rows, -1) for end in intervals[index])
        amount = int(rng.integers(0, 2 * rows + 1))
        if amount == 0:
            continue
        row, entry = rng.integers(0, rows, amount), rng.integers(0, low.shape[1], amount)
        point = np.where(rng.random(amount) < 0.5, 0.0, low[row, entry] + rng.random(amount) * (high - low)[row, entry])
        sign = np.where(values[index][0, row, entry] >= point, 1.0, -1.0)
        bound_by[index] = Splits(row, entry, sign, point)
        for k in range(amount):
            holds[:, row[k]] &= sign[k] * (values[index][:, row[k], entry[k]] - point[k]) >= 0
            if rng.random() < 0.7:
                end = low if sign[k] > 0 else high
                end[row[k], entry[k]] = (np.maximum if sign[k] > 0 else np.minimum)(end[row[k], entry[k]], point[k])
    return Scene(graph, Base(plan, lower, upper, intervals), bound_by, points, values, holds)


def randomise(ascent, seed, size=1.0):
    """Set every parameter to a random valid value; ends of the ranges are among them."""
    rng = np.random.default_rng(seed)

    def weights(x):
        return None if x is None else np.clip(rng.uniform(-0.3, 1.3, x.shape), 0, 1).astype(x.dtype)

    own = ascent.parameters
    mixture = own.mixture
    if mixture is not None:
        present = np.isfinite(ascent.mixture.offsets)
        mixture = np.where(present, rng.exponential(size=mixture.shape) * (rng.random(mixture.shape) < 0.8), 0.0)
        mixture = mixture + 1e-3 * present
        mixture = (mixture / mixture.sum(axis=1, keepdims=True)).astype(own.mixture.dtype)
    ascent.parameters = Parameters(
        {index: (weights(below), weights(above)) for index, (below, above) in own.lines.items()},
        {
            index: (size * np.maximum(rng.normal(size=beta.shape), 0)).astype(beta.dtype)
            for index, beta in own.betas.items()
        },
        mixture,
        None if own.side is None else (size * np.maximum(rng.normal(size=own.side.shape), 0)).astype(own.side.dtype),
    )


def clause_of(scene, seed, depth=3, unsafe=True):
    """Mixtures of up to `depth` rows that each row's first point satisfies (or that need not be satisfied)."""
    rng = np.random.default_rng(seed)
    rows = scene.points.shape[1]
    output = scene.values[scene.graph.outputs[0]]
    matrix = rng.normal(size=(rows, depth, output.shape[2]))
    at_first = np.einsum("rsm,rm->rs", matrix, output[0])
    offsets = at_first + (0.3 * rng.random((rows, depth)) if unsafe else rng.normal(size=(rows, depth)))
    padding = np.arange(depth) >= rng.integers(1, depth + 1, rows)[:, None]
    return Mixture(matrix, np.where(padding, np.inf, offsets))


def margins_of(scene, mixture):
    """``max_s(rows y - offsets)`` at all points ``[P, R]``."""
    output = scene.values[scene.graph.outputs[0]]
    left = np.einsum("rsm,prm->prs", mixture.rows, output)
    return (left - mixture.offsets).max(axis=2)


def ascents_of(scene, seed):
    """The three kinds of ascents on a scene, each with the true values ``[P, R]`` that its bounds must stay below
    (infinite where a point does not count)."""
    rng = np.random.default_rng(seed)
    rows = scene.points.shape[1]
    plan = scene.base.plan
    inner = int(rng.choice([*plan.sources, plan.output]))
    shape = scene.graph.nodes[inner].shape
    seeds, constants = rng.normal(size=(rows, *shape)), rng.normal(size=rows)
    inner_values = np.einsum("rn,prn->pr", seeds.reshape(rows, -1), scene.values[inner]) + constants
    mixture = clause_of(scene, seed)
    margin = margins_of(scene, mixture)
    objective = Objective(inner, seeds, constants, np.ones(rows))
    found = [
        (Ascent(scene.base, inner, seeds, constants, splits=scene.splits), inner_values, scene.holds),
        (Ascent(scene.base, plan.output, mixture=mixture, splits=scene.splits), margin, scene.holds),
        (
            Ascent(scene.base, plan.output, mixture=mixture, splits=scene.splits, objective=objective),
            inner_values,
            scene.holds & (margin <= 0),
        ),
    ]
    return [(ascent, np.where(counts, values, np.inf).min(axis=0)) for ascent, values, counts in found]
