"""VNN-LIB 2.0: several networks over coupled inputs, rows over inputs and outputs, products, named tensors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from boundsmith.specs.read import parse_property
from boundsmith.verify.api import verify
from boundsmith.verify.budget import Deadline
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options
from boundsmith.verify.result import Verdict
from boundsmith.verify.strategy import verify_files
from onnx import TensorProto, helper

from tests.onnx_files import assert_witness, forward, is_violated, random_layers, save, save_dense

DECLARED = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [1,2]) (declare-output Y_f real [1,2]))
(declare-network g ({link} f) (declare-input X_g real [1,2]) (declare-output Y_g real [1,2]))
"""
SAME = "".join(f"(assert (== X_g[0,{k}] X_f[0,{k}]))" for k in range(2))
UNIT = "".join(f"(assert (and (>= {v}[0,{k}] -1) (<= {v}[0,{k}] 1)))" for v in ("X_f", "X_g") for k in range(2))
FREE = UNIT[: len(UNIT) // 2]


def decide(folder, text, networks, **options):
    """Decide a query in text about layers by name; the witness of a `sat` is checked. Returns the verdict."""
    files = {name: save_dense(folder / f"{name or 'only'}.onnx", layers) for name, layers in networks.items()}
    (folder / "query.vnnlib").write_text(text)
    result = verify_files(folder / "query.vnnlib", files, Options(threads=1, **options), Deadline.after(30))
    if result.verdict is Verdict.SAT:
        property = parse_property(text)
        named = {n.name: files.get(n.name) or files.get(n.equal_to) or files[""] for n in property.networks}
        assert_witness(result, property, named)
    return result.verdict


def grid(dimensions, count=101, low=-1.0, high=1.0):
    """A regular grid of a box ``[count ** dimensions, dimensions]``."""
    return np.array(list(itertools.product(np.linspace(low, high, count), repeat=dimensions)))


@pytest.mark.parametrize("attack", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_epsilon_equivalence_of_a_perturbed_copy(tmp_path, seed, attack):
    """``|f - g| <= eps`` for a copy with shifted weights: decided right on both sides of the largest difference."""
    rng = np.random.default_rng(seed)
    original = random_layers((2, 5, 2), seed)
    copy = [(w + 0.02 * rng.normal(size=w.shape).astype(np.float32), b) for w, b in original]
    points = grid(2)
    largest = float(np.abs(forward(original, points) - forward(copy, points))[:, 0].max())
    for eps, expected in ((0.9 * largest, Verdict.SAT), (1.2 * largest, Verdict.UNSAT)):
        text = DECLARED.format(link="isomorphic-to") + FREE + SAME
        text += f"(assert (or (>= (- Y_f[0,0] Y_g[0,0]) {eps}) (>= (- Y_g[0,0] Y_f[0,0]) {eps})))"
        assert is_violated(parse_property(text), {"f": original, "g": copy}) is (expected is Verdict.SAT)
        assert decide(tmp_path, text, {"f": original, "g": copy}, attack=attack) is expected


@pytest.mark.parametrize("given", ["", "f"])
@pytest.mark.parametrize("attack", [True, False])
def test_monotonicity_with_one_file_for_both(tmp_path, attack, given):
    """``X_f[0] <= X_g[0]`` couples the inputs of two copies; the first output rises with input 0, the second falls."""
    weight = np.array([[1.0, 0.5], [0.5, -1.0], [2.0, 0.0]], np.float32)
    layers = [
        (weight, np.zeros(3, np.float32)),
        (np.array([[1, 1, 1], [-1, -1, -1]], np.float32), np.zeros(2, np.float32)),
    ]
    coupled = DECLARED.format(link="equal-to") + UNIT
    coupled += "(assert (== X_g[0,1] X_f[0,1]))(assert (<= X_f[0,0] X_g[0,0]))"
    points = grid(3, 41)
    gap = points[:, 2] - points[:, 0]
    y_f, y_g = forward(layers, points[:, [0, 1]]), forward(layers, points[:, [2, 1]])
    coupling = "(assert (>= X_f[0,0] 0.25))(assert (>= (- X_g[0,0] X_f[0,0]) {}))"
    for condition, sampled, expected in (
        ("(assert (>= Y_f[0,0] (+ Y_g[0,0] 0.05)))", y_f[:, 0] >= y_g[:, 0] + 0.05, Verdict.UNSAT),
        ("(assert (>= Y_f[0,1] (+ Y_g[0,1] 0.05)))", y_f[:, 1] >= y_g[:, 1] + 0.05, Verdict.SAT),
        (
            coupling.format(0.4) + "(assert (>= Y_f[0,0] (- Y_g[0,0] 0.5)))",
            (y_f[:, 0] >= y_g[:, 0] - 0.5) & (gap >= 0.4) & (points[:, 0] >= 0.25),
            Verdict.UNSAT,
        ),
        (
            coupling.format(0.1) + "(assert (>= Y_f[0,0] (- Y_g[0,0] 0.5)))",
            (y_f[:, 0] >= y_g[:, 0] - 0.5) & (gap >= 0.1) & (points[:, 0] >= 0.25),
            Verdict.SAT,
        ),
    ):
        assert (sampled & (gap >= 0)).any() == (expected is Verdict.SAT)
        assert decide(tmp_path, coupled + condition, {given: layers}, attack=attack) is expected


@pytest.mark.parametrize("seed", range(6))
def test_rows_over_inputs_and_outputs(tmp_path, seed):
    """``Y0 + a X0 - b X1 <= d`` on both sides of its minimum over a dense grid."""
    rng = np.random.default_rng(seed)
    layers = random_layers((2, 5, 1), seed)
    a, b = rng.normal(size=2)
    points = grid(2, 201)
    least = float((forward(layers, points)[:, 0] + a * points[:, 0] - b * points[:, 1]).min())
    head = """(vnnlib-version <2.0>)
    (declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,1]))
    (assert (and (>= X[0,0] -1) (<= X[0,0] 1)))(assert (and (>= X[0,1] -1) (<= X[0,1] 1)))"""
    for gap, expected in ((0.01, Verdict.SAT), (-0.05, Verdict.UNSAT)):
        text = head + f"(assert (<= (+ Y[0,0] (* {a:.6f} X[0,0])) (+ (* {b:.6f} X[0,1]) {least + gap:.6f})))"
        assert is_violated(parse_property(text), {"N": layers}) is (expected is Verdict.SAT)
        for attack in (True, False):
            assert decide(tmp_path, text, {"": layers}, attack=attack) is expected


MONOMIALS = {
    "(* X[0,0] X[0,0])": lambda x, y: x[:, 0] ** 2,
    "(* X[0,0] X[0,1])": lambda x, y: x[:, 0] * x[:, 1],
    "(* X[0,0] Y[0,0])": lambda x, y: x[:, 0] * y[:, 0],
    "(* Y[0,0] Y[0,0])": lambda x, y: y[:, 0] ** 2,
    "(* Y[0,0] Y[0,1])": lambda x, y: y[:, 0] * y[:, 1],
    "(* X[0,0] X[0,0] X[0,0])": lambda x, y: x[:, 0] ** 3,
    "(* X[0,1] Y[0,1] Y[0,1])": lambda x, y: x[:, 1] * y[:, 1] ** 2,
}


@pytest.mark.parametrize("term", MONOMIALS)
@pytest.mark.parametrize("attack", [True, False])
def test_products_of_variables(tmp_path, term, attack):
    """``m - Y0 + 0.3 X1 <= d`` for a monomial m, on both sides of the minimum over a dense grid."""
    layers = random_layers((2, 4, 2), 5)
    points = grid(2, 301)
    outputs = forward(layers, points)
    least = float((MONOMIALS[term](points, outputs) - outputs[:, 0] + 0.3 * points[:, 1]).min())
    head = """(vnnlib-version <2.0>)
    (declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))
    (assert (and (>= X[0,0] -1) (<= X[0,0] 1)))(assert (and (>= X[0,1] -1) (<= X[0,1] 1)))"""
    for gap, expected in ((0.01, Verdict.SAT), (-0.05, Verdict.UNSAT)):
        text = head + f"(assert (<= (+ {term} (* -1 Y[0,0]) (* 0.3 X[0,1])) {least + gap:.6f}))"
        assert decide(tmp_path, text, {"": layers}, attack=attack) is expected


@pytest.mark.parametrize("attack", [True, False])
def test_squares_of_sums_in_nested_conditions(tmp_path, attack):
    """``(X0 + Y0 / 2)^2`` beside products of inputs as a precondition, around its least value on a dense grid."""
    layers = random_layers((2, 4, 1), 7)
    points = grid(2, 401)
    y = forward(layers, points)[:, 0]
    x0, x1 = points.T
    square = (x0 + 0.5 * y) ** 2 + x1
    allowed = (x0 * x1 >= 0.1) & ((y >= 0.2) | (x1 * x1 <= 0.25 * x0))
    least = float(square[allowed].min())
    head = """(vnnlib-version <2.0>)
    (declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,1]))
    (assert (and (>= X[0,0] -1) (<= X[0,0] 1)))(assert (and (>= X[0,1] -1) (<= X[0,1] 1)))
    (assert (>= (* X[0,0] X[0,1]) 0.1))
    (assert (or (>= Y[0,0] 0.2) (<= (* X[0,1] X[0,1]) (* 0.25 X[0,0]))))"""
    sum_ = "(+ X[0,0] (* 0.5 Y[0,0]))"
    for gap, expected in ((0.02, Verdict.SAT), (-0.05, Verdict.UNSAT)):
        text = head + f"(assert (<= (+ (* {sum_} {sum_}) X[0,1]) {least + gap:.6f}))"
        assert decide(tmp_path, text, {"": layers}, attack=attack) is expected


def test_products_over_two_networks(tmp_path):
    """``X_f[0] * Y_g[0]`` and ``Y_f[0] * Y_g[1]`` in one conjunction."""
    f, g = random_layers((2, 4, 2), 1), random_layers((2, 4, 2), 2)
    points = grid(2, 301)
    y_f, y_g = forward(f, points), forward(g, points)
    first, second = points[:, 0] * y_g[:, 0], y_f[:, 0] * y_g[:, 1]
    middle = float(np.median(first))
    least = float(second[first <= middle].min())
    for gap, expected in ((0.01, Verdict.SAT), (-0.05, Verdict.UNSAT)):
        text = DECLARED.format(link="isomorphic-to") + FREE + SAME
        text += f"(assert (<= (* X_f[0,0] Y_g[0,0]) {middle:.6f}))(assert (<= (* Y_f[0,0] Y_g[0,1]) {least + gap:.6f}))"
        assert decide(tmp_path, text, {"f": f, "g": g}) is expected


def test_an_isomorphic_network_needs_a_file_of_its_own(tmp_path):
    """One unnamed file must not be taken for two different networks: equivalence would follow for nothing."""
    text = DECLARED.format(link="isomorphic-to") + FREE + SAME + "(assert (>= (- Y_f[0,0] Y_g[0,0]) 0.01))"
    with pytest.raises(LoadError, match=r"no file is given for network"):
        decide(tmp_path, text, {"": random_layers((2, 4, 2), 1)})
    with pytest.raises(LoadError, match=r"no file is given for network g"):
        decide(tmp_path, text, {"f": random_layers((2, 4, 2), 1)})


def test_several_networks_equal_to_one(tmp_path):
    text = DECLARED.format(link="equal-to") + (
        "(declare-network h (equal-to f) (declare-input X_h real [1,2]) (declare-output Y_h real [1,2]))"
    )
    bounds = UNIT + "".join(f"(assert (== X_h[0,{k}] X_f[0,{k}]))" for k in range(2))
    for name in ("", "f"):
        verdict = decide(
            tmp_path, text + bounds + "(assert (>= (- Y_h[0,0] Y_f[0,0]) 0.01))", {name: random_layers((2, 4, 2), 1)}
        )
        assert verdict is Verdict.UNSAT


def two_inputs(path):
    """``Y = A + 2 B``, ``Z = B`` of two inputs of one size."""
    nodes = [
        helper.make_node("Add", ["B", "B"], ["twice"]),
        helper.make_node("Add", ["A", "twice"], ["Y"]),
        helper.make_node("Relu", ["B"], ["Z"]),
    ]
    return save(path, nodes, [("A", (1,)), ("B", (1,))], [("Y", (1,)), ("Z", (1,))])


@pytest.mark.parametrize("swapped", [False, True])
def test_tensors_are_matched_by_the_names_that_the_query_gives(tmp_path, swapped):
    """Declaring the inputs and outputs in another order than the file's, by their ONNX names, changes nothing."""
    network = two_inputs(tmp_path / "net.onnx")
    inputs = ['(declare-input P real [1] "A")', '(declare-input Q real [1] "B")']
    outputs = ['(declare-output R real [1] "Y")', '(declare-output S real [1] "Z")']
    if swapped:
        inputs, outputs = inputs[::-1], outputs[::-1]
    head = f"(vnnlib-version <2.0>)(declare-network N {' '.join(inputs + outputs)})"
    head += "(assert (and (>= P[0] 0) (<= P[0] 1)))(assert (and (>= Q[0] 0) (<= Q[0] 0.25)))"
    for bound, expected in (("1.55", Verdict.UNSAT), ("1.45", Verdict.SAT)):
        (tmp_path / "q.vnnlib").write_text(head + f"(assert (>= R[0] {bound}))")
        by_file = verify_files(tmp_path / "q.vnnlib", {"": network}, Options(threads=1), Deadline.after(20))
        loaded = verify(load(network), tmp_path / "q.vnnlib", 20)
        for result in (by_file, loaded):
            assert result.verdict is expected
            if expected is Verdict.SAT:
                inputs_, outputs_ = dict(result.witness.inputs), dict(result.witness.outputs)
                assert outputs_["R"] == inputs_["P"] + 2 * inputs_["Q"]
                assert outputs_["S"] == inputs_["Q"]
                assert inputs_["Q"] <= 0.25


def test_a_tensor_name_that_the_file_does_not_have(tmp_path):
    network = two_inputs(tmp_path / "net.onnx")
    text = """(declare-network N (declare-input P real [1] "A") (declare-input Q real [1] {second})
    (declare-output R real [1]) (declare-output S real [1]))
    (assert (and (>= P[0] 0) (<= P[0] 1)))(assert (and (>= Q[0] 0) (<= Q[0] 1)))(assert (>= R[0] 9))"""
    for second, message in (('"C"', r"Q stands for input 'C'.*its inputs are A, B"), ('"A"', "the same input")):
        with pytest.raises(LoadError, match=message):
            verify(load(network), parse_property(text.format(second=second)), 10)
    assert verify(load(network), parse_property(text.format(second="")), 10).verdict is Verdict.UNSAT


def test_a_shared_input_is_one_number_for_networks_of_different_types(tmp_path):
    """A float64 and a float32 network over one input: the witness has the same number in both."""
    f, g = two_of_type(tmp_path, "f", TensorProto.FLOAT), two_of_type(tmp_path, "g", TensorProto.DOUBLE)
    text = """(vnnlib-version <2.0>)
    (declare-network f (declare-input X_f real [1]) (declare-output Y_f real [1]))
    (declare-network g (isomorphic-to f) (declare-input X_g real [1]) (declare-output Y_g real [1]))
    (assert (and (>= X_f[0] 0.1) (<= X_f[0] 0.7)))(assert (== X_f[0] X_g[0]))(assert (>= (+ Y_f[0] Y_g[0]) 0.3))"""
    for order in (text, text.replace("_f", "_t").replace("_g", "_f").replace("_t", "_g")):
        result = verify({"f": load(f), "g": load(g)}, parse_property(order), 3, Options(method="attack"))
        assert result.verdict is Verdict.SAT
        first, second = (float(array[0]) for _, array in result.witness.inputs)
        assert first == second


def two_of_type(folder, name, element):
    return save(
        folder / f"{name}.onnx", [helper.make_node("Relu", ["X"], ["Y"])], [("X", (1,))], [("Y", (1,))], (), element
    )


@pytest.mark.parametrize(("margin", "verdict"), [(0.001, Verdict.UNSAT), (-0.001, Verdict.SAT)])
def test_monotonicity_of_a_small_network(tmp_path, margin, verdict):
    """Inputs that the query couples gain nothing from being halved; splitting activations takes turns with that."""
    weight = np.array([[1.0, 2.0], [-1.0, 1.0]], np.float32)
    layers = [(weight, np.zeros(2, np.float32)), (np.array([[1.0, 0.0]], np.float32), np.zeros(1, np.float32))]
    text = (
        "(vnnlib-version <2.0>)"
        "(declare-network f (declare-input X_f real [1,2]) (declare-output Y_f real [1,1]))"
        "(declare-network g (equal-to f) (declare-input X_g real [1,2]) (declare-output Y_g real [1,1]))"
        + "".join(
            f"(assert (and (>= X_{name}[0,{k}] -1.0) (<= X_{name}[0,{k}] 1.0)))" for name in "fg" for k in range(2)
        )
        + "(assert (<= X_f[0,0] X_g[0,0]))(assert (<= X_f[0,1] X_g[0,1]))"
        + f"(assert (> Y_f[0,0] (+ Y_g[0,0] {margin})))"
    )
    assert decide(tmp_path, text, {"f": layers}) is verdict
