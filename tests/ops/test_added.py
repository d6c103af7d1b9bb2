"""Operators that a user adds: what `check_operator` finds, and that loading, bounds and verdicts take them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from boundsmith.specs import robustness_property
from boundsmith.verify import Operator, Verdict, bounds, check_operator, load, unary_operator, verify
from boundsmith.verify.errors import LoadError, UnsupportedError
from boundsmith.verify.loading.runtime import OwnRuntime, Runtime
from boundsmith.verify.ops import Lines, OpRule, rule
from boundsmith.verify.ops.added import OperatorName
from boundsmith.verify.ops.checking import UnsoundOperator
from boundsmith.verify.ops.convex import convex_lines
from boundsmith.verify.ops.lines import point_in
from loading.models import model_of
from onnx import helper

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from collections.abc import Callable

F = np.float32
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def value(xp: Any, x: Any) -> Any:
    return xp.cosh(x)


def derivative(xp: Any, x: Any) -> Any:
    return xp.sinh(x)


def interval(xp: Any, lower: Any, upper: Any) -> Any:
    nearest = xp.minimum(xp.maximum(lower, 0 * lower), upper)
    return value(xp, nearest), xp.maximum(value(xp, lower), value(xp, upper))


def lines(xp: Any, lower: Any, upper: Any, position: Any) -> Any:
    return convex_lines(xp, value, derivative, lower, upper, point_in(lower, upper, position))


PARTS: dict[str, Callable[..., Any]] = {
    "value": value,
    "derivative": derivative,
    "interval": interval,
    "lines": lines,
}
COSH = unary_operator("Cosh", "aten.cosh", "my.domain.HyperbolicCosine", **PARTS)


def test_a_sound_operator_passes() -> None:
    assert check_operator(COSH, -20, 20) > 10_000


@pytest.mark.parametrize(
    ("part", "wrong", "words"),
    [
        ("interval", lambda xp, lo, hi: (value(xp, lo), value(xp, hi)), r"its interval bound the value at"),
        ("lines", lambda xp, lo, hi, t: (lines(xp, lo, hi, t)[1], lines(xp, lo, hi, t)[1]), "its lines bound"),
        ("lines", lambda xp, lo, hi, t: tuple((k, b * 0.9) for k, b in lines(xp, lo, hi, t)), "its lines bound"),
        ("derivative", lambda xp, x: xp.sinh(x) * 1.1, "its gradient at|its lines bound"),
        ("lines", lambda xp, lo, hi, t: (lines(xp, lo, hi, None)[0], (0 * lo, value(xp, hi))), "its lines bound"),
        ("interval", lambda xp, lo, hi: (lo * np.nan, hi), "its interval have NaN"),
    ],
)
def test_wrong_parts_are_found(part: str, wrong: Callable[..., Any], words: str) -> None:
    with pytest.raises(UnsoundOperator, match=words):
        check_operator(unary_operator("Cosh", **{**PARTS, part: wrong}), -3, 3)


def test_answers_of_the_wrong_type_are_found() -> None:
    with pytest.raises(UnsoundOperator, match="evaluate answers float64"):
        check_operator(unary_operator("Cosh", **{**PARTS, "value": lambda xp, x: np.cosh(x.astype(float))}))


@pytest.mark.parametrize(
    ("op", "low", "high", "inputs", "attributes"),
    [
        *[(op, -30, 30, 1, {}) for op in ("Relu", "Abs", "Sigmoid", "Tanh", "Erf", "Arctan")],
        *[(op, -30, 30, 1, {}) for op in ("Softplus", "Silu", "HardSwish")],
        *[(op, -9, 9, 1, {}) for op in ("Sin", "Cos", "Exp")],
        *[(op, 0.01, 50, 1, {}) for op in ("Log", "Sqrt")],
        ("Gelu", -8, 8, 1, {"approximate": "none"}),
        ("Elu", -8, 8, 1, {"alpha": 0.7}),
        ("Pow", -3, 3, 1, {"exponent": 3.0}),
        ("Clip", -3, 3, 1, {"min": -1.0, "max": 2.0}),
        ("Mul", -5, 5, 2, {}),
        ("Max", -5, 5, 3, {}),
    ],
)
def test_rows_of_the_table_pass(op: str, low: float, high: float, inputs: int, attributes: dict[str, Any]) -> None:
    check_operator(Operator(("Other",), op), low, high, inputs, attributes)


def test_a_row_of_two_inputs_that_is_wrong_is_found() -> None:
    right = rule("Mul")

    def flat(node: Any, intervals: Any, slope: Any = None) -> Lines:
        made = right.relax(node, intervals, slope)  # type: ignore[misc]
        return replace(made, lower_intercept=made.lower_intercept + 0.01)

    with pytest.raises(UnsoundOperator, match=r"on \[.*\] and \[.*\] its lines bound the value at"):
        check_operator(Operator(("Product",), replace(right, relax=flat)), -5, 5, inputs=2)


def test_the_row_travels_with_the_name() -> None:
    name = COSH.op
    assert isinstance(name, OperatorName)
    assert rule(name) is COSH.row
    assert rule(Operator(("Relu",), COSH.row).op) is COSH.row


def test_another_name_for_a_row_of_the_table() -> None:
    """Rows of a family share functions that look at the name, so a row must not go by another one."""
    network = load(network_of("Bend", "my.domain"), operators=[Operator(("my.domain.Bend",), "Silu")])
    assert "Silu" in {node.op for node in network.graph.nodes}
    with pytest.raises(UnsupportedError, match="give that row's name"):
        Operator(("my.domain.Bend",), rule("Silu"))
    with pytest.raises(UnsupportedError, match="does not have"):
        Operator(("my.domain.Bend",), "Bend")


def network_of(op: str, domain: str = "") -> bytes:
    """Two classes: one of the hyperbolic cosine, the other of its argument."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(op, ["a"], ["b"], name="added", domain=domain),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    constants = {"w": np.asarray([[1.0, -0.5], [0.3, 0.8]], F), "v": np.asarray([[1.0, 0.4], [-0.2, 1.0]], F)}
    return model_of(nodes, {"x": [1, 2]}, ["y"], constants)


def test_an_operator_of_onnxs_own_domain_is_compared_with_onnxruntime() -> None:
    with pytest.raises(LoadError, match=r"Cosh \(node added.*not supported"):
        load(network_of("Cosh"))
    network = load(network_of("Cosh"), operators=[COSH])
    assert isinstance(network.runtime, Runtime)
    wrong = unary_operator("Cosh", **{**PARTS, "value": derivative})
    with pytest.raises(LoadError, match="differs from the reference runtime's: first at Cosh"):
        load(network_of("Cosh"), operators=[wrong])


def test_an_operator_of_another_domain_is_its_own_reference() -> None:
    model = network_of("HyperbolicCosine", "my.domain")
    with pytest.raises(LoadError, match=r"my\.domain\.HyperbolicCosine"):
        load(model)
    network = load(model, operators=[COSH])
    assert isinstance(network.runtime, OwnRuntime)
    x = np.asarray([[0.3, -0.2]], F)
    (here,), (there,) = network.runtime.run(x), load(network_of("Cosh"), operators=[COSH]).runtime.run(x)
    np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize("domain", ["", "my.domain"])
def test_queries_over_an_added_operator_are_decided(domain: str) -> None:
    network = load(network_of("HyperbolicCosine" if domain else "Cosh", domain), operators=[COSH])
    centre = np.asarray([0.0, 0.5])
    safe = robustness_property(centre, 1, 0.05, 2, clip=None)
    assert verify(network, safe, timeout=20).verdict is Verdict.UNSAT
    assert verify(network, robustness_property(centre, 0, 0.05, 2, clip=None), timeout=20).verdict is Verdict.SAT
    # Wider, the relaxation of the added operator does not decide at once.
    wide = verify(network, robustness_property(centre, 1, 1.0, 2, clip=None), timeout=20)
    assert wide.verdict is Verdict.UNSAT
    assert wide.counters["splits"] > 0


@pytest.mark.parametrize("method", ["ibp", "crown", "crown-ibp", "forward", "alpha-crown"])
def test_bounds_of_an_added_operator_contain_its_values(method: str) -> None:
    network = load(network_of("Cosh"), operators=[COSH])
    random = np.random.default_rng(3)
    centre = random.normal(size=(6, 2)).astype(F)
    lower, upper = bounds(network, centre, 0.5, method)
    for point in random.uniform(-0.5, 0.5, (50, 6, 2)):
        for row in range(6):
            (made,) = network.runtime.run((centre + point)[row])
            assert (lower[row] - 1e-5 <= made).all()
            assert (made <= upper[row] + 1e-5).all()


def test_an_operator_with_its_own_shape() -> None:
    """Not elementwise: pairs of neighbours added up, as a linear row."""
    pairs = OpRule(
        evaluate=lambda node, xs: xs[0][..., ::2] + xs[0][..., 1::2],
        interval=lambda node, intervals: tuple(end[..., ::2] + end[..., 1::2] for end in intervals[0]),  # type: ignore[arg-type,return-value]
    )
    operator = Operator(
        ("my.domain.Pairs",), pairs, shape=lambda shapes, attributes: (*shapes[0][:-1], shapes[0][-1] // 2)
    )
    model = model_of([helper.make_node("Pairs", ["x"], ["y"], domain="my.domain")], {"x": [1, 4]}, ["y"])
    network = load(model, operators=[operator])
    assert network.outputs[0].shape == (1, 2)
    lower, upper = bounds(network, np.zeros((1, 4), F), 1.0, "ibp")
    np.testing.assert_allclose((lower, upper), ([[-2, -2]], [[2, 2]]), atol=1e-5)


def test_torch_modules_take_added_operators() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.cosh(x) + 1

    with pytest.raises(LoadError, match=r"aten\.cosh"):
        load(Module(), torch.zeros(1, 3))
    network = load(Module(), torch.zeros(1, 3), operators=[COSH])
    assert [node.op for node in network.graph.nodes] == ["Input", "added Cosh", "Scale"]
