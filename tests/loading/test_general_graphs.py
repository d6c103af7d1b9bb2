"""Graphs beyond layers: Einstein sums, attention, masks, branches, scattered sums, weights in other files."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from boundsmith.cli.main import cli
from boundsmith.verify import bounds
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load
from boundsmith.verify.loading.evaluate import evaluate
from click.testing import CliRunner
from onnx import NodeProto, TensorProto, helper

from .models import assert_same_as_runtime, model_of, single

if TYPE_CHECKING:
    from pathlib import Path

F = np.float32


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 1).normal(size=shape).astype(F)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


V = [[1, 3, 4]]
IMAGE = [[1, 4, 6, 5]]
QKV = [[1, 2, 3, 4], [1, 2, 5, 4], [1, 2, 5, 6]]
TRIANGLE = np.tril(np.ones((3, 5), dtype=bool))

CASES: list[tuple[str, list[list[int]], list[np.ndarray | None], dict[str, Any]]] = [
    ("Einsum", [[2, 3]], [normal(3, 4)], {"equation": "ij,jk->ik"}),
    ("Einsum", [[3, 4]], [normal(2, 3)], {"equation": "ij,jk->ik", "constants_first": True}),
    ("Einsum", [[1, 2, 3, 4], [1, 2, 5, 4]], [], {"equation": "bhid,bhjd->bhij"}),
    ("Einsum", V, [], {"equation": "bij -> bji"}),
    ("Einsum", V, [], {"equation": "bij->b"}),
    ("Einsum", [[3, 3]], [], {"equation": "ii->i"}),
    ("Einsum", [[3], [3]], [], {"equation": "i,i->"}),
    ("Einsum", [[3], [4]], [], {"equation": "i,j->ji"}),
    ("Einsum", [[3, 4], [3, 4]], [normal(4)], {"equation": "ij,ij,j->i"}),
    ("Einsum", [[2, 2, 3], [2, 3, 2]], [], {"equation": "...ij,...jk->...ik"}),
    ("Einsum", V, [normal(4, 2)], {"equation": "bij,jk"}),
    ("Einsum", [[2, 3]], [normal(3, 4), normal(4, 2)], {"equation": "ij,jk,kl->il"}),
    ("ReduceProd", V, [], {"axes": [1], "keepdims": 0}),
    ("ReduceProd", V, [], {}),
    ("LpNormalization", V, [], {"axis": 2}),
    ("LpNormalization", V, [], {"axis": 1, "p": 1}),
    ("RMSNormalization", V, [normal(4)], {"opset": 23}),
    ("LRN", IMAGE, [], {"size": 3, "alpha": 0.5, "beta": 0.7, "bias": 1.2}),
    ("LRN", IMAGE, [], {"size": 1}),
    ("PRelu", [[3, 4], [4]], [], {}),
    ("Attention", QKV, [], {"opset": 23}),
    ("Attention", QKV, [TRIANGLE], {"opset": 23, "scale": 0.3}),
    ("Attention", QKV, [normal(3, 5)], {"opset": 23, "is_causal": 1}),
    ("Attention", [[1, 4, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]], [], {"opset": 23, "is_causal": 1}),
    ("Attention", [[1, 3, 8], [1, 5, 8], [1, 5, 8]], [], {"opset": 23, "q_num_heads": 2, "kv_num_heads": 2}),
    ("GatherND", [[2, 3, 4]], [np.asarray([[1], [-1]])], {"batch_dims": 1}),
    ("GatherND", [[2, 3, 4]], [np.asarray([[[1, 0]], [[2, 3]]])], {"batch_dims": 1}),
    ("ScatterND", [[4, 3]], [np.asarray([[1], [1], [3]]), normal(3, 3)], {"reduction": "add", "opset": 18}),
    (
        "ScatterElements",
        [[4, 3]],
        [np.asarray([[1, 0, 3], [1, 2, -1]]), normal(2, 3)],
        {"reduction": "add", "opset": 18},
    ),
    ("Compress", [[4, 3]], [np.asarray([True, False, True, True])], {"axis": 0}),
    ("Compress", [[2, 2]], [np.asarray([True, False, True])], {}),
    ("ReverseSequence", [[4, 2]], [ints(4, 2)], {"time_axis": 0, "batch_axis": 1}),
    ("ReverseSequence", [[2, 4, 3]], [ints(1, 3)], {"time_axis": 1, "batch_axis": 0}),
    ("TopK", V, [ints(1)], {"axis": 1, "outputs": 2}),
    ("TopK", V, [ints(1)], {"largest": 0, "outputs": 2}),
    ("Split", [[1, 7]], [], {"axis": 1, "outputs": 3, "num_outputs": 3, "opset": 18}),
    ("Slice", V, [ints(-1), ints(-100), ints(2), ints(-2)], {}),
    ("Gather", V, [ints(-1, -2)], {"axis": 2}),
]


@pytest.mark.parametrize(
    ("op", "shapes", "constants", "options"), CASES, ids=[f"{k}-{c[0]}" for k, c in enumerate(CASES)]
)
def test_single_operator(
    op: str, shapes: list[list[int]], constants: list[np.ndarray | None], options: dict[str, Any]
) -> None:
    network = assert_same_as_runtime(single(op, shapes, constants, **options))
    check_bounds(network)


def check_bounds(network: Any, radius: float = 0.2) -> None:
    """Interval and CROWN bounds contain the outputs of points of a box."""
    random = np.random.default_rng(7)
    size = sum(int(np.prod(info.shape)) for info in network.inputs)
    centre = random.uniform(0.5, 1.5, (2, size)).astype(F)
    noise = random.uniform(-radius, radius, (64, 2, size)).astype(F)
    noise[:32] = radius * np.sign(noise[:32])
    cuts = np.cumsum([int(np.prod(info.shape)) for info in network.inputs])[:-1]
    points = np.split((centre + noise).reshape(-1, size), cuts, axis=1)
    shaped = [part.reshape(-1, *info.shape) for part, info in zip(points, network.inputs, strict=True)]
    outputs = [np.asarray(value, float).reshape(64, 2, -1) for value in evaluate(network.graph, shaped)]
    values = np.concatenate(outputs, axis=-1)
    for method in ("ibp", "crown"):
        lower, upper = bounds(network, centre, radius, method)
        slack = 1e-4 * (1 + np.abs(values).max())
        assert not np.isnan(lower).any()
        assert not np.isnan(upper).any()
        assert (lower - slack <= values.min(axis=0)).all()
        assert (values.max(axis=0) <= upper + slack).all()


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=f"node_{output}", **attributes)


MASK = np.where(np.tril(np.ones((3, 3))) > 0, 0.0, -np.inf).astype(F)


@pytest.mark.parametrize("before", ["Add", "Where", "Where with a row"])
def test_masked_softmax(before: str) -> None:
    """What minus infinity hides takes no part, however large it is."""
    constants: dict[str, np.ndarray] = {"mask": MASK, "keep": np.isfinite(MASK), "low": np.asarray(-np.inf, F)}
    masked = {
        "Add": node("Add", "x mask", "m"),
        "Where": node("Where", "keep x low", "m"),
        "Where with a row": node("Where", "keep row low", "m"),
    }[before]
    shapes = {"x": [1, 3, 3]} if before != "Where with a row" else {"row": [1, 1, 3]}
    nodes = [masked, node("Softmax", "m", "y", axis=-1)]
    network = assert_same_as_runtime(model_of(nodes, shapes, ["y"], constants), -200, 200)
    check_bounds(network)
    shown = bounds(network, np.zeros((1, 9 if "x" in shapes else 3), F), 5.0)
    assert np.all(np.stack(shown).reshape(2, 3, 3)[:, ~np.isfinite(MASK)] == 0)


def test_minus_infinity_elsewhere_is_refused() -> None:
    after = [node("Relu", "m", "y")]
    for nodes in (
        after,
        [node("Abs", "m", "k"), node("Softmax", "k", "y")],
        [node("Identity", "m", "y")],
        [node("LogSoftmax", "m", "y")],
    ):
        with pytest.raises(LoadError, match="minus infinity"):
            load(model_of([node("Add", "x mask", "m"), *nodes], {"x": [3, 3]}, ["y"], {"mask": MASK}))
    with pytest.raises(LoadError, match="output m are minus infinity"):
        load(model_of([node("Add", "x mask", "m")], {"x": [3, 3]}, ["m"], {"mask": MASK}))
    hidden = np.full((3, 3), -np.inf, F)
    nodes = [node("Add", "x mask", "m"), node("Softmax", "m", "y")]
    with pytest.raises(LoadError, match="all entries of a row"):
        load(model_of(nodes, {"x": [3, 3]}, ["y"], {"mask": hidden}))
    with pytest.raises(LoadError, match="NaN or infinite"):
        load(model_of([node("Add", "x mask", "y")], {"x": [3, 3]}, ["y"], {"mask": -hidden}))


def test_no_number_is_nan_or_infinite() -> None:
    nodes = [
        node("Softmax", "x", "s"),
        node("IsNaN", "s", "n"),
        node("IsInf", "s", "i"),
        node("Or", "n i", "c"),
        node("Where", "c zero s", "y"),
    ]
    network = assert_same_as_runtime(model_of(nodes, {"x": [2, 3]}, ["y"], {"zero": np.asarray(0, F)}))
    plain = load(model_of([node("Softmax", "x", "y")], {"x": [2, 3]}, ["y"]))
    assert [made.op for made in network.graph.nodes] == [made.op for made in plain.graph.nodes]


def branch(name: str, *nodes: NodeProto, output: str) -> Any:
    return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(output)])


THEN = branch("then", node("Constant", "", "k", value_float=2.0), node("Mul", "x k", "t"), output="t")
ELSE = branch("else", node("Constant", "", "k", value_float=3.0), node("Sub", "x k", "e"), output="e")
CHOICE = node("If", "c", "v", then_branch=THEN, else_branch=ELSE)


@pytest.mark.parametrize("extent", [3, 4])
def test_a_branch_that_a_shape_decides(extent: int) -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Equal", "n three", "c"),
        CHOICE,
        node("Neg", "v", "y"),
    ]
    model = model_of(nodes, {"x": [extent]}, ["y"], {"zero": np.asarray(0), "three": np.asarray(3)})
    network = assert_same_as_runtime(model)
    assert [made.op for made in network.graph.nodes] == ["Input", "Scale"]


def test_a_branch_that_an_input_decides_is_a_choice() -> None:
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        CHOICE,
        node("Identity", "v", "y"),
    ]
    network = assert_same_as_runtime(model_of(nodes, {"x": [3]}, ["y"], {"zero": np.asarray(0, F)}), rows=12)
    check_bounds(network, 2.0)


def test_branches_that_do_not_fit_are_named() -> None:
    longer = branch("else", node("Concat", "x x", "e", axis=0), output="e")
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        node("If", "c", "y", then_branch=THEN, else_branch=longer),
    ]
    with pytest.raises(LoadError, match=r"If \(node node_y.*branches have shapes \[3\] and \[6\]"):
        load(model_of(nodes, {"x": [3]}, ["y"], {"zero": np.asarray(0, F)}))
    unknown = branch("then", node("Det", "x", "t"), output="t")
    chosen = node("If", "c", "y", then_branch=unknown, else_branch=ELSE)
    model = model_of([chosen], {"x": [3, 3]}, ["y"], {"c": np.asarray(True)})
    with pytest.raises(LoadError, match=r"Det \(node node_t, inputs \[3, 3\]\): the operator is not supported"):
        load(model)


def test_outputs_that_are_not_made_are_named_only_where_they_are_read() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["p", "i"], name="pool", kernel_shape=[2])
    norm = helper.make_node("LayerNormalization", ["x", "w"], ["y", "mean"], name="norm")
    with pytest.raises(LoadError, match=r"LayerNormalization \(node norm.*output 1 is read"):
        load(model_of([norm], {"x": [1, 4]}, ["y", "mean"], {"w": np.ones(4, F)}))
    with pytest.raises(LoadError, match=r"MaxPool.*second output"):
        load(model_of([pool], {"x": [1, 1, 4]}, ["p"]))
    load(model_of([norm], {"x": [1, 4]}, ["y"], {"w": np.ones(4, F)}))


def test_whole_numbers_modulo_a_constant() -> None:
    for divisor in (3, -3):
        for fmod in (0, 1):
            nodes = [
                node("Cast", "x", "i", to=TensorProto.INT64),
                node("Mod", "i k", "m", fmod=fmod),
                node("Cast", "m", "y", to=TensorProto.FLOAT),
            ]
            model = model_of(nodes, {"x": [5, 8]}, ["y"], {"k": np.asarray(divisor)})
            check_bounds(assert_same_as_runtime(model, -20, 20), 3.0)


def test_quantised_weights() -> None:
    constants = {
        "q": np.arange(10, dtype=np.int8).reshape(5, 2),
        "s": np.asarray([0.1, 0.2], F),
        "z": np.asarray([1, 0], np.int8),
    }
    nodes = [node("DequantizeLinear", "q s z", "w", axis=1), node("Mul", "x w", "y")]
    assert_same_as_runtime(model_of(nodes, {"x": [5, 2]}, ["y"], constants))


def test_attention_with_the_batch_axis_in_the_middle_and_computed_shapes() -> None:
    """As exporters write it: steps first, the shape of a reshape computed from the input's."""
    nodes = [
        node("MatMul", "x w", "p"),
        node("Shape", "x", "s"),
        node("Gather", "s two", "width", axis=0),
        node("Div", "width heads", "each"),
        node("Concat", "steps heads each", "shape", axis=0),
        node("Reshape", "p shape", "h"),
        node("Transpose", "h", "q", perm=[1, 0, 2]),
        node("Transpose", "h", "k", perm=[1, 2, 0]),
        node("MatMul", "q k", "scores"),
        node("Softmax", "scores", "a", axis=-1),
        node("MatMul", "a q", "o"),
        node("Transpose", "o", "y", perm=[1, 0, 2]),
    ]
    constants = {"w": normal(8, 8) * F(0.3), "two": ints(2), "heads": ints(2), "steps": ints(-1)}
    check_bounds(assert_same_as_runtime(model_of(nodes, {"x": [3, 1, 8]}, ["y"], constants)), 0.05)


def saved_outside(folder: Path, packed: bool = False) -> Path:
    """A dense network whose weights lie in another file."""
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "y")]
    model = onnx.load_from_string(model_of(nodes, {"x": [1, 8]}, ["y"], {"w": normal(8, 6), "b": normal(6)}))
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    if packed:
        for name in ("net.onnx", "net.weights"):
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_weights_in_another_file(tmp_path: Path, packed: bool) -> None:
    network = load(saved_outside(tmp_path, packed))
    assert network.parameter_count == 8 * 6 + 6
    x = normal(1, 8)
    (reference,) = network.runtime.run(x)
    np.testing.assert_allclose(reference, x @ normal(8, 6) + normal(6), atol=1e-5)
    assert network.model is not None
    assert load(network.model).sha256 == network.sha256


def test_inspect_finds_weights_in_another_file(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["inspect", str(saved_outside(tmp_path))])
    assert shown.exit_code == 0
    assert "net.onnx: 54 parameters" in shown.output


def test_supports_lists_what_is_new() -> None:
    listed = CliRunner().invoke(cli, ["supports", "--onnx-operators"]).output.splitlines()
    notes = {line.split(" * ")[0]: line.partition(" * ")[2] for line in listed}
    assert notes["Einsum"] == ""
    assert "no cache" in notes["Attention"]
    assert "branches of one shape" in notes["If"]
    assert notes["DequantizeLinear"] == "of constants only"
    assert all("unrolled" in notes[op] for op in ("LSTM", "GRU", "RNN"))


def test_weights_in_another_file_that_do_not_fit(tmp_path: Path) -> None:
    path = saved_outside(tmp_path)
    with pytest.raises(LoadError, match="load the file by its path"):
        load(path.read_bytes())
    weights = (tmp_path / "net.weights").read_bytes()
    (tmp_path / "net.weights").write_bytes(weights[:20])
    with pytest.raises(LoadError, match=r"beyond the end of net\.weights"):
        load(path)
    (tmp_path / "net.weights").unlink()
    with pytest.raises(LoadError, match="no such network file"):
        load(path)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(LoadError, match="not in the model's own folder"):
        load(path)
