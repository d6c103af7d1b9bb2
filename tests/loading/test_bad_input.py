"""Every kind of bad file gives one clear `LoadError`."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load
from onnx import TensorProto, helper, numpy_helper

from .models import model_of, single

if TYPE_CHECKING:
    from pathlib import Path

GOOD = single("MatMul", [[1, 3]], [np.eye(3, 2, dtype=np.float32)])


def refused(source: Any, *words: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_plain_and_gzip_files(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(GOOD)
    (tmp_path / "b.onnx").write_bytes(gzip.compress(GOOD))
    (tmp_path / "c.onnx.gz").write_bytes(gzip.compress(GOOD[:40]) + gzip.compress(GOOD[40:]))
    digests = {load(tmp_path / name).sha256 for name in ("a.onnx", "b.onnx", "c.onnx.gz", "c.onnx")}
    assert len(digests) == 1


def test_unreadable_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "none.onnx", "no such")
    refused(tmp_path, "cannot be read")
    for name, content, words in [
        ("empty.onnx", b"", ("empty",)),
        ("text.onnx", b"(declare-const X_0 Real)\n", ("not an ONNX model",)),
        ("cut.onnx", GOOD[: len(GOOD) // 2], ("not an ONNX model",)),
        ("plain.onnx.gz", GOOD, ("not a gzip file",)),
        ("cut.onnx.gz", gzip.compress(GOOD)[:-12], ("cut short",)),
        ("damaged.onnx.gz", gzip.compress(GOOD)[:20] + b"\xff" * 40, ("damaged",)),
        ("junk.onnx.gz", gzip.compress(b"\x01\x02\x03"), ("not an ONNX model",)),
    ]:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name, *words)


def test_unsupported_operators_are_listed_together() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("RoiAlign", ["b", "b", "b"], ["c"], name="second"),
        helper.make_node("Foo", ["x"], ["d"], name="third", domain="my.domain"),
        helper.make_node("NonZero", ["x"], ["e"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    refused(
        model_of(nodes, {"x": [3, 3]}, ["y"]),
        "4 operator(s)",
        "Det (node first, inputs [3, 3])",
        "RoiAlign",
        "my.domain.Foo",
        "NonZero",
        "supports --onnx-operators",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    weight = np.ones((3, 2), np.float32)
    weight[1, 1] = value
    refused(single("MatMul", [[1, 3]], [weight]), "initializer c0", "NaN" if np.isnan(value) else "infinite")
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight))
    refused(model_of([node, helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 3]}, ["y"]), "w")


def test_infinite_limits_of_clip_are_fine() -> None:
    load(single("Clip", [[3]], [np.asarray(-np.inf, np.float32), np.asarray(np.inf, np.float32)]))


def test_shapes_that_depend_on_the_inputs() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["n"], ["y"]),
    ]
    refused(model_of(nodes, {"x": [1]}, ["y"]), "ConstantOfShape", "depends on the network's inputs")
    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64),
        helper.make_node("Slice", ["w", "zero", "n"], ["y"]),
    ]
    constants = {"w": np.ones(4, np.float32), "zero": np.zeros(1, np.int64)}
    refused(model_of(nodes, {"x": [1]}, ["y"], constants), "Slice", "length of its result depends")


def test_absurd_sizes_are_refused_before_anything_is_allocated() -> None:
    shape = np.asarray([1 << 20, 1 << 20], np.int64)
    refused(single("Expand", [[1]], [shape]), "too large")
    refused(model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1 << 20, 1 << 20]}, ["y"]), "too large")
    refused(
        model_of(
            [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
            {"x": [1]},
            ["y"],
            {"s": shape},
        ),
        "too large",
    )
    range_nodes = [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    limits = {"a": np.asarray(0, np.int64), "b": np.asarray(1 << 50, np.int64), "c": np.asarray(1, np.int64)}
    refused(model_of(range_nodes, {"x": [1]}, ["y"], limits), "too large")


def changed(change: Any) -> bytes:
    model = onnx.load_from_string(GOOD)
    change(model)
    return bytes(model.SerializeToString())


def test_damaged_models() -> None:
    def short_data(model: Any) -> None:
        model.graph.initializer[0].raw_data = b"\0\0\0\0"

    def odd_data(model: Any) -> None:
        model.graph.initializer[0].raw_data = b"\0\0\0"

    def negative(model: Any) -> None:
        model.graph.initializer[0].dims[0] = -3

    def outside(model: Any) -> None:
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL

    def text(model: Any) -> None:
        model.graph.initializer[0].data_type = TensorProto.STRING

    def dangling(model: Any) -> None:
        model.graph.node[0].input[0] = "nowhere"

    def no_output(model: Any) -> None:
        model.graph.node[0].output[0] = "elsewhere"

    def old(model: Any) -> None:
        model.opset_import[0].version = 5

    def no_shape(model: Any) -> None:
        model.graph.input[0].type.tensor_type.ClearField("shape")

    def half(model: Any) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    def no_input(model: Any) -> None:
        del model.graph.input[:]
        model.graph.node[0].input[0] = "c0"

    def mismatch(model: Any) -> None:
        model.graph.initializer[0].dims[:] = [2, 3]

    def sparse(model: Any) -> None:
        model.graph.sparse_initializer.add()

    for change, word in [
        (short_data, "declares shape"),
        (odd_data, "multiple of its element size"),
        (negative, "negative dimension"),
        (outside, "outside the ONNX file"),
        (text, "element type string"),
        (dangling, "reads tensor nowhere"),
        (no_output, "made by no operator"),
        (old, "operator set 5"),
        (no_shape, "declares no shape"),
        (half, "float16"),
        (no_input, "no inputs"),
        (mismatch, "do not fit"),
        (sparse, "sparse"),
    ]:
        refused(changed(change), word)


def with_weights_in(location: str) -> bytes:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return changed(change)


def test_weights_in_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("other")
    (tmp_path / "other").symlink_to("loop")
    (tmp_path / "out").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    for location in ("loop", "w\0.bin", "out", "pipe", ".", "../w.bin", "/etc/hostname", "", "a" * 5000):
        (tmp_path / "net.onnx").write_bytes(with_weights_in(location))
        refused(tmp_path / "net.onnx", "tensor c0", "or not a file there")
    (tmp_path / "net.onnx").write_bytes(with_weights_in("gone.bin"))
    refused(tmp_path / "net.onnx", "gone.bin", "no such")


def test_more_axes_than_arrays_have(tmp_path: Path) -> None:
    def weight(model: Any) -> None:
        model.graph.initializer[0].dims[:] = [1] * 70 + [3, 2]

    def entry(model: Any) -> None:
        for _ in range(70):
            model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1

    refused(changed(weight), "72 axes")
    refused(changed(entry), "72 axes")
    axes = np.arange(1, 71)
    refused(single("Unsqueeze", [[2]], [axes]), "71 axes")
    refused(single("Reshape", [[2]], [np.asarray([1] * 70 + [2])]), "71 axes")
    refused(single("Expand", [[2]], [np.asarray([1] * 70 + [2])]), "71 axes")
    shape = helper.make_node("ConstantOfShape", ["s"], ["c"])
    add = helper.make_node("Add", ["x", "c"], ["y"])
    refused(model_of([shape, add], {"x": [2]}, ["y"], {"s": np.ones(70, np.int64)}), "70 axes")


def test_files_of_torch(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("data.pkl", b"")
    refused(tmp_path / "net.pt", "net.pt", "torch.onnx.export")
    refused(pickle.dumps({"weight": 1}, protocol=2), "torch.onnx.export")


def test_what_is_no_source() -> None:
    refused(5, "a int")
    refused({"w": np.ones(3)}, "load_state_dict")
    refused(None, "ONNX file")


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
def test_positions_in_what_has_no_axis(op_type: str) -> None:
    refused(single(op_type, [[]]), "no axis")


def test_names_stay_on_one_line() -> None:
    node = helper.make_node("Det", ["x"], ["y"], name="a\nb\x1b[31m")
    refused(model_of([node], {"x": [2, 2]}, ["y"]), "node a\\nb\\x1b[31m")


def test_branches_without_a_condition() -> None:
    refused(model_of([helper.make_node("If", [""], ["y"])], {"x": [2]}, ["y"]), "one condition and two branches")
    refused(model_of([helper.make_node("If", [], ["y"])], {"x": [2]}, ["y"]), "one condition and two branches")


def test_more_parts_than_outputs() -> None:
    refused(single("Split", [[4]], axis=0, num_outputs=1 << 40, opset=18, outputs=2), "has 2 outputs")


def test_operators_in_a_circle() -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    refused(model_of(nodes, {"x": [2]}, ["y"]), "Add (first)", "its own result")


def test_box_of_the_wrong_size() -> None:
    with pytest.raises(LoadError, match="5 dimensions but the network has 3"):
        load(GOOD, lower=np.zeros(5), upper=np.ones(5))
