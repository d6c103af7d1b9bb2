"""What a lowering does not look at is refused by its name; what it is told to look at exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.loading.folding import FOLDED_ONLY
from boundsmith.verify.loading.forms import FORMS
from boundsmith.verify.loading.lowering_table import LOWERINGS
from onnx import defs, helper

from .models import model_of, single

if TYPE_CHECKING:
    from collections.abc import Iterator

F = np.float32
_NEWEST = 28
"""The newest version of the operator set whose attributes the forms name."""


def schemas(op_type: str) -> Iterator[defs.OpSchema]:
    """The versions of an operator that models of the supported versions mean."""
    for opset in range(7, _NEWEST + 1):
        if defs.has(op_type, opset):
            yield defs.get_schema(op_type, opset)


def test_every_operator_has_a_form() -> None:
    assert set(FORMS) == {*LOWERINGS, *FOLDED_ONLY}


@pytest.mark.parametrize("op_type", sorted(FORMS))
def test_forms_name_what_the_standard_defines(op_type: str) -> None:
    """As many inputs as some version has, and no attribute that none has."""
    versions = list(schemas(op_type))
    form = FORMS[op_type]
    if defs.onnx_opset_version() >= _NEWEST:
        assert form.attributes <= {name for schema in versions for name in schema.attributes}
    most = max(len(schema.inputs) for schema in versions)
    if form.inputs[-1:] != ("...",):
        assert len(form.inputs) == most


@pytest.mark.parametrize("op_type", sorted(FORMS))
def test_unknown_attributes_and_inputs_are_named(op_type: str) -> None:
    form = FORMS[op_type]
    names = ["x" if not name.startswith("!") else "" for name in (*form.inputs, "one more")]
    with pytest.raises(LoadError, match="attribute surprise is not covered"):
        load(model_of([helper.make_node(op_type, names[:-1][:1], ["y"], surprise=1)], {"x": [2, 2]}, ["y"], opset=26))
    if form.inputs[-1:] != ("...",):
        with pytest.raises(LoadError, match=r"its input .* is not covered"):
            load(model_of([helper.make_node(op_type, names, ["y"])], {"x": [2, 2]}, ["y"], opset=26))


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (single("Attention", [[1, 1, 3, 4]] * 3, [None, np.ones((1, 1, 2, 4), F)], opset=23), "past_key"),
        (single("Attention", [[1, 1, 3, 4]] * 3, opset=23, softmax_precision=10), "softmax_precision"),
        (single("LayerNormalization", [[2, 3]], [np.ones(3, F)], stash_type=16), "stash_type"),
        (single("Resize", [[1, 1, 4, 4]], [None, np.ones(4, F)], exclude_outside=1), "exclude_outside"),
        (single("Conv", [[1, 1, 4, 4]], [np.ones((1, 1, 3, 3), F)], kernel_shape=[2, 2]), "kernel_shape"),
        (single("SpaceToDepth", [[1, 1, 4, 4]], blocksize=2, mode="CRD", opset=28), "mode"),
        (single("Gelu", [[3]], opset=20, approximate="cubic"), "approximate"),
        (single("Elu", [[3]], alpha=float("inf")), "alpha is inf"),
    ],
)
def test_values_that_are_not_covered_are_named(model: bytes, word: str) -> None:
    with pytest.raises(LoadError, match=word):
        load(model)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul"])
def test_calculating_in_types_that_wrap_around(kind: str, op_type: str) -> None:
    """0 - 1 of numbers without sign is not -1."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = single(op_type, [[2]], [np.asarray([1, 2], kind)], element_type=element)
    with pytest.raises(LoadError, match=f"calculates with {kind}"):
        load(model)


@pytest.mark.parametrize("op_type", ["Max", "Min", "Sum", "Mean", "Concat", "Einsum"])
def test_gaps_among_any_number_of_inputs(op_type: str) -> None:
    settings = {"Concat": {"axis": 0}, "Einsum": {"equation": "i,i->i"}}.get(op_type, {})
    with pytest.raises(LoadError, match="its input 1 is missing"):
        load(model_of([helper.make_node(op_type, ["x", ""], ["y"], **settings)], {"x": [2]}, ["y"]))


def test_whole_numbers_to_a_power_that_leaves_them() -> None:
    model = single("Pow", [[2]], [np.asarray([0.5], F)], element_type=onnx.TensorProto.INT64)
    with pytest.raises(LoadError, match="rounds the result"):
        load(model)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Equal", "Less", "Max"])
def test_whole_numbers_that_float32_does_not_hold(op_type: str) -> None:
    """2^24 + 1 would become 2^24: such constants stay in float64."""
    compute = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Equal": np.equal, "Less": np.less}
    for number in (-(2**24) - 1, 2**24 + 1):
        constant = np.asarray([3, number])
        model = single(op_type, [[2]], [constant], element_type=onnx.TensorProto.INT64)
        graph = load(model).graph
        point = np.asarray([[5.0, number - 1.0]])
        (value,) = evaluate(graph, [point], graph.outputs)
        np.testing.assert_array_equal(value, compute.get(op_type, np.maximum)(point, constant))
