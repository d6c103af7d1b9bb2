"""Networks evaluated in exact arithmetic: what a file states over the reals, and what a loaded graph does."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from boundsmith.verify.loading.precise import ROUNDOFFS, UNIT
from onnx import load_model_from_string, numpy_helper
from onnx.helper import get_attribute_value

_DIGITS = 80
"""Of what is irrational: roots and exponentials."""

_PLACES = 100
"""Digits behind the point that values of smooth functions keep, so that fractions stay short."""


def fractions(array):
    """An array of floats or integers as one of fractions."""
    plain = np.asarray(array)
    flat = [Fraction(value) for value in plain.reshape(-1).tolist()]
    return np.array([*flat, None], dtype=object)[:-1].reshape(plain.shape)


def exponential(x):
    with localcontext() as context:
        context.prec = _DIGITS
        return Fraction((Decimal(x.numerator) / Decimal(x.denominator)).exp())


def root(x):
    shifted = x * 10 ** (2 * _DIGITS)
    return Fraction(math.isqrt(shifted.numerator // shifted.denominator), 10**_DIGITS)


def sigmoid(x):
    """The logistic function, to 100 digits behind the point."""
    if abs(x) > 300:
        return Fraction(int(x > 0))
    return Fraction(round(10**_PLACES / (1 + exponential(-x))), 10**_PLACES)


def entrywise(function, *arrays):
    """A function of fractions on arrays of them, broadcast."""
    arrays = np.broadcast_arrays(*arrays)
    flat = [function(*values) for values in zip(*(array.reshape(-1) for array in arrays), strict=True)]
    return np.array([*flat, None], dtype=object)[:-1].reshape(arrays[0].shape)


def _relu(x):
    return max(x, Fraction(0))


def _selu(x, alpha, gamma):
    return gamma * x if x > 0 else gamma * alpha * (exponential(x) - 1)


def _convolved(x, weight):
    """A convolution over one axis, without padding, of ``[1, C, L]``."""
    length = x.shape[2] - weight.shape[2] + 1
    columns = [(weight * x[:, :, k : k + weight.shape[2]]).sum(axis=(1, 2)) for k in range(length)]
    return np.stack(columns, axis=-1)[None]


def _run(op, values, attributes):
    number = {key: Fraction(value) for key, value in attributes.items() if isinstance(value, float)}
    first = values[0]
    match op:
        case "MatMul":
            return first @ values[1]
        case "Gemm":
            second = values[1].T if attributes.get("transB") else values[1]
            product = number.get("alpha", 1) * (first @ second)
            return product if len(values) < 3 else product + number.get("beta", 1) * values[2]
        case "Conv":
            made = _convolved(first, values[1])
            return made if len(values) < 3 else made + values[2][None, :, None]
        case "Add" | "Sub" | "Mul" | "Div":
            second = values[1]
            return (
                {"Add": first + second, "Sub": first - second, "Mul": first * second}.get(op)
                if op != "Div"
                else (first / second)
            )
        case "Relu":
            return entrywise(_relu, first)
        case "Sigmoid":
            return entrywise(sigmoid, first)
        case "Tanh":
            return entrywise(lambda x: 2 * sigmoid(2 * x) - 1, first)
        case "BatchNormalization":
            scale, shift, mean, variance = (v.reshape(-1, *(1,) * (first.ndim - 2)) for v in values[1:])
            epsilon = number.get("epsilon", Fraction(float(np.float32(1e-5))))
            return (first - mean) * scale / entrywise(root, variance + epsilon) + shift
        case "HardSigmoid":
            alpha, beta = number.get("alpha", Fraction(float(np.float32(0.2)))), number.get("beta", Fraction(1, 2))
            return entrywise(lambda x: min(max(alpha * x + beta, Fraction(0)), Fraction(1)), first)
        case "Selu":
            alpha = number.get("alpha", Fraction(float(np.float32(1.6732632423543772))))
            gamma = number.get("gamma", Fraction(float(np.float32(1.0507009873554805))))
            return entrywise(lambda x: _selu(x, alpha, gamma), first)
        case "ReduceMean":
            return first.sum(axis=-1, keepdims=True) / first.shape[-1]
        case "Gather":
            return np.take(first, values[1].astype(np.int64), axis=attributes["axis"])
        case "Reshape":
            return first.reshape(values[1].astype(np.int64).tolist())
        case "Transpose":
            return first.transpose(attributes["perm"])
    raise ValueError(op)


def run_file(content, point):
    """The output of an ONNX file's network at a point, in fractions."""
    graph = load_model_from_string(content).graph
    values = {tensor.name: fractions(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    values[graph.input[0].name] = fractions(point)
    for node in graph.node:
        attributes = {item.name: get_attribute_value(item) for item in node.attribute}
        values[node.output[0]] = _run(node.op_type, [values[name] for name in node.input if name], attributes)
    return values[graph.output[0].name]


def run_graph(graph, point):
    """The output of a loaded graph at a point, in fractions, and how far it may be from what its file says: by what
    its parameters are off."""
    found = []
    for node in graph.nodes:
        found.append(
            (fractions(point), fractions(np.zeros(np.shape(point))))
            if node.op == "Input"
            else _node(node, [found[source] for source in node.inputs])
        )
    return found[graph.outputs[0]]


def _parameter(node, key):
    """A parameter and by how much it may be off, relative roundoffs included."""
    if key not in node.params:
        return None, None
    value = fractions(node.params[key])
    rounded = Fraction(ROUNDOFFS * UNIT) if node.attributes.get("rounded") else Fraction(0)
    return value, fractions(node.params.get(key + "_error", np.zeros(value.shape))) + rounded * abs(value)


def _affine(node, x, error, product):
    """``M x + b`` and its error, M the weight as `product` applies it."""
    weight, off = _parameter(node, "weight")
    bias, moved = _parameter(node, "bias")
    y = product(x, weight)
    total = product(error, abs(weight)) + product(abs(x) + error, off)
    if bias is None:
        return y, total
    shape = (-1, *(1,) * (len(node.shape) - 2)) if node.op == "Conv" else (-1,)
    return y + bias.reshape(shape), total + moved.reshape(shape)


def _node(node, inputs):
    x, error = inputs[0] if inputs else (None, None)
    match node.op:
        case "Constant":
            return _parameter(node, "value")
        case "Linear":
            return _affine(node, x, error, lambda x, weight: x @ weight.T)
        case "Conv":
            return _affine(node, x, error, _convolved)
        case "Scale":
            scale, off = _parameter(node, "scale")
            shift, moved = _parameter(node, "shift")
            y, total = (x, error) if scale is None else (x * scale, error * abs(scale) + (abs(x) + error) * off)
            return (y, total) if shift is None else (y + shift, total + moved)
        case "Add":
            signs = node.attributes["signs"]
            terms = [sign * value for sign, (value, _) in zip(signs, inputs, strict=True)]
            return sum(terms[1:], terms[0]), sum((off for _, off in inputs[1:]), error)
        case "Sum":
            axes = tuple(node.attributes["axes"])
            keep = bool(node.attributes.get("keepdims", False))
            return x.sum(axis=axes, keepdims=keep), error.sum(axis=axes, keepdims=keep)
        case "Relu":
            return entrywise(_relu, x), error
        case "Clip":
            low, high = (Fraction(node.attributes[key]) for key in ("min", "max"))
            return entrywise(lambda v: min(max(v, low), high), x), error
        case "Elu":
            alpha = Fraction(node.attributes["alpha"])
            return entrywise(lambda v: _selu(v, alpha, Fraction(1)), x), error * max(abs(alpha), Fraction(1))
        case "Reshape":
            return x.reshape(node.shape), error.reshape(node.shape)
        case "Transpose":
            perm = node.attributes["perm"]
            return x.transpose(perm), error.transpose(perm)
        case "Take":
            indices = node.params["indices"]
            return x.reshape(-1)[indices].reshape(node.shape), error.reshape(-1)[indices].reshape(node.shape)
    raise ValueError(node.op)
