"""Thresholds, coefficients and boxes beyond the range of float32, or near the ends of float64's."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.specs.read import parse_property
from boundsmith.verify import load, verify
from boundsmith.verify.attack.replay import Replay
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.graph import Graph
from boundsmith.verify.options import Options
from boundsmith.verify.problem import join
from boundsmith.verify.rows import prepare_rows, scaled
from onnx import helper, numpy_helper

from tests.networks import node
from tests.onnx_files import save
from tests.queries import query_of

METHODS = ("auto", "input-split", "activation-split", "milp", "bounds")


def network(tmp_path, relu):
    """``Y_0 = X_0 + X_1`` (its positive part with `relu`)."""
    last = "z" if relu else "Y"
    nodes = [helper.make_node("MatMul", ["X", "w"], [last])]
    if relu:
        nodes.append(helper.make_node("Relu", ["z"], ["Y"]))
    weight = numpy_helper.from_array(np.ones((2, 1), np.float32), "w")
    return load(save(tmp_path / "n.onnx", nodes, [("X", (1, 2))], [("Y", (1, 1))], [weight]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("low", "high", "condition", "violated"),
    [
        (-1, 1, "(>= Y_0 1e300)", False),
        (-1, 1, "(>= Y_0 1.7e308)", False),
        (-1, 1, "(<= Y_0 -1e300)", False),
        (-1, 1, "(>= (* 1e39 Y_0) 2.5e39)", False),
        (-1, 1, "(>= (* 1e39 Y_0) 1.5e39)", True),
        (-1, 1, "(>= (* 1e-300 Y_0) 2.5e-300)", False),
        (-1, 1, "(>= (* 1e-300 Y_0) 1.5e-300)", True),
        (-1, 1, "(>= (* 1.7e308 Y_0) 1.7e308)", True),
        (1, 2, "(<= Y_0 1e-300)", False),
        (1, 2, "(<= (* 1e-40 Y_0) 1e-40)", False),
        (-1, 3e38, "(>= Y_0 1e39)", False),
        (-1, 1e300, "(>= Y_0 1e301)", False),
        (1e300, 1e301, "(<= Y_0 1)", False),
    ],
)
def test_verdicts(tmp_path, method, relu, low, high, condition, violated):
    text = "".join(f"(declare-const X_{k} Real)(assert (and (>= X_{k} {low}) (<= X_{k} {high})))" for k in range(2))
    query = parse_property(f"{text}(declare-const Y_0 Real)(assert {condition})")
    verdict = verify(network(tmp_path, relu), query, 10, Options(method=method, threads=1)).verdict.value
    assert verdict in (("sat", "unknown") if violated else ("unsat", "unknown"))
    if method in ("auto", "input-split"):
        assert verdict == ("sat" if violated else "unsat")


def test_scaling_is_exact():
    rows = np.array([[1e300, -3e299], [1e-200, 0.0], [1e300, 1e-300], [0.5, 3.0], [0.0, 0.0]])
    offsets = np.array([1e290, 7e-201, 1.0, 1e300, 1.0])
    made, moved = scaled(rows, offsets)
    assert (abs(made[:2]).max(axis=1) <= 1).all()
    assert (made[2:] == rows[2:]).all()
    assert (moved[2:] == offsets[2:]).all()
    for row in (0, 1):
        power = np.log2(moved[row] / offsets[row])
        assert power == round(power)
        assert (np.ldexp(made[row], -round(power)) == rows[row]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_offsets_are_rounded_to_where_less_is_refuted(dtype):
    offsets = np.array([0.1, -0.1, 1e-50, -1e-50, 1e300, -1e300, -1.7e308, 0.0, 3.0])
    box = Box(np.zeros(1), np.ones(1))
    graph = Graph((node("x", "Input", (), (1,)),), (0,), (0,))
    problem = join(query_of(1, 1, [(box, [[1.0]] * len(offsets), offsets)]), {"N": graph})
    made = prepare_rows(problem.groups, np.zeros(1, dtype)).offsets[0].astype(float)
    assert (made >= problem.groups[0].offsets).all()
    assert np.isfinite(made[offsets < 0]).all()
    near = abs(offsets) < 1e30
    assert (made - offsets)[near] == pytest.approx(0, abs=1e-7)


def test_bounds_of_a_linear_network_have_a_row_for_every_box():
    graph = Graph((node("x", "Input", (), (2,)),), (0,), (0,))
    low = np.zeros((3, 2), np.float32)
    bound = row_bounds(relax(make_plan(graph), low, low + 1), np.ones((1, 1, 2), np.float32), low[:1, :1])
    assert {x.shape[0] for x in (bound.coefficients, bound.constant, bound.lower, bound.lost)} == {3}
    assert bound.boxes(np.array([2])).lower.shape == (1, 1)


def test_an_infinite_input_is_no_witness(tmp_path):
    loaded = network(tmp_path, relu=True)
    query = query_of(2, 1, [(Box(np.full(2, 1e300), np.full(2, 1e301)), [[-1.0]], [0.0])])
    replay = Replay(join(query, {"N": loaded.graph}), {"N": loaded})
    assert replay.check_one(np.full(2, 1e300), 0) is None
