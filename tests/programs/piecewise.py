"""Tiny piecewise-linear graphs and their exact minimum by enumeration of pieces, independent of the programmes."""

from __future__ import annotations

import itertools

import numpy as np
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.graph import Graph
from boundsmith.verify.ops import rule
from scipy.optimize import linprog

from tests.networks import node

INF = np.inf
UNARY = ("Relu", "LeakyRelu", "Abs", "Clip", "Sign", "IsPositive", "IsNonNegative", "IsZero")
STEPS = ("Sign", "IsPositive", "IsNonNegative", "IsZero")
EXTREMA = ("Max", "Min")


def activation(rng, name, op, source, width):
    """One elementwise node with settings drawn at random."""
    if op == "LeakyRelu":
        return node(name, op, (source,), (width,), {"slope": rng.choice([-0.7, 0.2, 1.6], size=width)})
    if op == "Clip":
        low = float(rng.choice([-INF, -0.5, 0.0]))
        return node(name, op, (source,), (width,), min=low, max=float(rng.choice([INF, 0.6])))
    return node(name, op, (source,), (width,))


def linear(rng, name, source, fan_in, fan_out):
    params = {"weight": rng.normal(size=(fan_out, fan_in)) / np.sqrt(fan_in), "bias": 0.3 * rng.normal(size=fan_out)}
    return node(name, "Linear", (source,), (fan_out,), params)


def tiny(op, seed, inputs=2, width=3):
    """Two layers: the operator, then ReLU on fewer; with a residual link from the input of the first."""
    rng = np.random.default_rng(seed)
    nodes = [node("x", "Input", (), (inputs,)), linear(rng, "a", 0, inputs, width)]
    if op in EXTREMA:
        nodes += [linear(rng, "b", 0, inputs, width), linear(rng, "c", 0, inputs, width)]
        nodes.append(node("h", op, (1, 2, 3), (width,)))
    else:
        nodes.append(activation(rng, "h", op, 1, width))
    hidden = len(nodes) - 1
    nodes.append(node("sum", "Add", (hidden, 1), (width,), signs=(1, -1)))
    nodes.append(linear(rng, "z", hidden + 1, width, 2))
    nodes.append(node("r", "Relu", (hidden + 2,), (2,)))
    nodes.append(node("cat", "Concat", (hidden + 3, 0), (2 + inputs,), axis=0))
    nodes.append(linear(rng, "y", hidden + 4, 2 + inputs, 2))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


def bounded(graph, lower, upper):
    """CROWN bounds of every node, flat."""
    state = relax(make_plan(graph), lower[None], upper[None])
    return state, [(low.reshape(-1), high.reshape(-1)) for low, high in state.intervals]


def outputs(graph, points):
    """The graph's flat outputs ``[P, m]`` at points ``[P, n]``."""
    values = []
    for inner in graph.nodes:
        if inner.op == "Input":
            values.append(points.reshape(len(points), *inner.shape))
        else:
            values.append(rule(inner.op).evaluate(inner, [values[source] for source in inner.inputs]))
    return values[graph.outputs[0]].reshape(len(points), -1)


def pieces_of(inner, entry):
    """``(slot, slope, intercept, start, stop)`` of each piece; an extremum's pieces are its inputs."""
    if inner.op in EXTREMA:
        return [(slot, 1.0, 0.0, -INF, INF) for slot in range(len(inner.inputs))]
    if inner.op == "Clip":
        low, high = inner.attributes["min"], inner.attributes["max"]
        found = [(0, 1.0, 0.0, low, high)]
        found += [(0, 0.0, low, -INF, low)] if np.isfinite(low) else []
        return found + ([(0, 0.0, high, high, INF)] if np.isfinite(high) else [])
    if inner.op == "Sign":
        return [(0, 0.0, -1.0, -INF, 0.0), (0, 0.0, 0.0, 0.0, 0.0), (0, 0.0, 1.0, 0.0, INF)]
    if inner.op == "IsZero":
        return [(0, 0.0, 0.0, -INF, INF), (0, 0.0, 1.0, 0.0, 0.0)]
    left = {"Relu": (0.0, 0.0), "Abs": (-1.0, 0.0), "IsPositive": (0.0, 0.0), "IsNonNegative": (0.0, 0.0)}
    if inner.op == "LeakyRelu":
        below = (float(np.broadcast_to(inner.params["slope"], inner.shape).reshape(-1)[entry]), 0.0)
    else:
        below = left[inner.op]
    above = (0.0, 1.0) if inner.op.startswith("Is") else (1.0, 0.0)
    return [(0, *below, -INF, 0.0), (0, *above, 0.0, INF)]


def exact_minimum(graph, lower, upper, rows, offsets, fixed=None):
    """The least ``max_s(rows y - offsets)`` over the box, by one linear programme a pattern of pieces.

    fixed   by node: phases ``[E]``, as constraints on the pre-activation.
    """
    best = INF
    nonlinear = [i for i, inner in enumerate(graph.nodes) if inner.op != "Input" and rule(inner.op).linear is None]
    patterns = [[pieces_of(graph.nodes[i], e) for e in range(graph.nodes[i].size)] for i in nonlinear]
    for pattern in itertools.product(*(itertools.product(*entries) for entries in patterns)):
        chosen = dict(zip(nonlinear, pattern, strict=True))
        forms, less = _forms(graph, len(lower), chosen, fixed or {})
        form = rows @ forms[graph.outputs[0]]
        a = [np.concatenate([-row[:-1], [0.0]]) for row, _ in less]
        b = [row[-1] - least for row, least in less]
        for row, offset in zip(form, offsets, strict=True):
            a.append(np.concatenate([row[:-1], [-1.0]]))
            b.append(offset - row[-1])
        box = [*zip(lower, upper, strict=True), (None, None)]
        answer = linprog(np.eye(len(lower) + 1)[-1], np.array(a), np.array(b), bounds=box, method="highs")
        if answer.status == 0:
            best = min(best, answer.fun)
    return best


def _forms(graph, count, chosen, fixed):
    """Affine forms ``[E, n + 1]`` of all nodes under a pattern, and constraints ``form >= least``."""
    forms, less = [], []
    for index, inner in enumerate(graph.nodes):
        if inner.op == "Input":
            forms.append(np.eye(count, count + 1))
        elif index in chosen:
            sources = [forms[source] for source in inner.inputs]
            out = []
            for entry, (slot, slope, intercept, start, stop) in enumerate(chosen[index]):
                z = sources[slot][entry]
                out.append(slope * z + np.eye(count + 1)[-1] * intercept)
                less += [(z, start)] if np.isfinite(start) else []
                less += [(-z, -stop)] if np.isfinite(stop) else []
                sign = {"Max": 1.0, "Min": -1.0}.get(inner.op, 0.0)
                less += [(sign * (z - other[entry]), 0.0) for other in sources] if sign else []
                phase = fixed[index][entry] if index in fixed else 0
                less += [(phase * z, 0.0)] if phase else []
            forms.append(np.array(out))
        else:
            linear = rule(inner.op).linear
            basis = [forms[source].T.reshape(-1, *graph.nodes[source].shape) for source in inner.inputs]
            form = linear.apply_linear(inner, basis).reshape(count + 1, -1).T.copy()
            bias = linear.bias(inner)
            form[:, -1] += 0.0 if bias is None else np.broadcast_to(bias, inner.shape).reshape(-1)
            forms.append(form)
    return forms, less
