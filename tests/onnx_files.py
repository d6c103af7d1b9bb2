"""Small ONNX files, their replay on a fresh session, and exact answers about them by Z3, for end-to-end tests."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import z3
from onnx import TensorProto, helper, numpy_helper

ELEMENT = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


def random_layers(sizes, seed, dtype=np.float32, scale=1.0):
    """``[(weight [out, in], bias [out]), ...]`` of a ReLU network."""
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.normal(size=(out, size)) * scale / np.sqrt(size)).astype(dtype),
            (0.3 * rng.normal(size=out)).astype(dtype),
        )
        for size, out in itertools.pairwise(sizes)
    ]


def forward(layers, points):
    """The network's outputs ``[P, m]`` at points ``[P, n]``, in float64."""
    values = np.asarray(points, np.float64)
    for position, (weight, bias) in enumerate(layers):
        values = values @ weight.astype(np.float64).T + bias
        if position < len(layers) - 1:
            values = np.maximum(values, 0)
    return values


def save_dense(path, layers, names=("X", "Y")):
    """Write a ReLU network of `layers` as ONNX, input ``[1, n]``; returns the path."""
    dtype = layers[0][0].dtype
    nodes, weights, value = [], [], names[0]
    for position, (weight, bias) in enumerate(layers):
        last = position == len(layers) - 1
        weights += [numpy_helper.from_array(weight, f"W{position}"), numpy_helper.from_array(bias, f"b{position}")]
        result = names[1] if last else f"z{position}"
        nodes.append(helper.make_node("Gemm", [value, f"W{position}", f"b{position}"], [result], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"h{position}"]))
            value = f"h{position}"
    return save(
        path,
        nodes,
        [(names[0], (1, layers[0][0].shape[1]))],
        [(names[1], (1, layers[-1][0].shape[0]))],
        weights,
        ELEMENT[dtype],
    )


def save(path, nodes, inputs, outputs, weights=(), element=TensorProto.FLOAT):
    """Write a checked model; inputs and outputs are ``(name, shape)`` or ``(name, shape, element)``."""

    def infos(declared):
        return [helper.make_tensor_value_info(d[0], d[2] if len(d) > 2 else element, d[1]) for d in declared]

    graph = helper.make_graph(nodes, "net", infos(inputs), infos(outputs), list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def replay(path, feed):
    """Outputs by name on a fresh onnxruntime session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def assert_witness(result, property, files):
    """The witness is in a clause's box exactly, satisfies its rows in exact arithmetic, and replays to the bit."""
    inputs, outputs = dict(result.witness.inputs), dict(result.witness.outputs)
    assert list(inputs) == [declared.name for declared in property.inputs]
    assert list(outputs) == [declared.name for declared in property.outputs]
    for network, path in files.items():
        session = onnx.load(path).graph
        feed = {
            info.name: inputs[declared.name]
            for info, declared in zip(session.input, [d for d in property.inputs if d.network == network], strict=True)
        }
        again = replay(path, feed)
        for info, declared in zip(session.output, [d for d in property.outputs if d.network == network], strict=True):
            np.testing.assert_array_equal(again[info.name], outputs[declared.name])
    variables = np.concatenate([inputs[d.name].reshape(-1).astype(np.float64) for d in property.inputs])
    y = np.concatenate([outputs[d.name].reshape(-1).astype(np.float64) for d in property.outputs])
    x = np.empty(property.free_count)
    x[property.input_map] = variables
    np.testing.assert_array_equal(x[property.input_map], variables)
    assert any(_inside(clause, x) and _holds(property, clause, x, y) for clause in property.clauses)


def _inside(clause, x):
    return bool((x >= clause.box.lower).all() and (x <= clause.box.upper).all())


def _holds(property, clause, x, y):
    values = {"x": [Fraction(v) for v in x.tolist()], "y": [Fraction(v) for v in y.tolist()]}
    monomials = [np.prod([values[kind][index] for kind, index in m]) for m in property.monomials]
    for s, offset in enumerate(clause.offset.tolist()):
        left = Fraction(0)
        for rows, known in (
            (clause.output_rows, values["y"]),
            (clause.input_rows, values["x"]),
            (clause.monomial_rows, monomials),
        ):
            if rows is not None:
                left += sum((Fraction(c) * v for c, v in zip(rows[s].tolist(), known, strict=True)), Fraction(0))
        if not (left < Fraction(offset) or (left == Fraction(offset) and not clause.strict[s])):
            return False
    return True


def rational(value):
    """A float as an exact Z3 number."""
    fraction = Fraction(float(value))
    return z3.Q(fraction.numerator, fraction.denominator)


def _affine(weight, bias, values):
    return [
        z3.Sum([rational(w) * v for w, v in zip(row, values, strict=True)]) + rational(b)
        for row, b in zip(weight, bias, strict=True)
    ]


def symbolic(layers, x):
    """The outputs of a ReLU network as Z3 terms of its inputs."""
    values = x
    for position, (weight, bias) in enumerate(layers):
        values = _affine(weight, bias, values)
        if position < len(layers) - 1:
            values = [z3.If(value > 0, value, z3.RealVal(0)) for value in values]
    return values


def exact_minimum(layers, lower, upper, row):
    """The minimum of ``row . f`` over a box."""
    x = [z3.Real(f"x{index}") for index in range(len(lower))]
    solver = z3.Optimize()
    solver.add(*(_between(v, low, high) for v, low, high in zip(x, lower, upper, strict=True)))
    answer = solver.minimize(z3.Sum([rational(c) * y for c, y in zip(row, symbolic(layers, x), strict=True)]))
    assert solver.check() == z3.sat
    return float(solver.lower(answer).as_fraction())


def _between(variable, low, high):
    return z3.And(variable >= rational(low), variable <= rational(high))


def is_violated(property, layers, shift=0.0):
    """Whether some point satisfies a clause with every offset moved by `shift`; `layers` by network, no monomials."""
    x = [z3.Real(f"x{index}") for index in range(property.free_count)]
    y, start = [], 0
    for declared in property.inputs:
        own = [x[index] for index in property.input_map[start : start + declared.size]]
        start += declared.size
        y += symbolic(layers[declared.network], own)
    cases = []
    for clause in property.clauses:
        parts = [_between(v, low, high) for v, low, high in zip(x, clause.box.lower, clause.box.upper, strict=True)]
        for s, offset in enumerate(clause.offset):
            terms = [rational(c) * v for c, v in zip(clause.output_rows[s], y, strict=True)]
            if clause.input_rows is not None:
                terms += [rational(c) * v for c, v in zip(clause.input_rows[s], x, strict=True)]
            left, right = z3.Sum(terms), rational(offset) + rational(shift)
            parts.append(left < right if clause.strict[s] else left <= right)
        cases.append(z3.And(parts))
    solver = z3.Solver()
    solver.add(z3.Or(cases))
    return solver.check() == z3.sat
