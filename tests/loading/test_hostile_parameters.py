"""Operators with parameters outside the usual range: onnxruntime's or torch's values lie inside the bounds, or the load
is refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.errors import UndefinedOnRegion
from boundsmith.verify.loading import load
from boundsmith.verify.loading.builder import LoadError

from .models import assert_same_as_runtime, replayed, single

if TYPE_CHECKING:
    from boundsmith.verify.loading import Network

torch = pytest.importorskip("torch")

F = np.float32
V = [[1, 3, 4]]
IMAGE = [[1, 4, 6, 5]]
PLANE = [[1, 1, 6, 5]]
POINTS = 60
UNUSUAL = (-0.5, -3.0, 0.0, 1e-30)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 1).normal(size=shape).astype(F)


def number(value: float) -> np.ndarray:
    return np.asarray(value, F)


Case = tuple[str, list[list[int]], list[np.ndarray | None], dict[str, Any]]

CASES: list[Case] = [
    *[
        (op, V, [], {name: value})
        for op, name in (
            ("Elu", "alpha"),
            ("LeakyRelu", "alpha"),
            ("ThresholdedRelu", "alpha"),
            ("HardSigmoid", "alpha"),
            ("HardSigmoid", "beta"),
            ("Selu", "alpha"),
            ("Selu", "gamma"),
        )
        for value in UNUSUAL
    ],
    *[("Celu", V, [], {"alpha": alpha}) for alpha in (-0.5, -3.0, 0.1)],
    *[("Swish", V, [], {"alpha": alpha, "opset": 24}) for alpha in (-0.5, 0.0)],
    *[("PRelu", V, [np.array([k, -k, 1, 0], F)], {}) for k in (-0.5, 3.0)],
    ("Clip", V, [number(1), number(-1)], {}),
    ("Clip", V, [number(0.25), number(0.25)], {}),
    *[("Pow", V, [number(e)], {}) for e in (0, 1, 3, 5)],
    *[("Pow", V, [number(e)], {"low": -2.0, "high": -0.1}) for e in (-3, -2, -1)],
    *[("Pow", V, [number(e)], {"low": 0.0, "high": 2.0}) for e in (0.5, 1.5, 1.001)],
    *[("BatchNormalization", IMAGE, [normal(4) * k, *[normal(4)] * 2, normal(4) ** 2], {}) for k in (F(-1), F(0))],
    ("InstanceNormalization", IMAGE, [np.array([-1, 0, 1, -2], F), normal(4)], {}),
    ("LayerNormalization", V, [np.array([-1, 0, 1, -2], F), normal(4)], {}),
    ("GroupNormalization", IMAGE, [np.array([-1, 0, 1, -2], F), normal(4)], {"num_groups": 2, "opset": 21}),
    *[(op, [[1, 3, 1]], [], {"axis": -1}) for op in ("Softmax", "LogSoftmax")],
    *[("Max", V, [], {}), ("Min", V, [], {})],
    *[
        ("Resize", PLANE, [None, np.asarray([1, 1, a, b], F)], {"coordinate_transformation_mode": c, "nearest_mode": n})
        for a, b in ((1.7, 0.6), (0.5, 0.4), (2.5, 3.3))
        for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ],
]


def assert_bounds_hold(network: Network, lower: np.ndarray, upper: np.ndarray, values: np.ndarray) -> None:
    slack = 1e-5 * (1 + abs(values))
    for method in ("ibp", "crown", "forward", "alpha-crown"):
        bounds = bounds_of(network, lower, upper, method)
        assert (bounds.lower <= bounds.upper).all()
        assert (bounds.lower - slack <= values).all(), method
        assert (values <= bounds.upper + slack).all(), method


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{case[3]}")
def test_bounds_contain_the_runtime(case: Case) -> None:
    op, shapes, constants, attributes = case
    settings = dict(attributes)
    low, high = settings.pop("low", -2.0), settings.pop("high", 2.0)
    network = assert_same_as_runtime(single(op, shapes, constants, **settings), low=low, high=high)
    size = int(np.prod(shapes[0]))
    random = np.random.default_rng(1)
    for reach in (1.0, 0.05):
        centre = random.uniform(low, high, (1, size))
        lower = np.maximum(low, centre - reach * (high - low)).astype(F)
        upper = np.minimum(high, centre + reach * (high - low)).astype(F)
        mix = random.random((POINTS, size))
        mix[: POINTS // 2] = np.round(mix[: POINTS // 2])
        points = np.clip(lower + mix * (upper - lower), lower, upper).astype(F)
        (values,) = replayed(network, points.reshape(POINTS, *shapes[0]))
        assert_bounds_hold(network, lower, upper, values.reshape(POINTS, -1).astype(float))


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "reason"),
    [
        *[("Elu", [], {"alpha": value}, "alpha") for value in (np.nan, np.inf)],
        ("Selu", [], {"gamma": np.inf}, "gamma"),
        ("Celu", [], {"alpha": 0.0}, "alpha is zero"),
        ("Gelu", [], {"approximate": "fancy", "opset": 20}, "fancy"),
        ("Clip", [number(np.inf)], {}, "no finite value"),
        ("Clip", [None, number(-np.inf)], {}, "no finite value"),
        ("LpNormalization", [], {"p": 3}, "p is 3"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(
    op: str, constants: list[np.ndarray | None], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LoadError, match=f"tested.*{reason}"):
        load(single(op, V, constants, **attributes))


def test_a_base_that_may_be_negative_has_no_bounds() -> None:
    network = load(single("Pow", V, [number(0.5)]), check=False)
    with pytest.raises(UndefinedOnRegion, match="may be negative"):
        bounds_of(network, np.full((1, 12), -1, F), np.full((1, 12), 1, F))


MODULES = {
    "elu": lambda nn: nn.ELU(-0.5),
    "elu of alpha 0": lambda nn: nn.ELU(0.0),
    "celu": lambda nn: nn.CELU(-0.5),
    "leaky relu": lambda nn: nn.LeakyReLU(-0.3),
    "hard tanh": lambda nn: nn.Hardtanh(-0.1, 0.7),
    "softplus that jumps": lambda nn: nn.Softplus(beta=1.0, threshold=6.0),
    "falling softplus": lambda nn: nn.Softplus(beta=-2.0, threshold=6.0),
    "softplus that never jumps": lambda nn: nn.Softplus(threshold=float("inf")),
    "prelu": lambda nn: nn.PReLU(3, init=-0.7),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MODULES)
def test_bounds_contain_torch(name: str, dtype: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), MODULES[name](torch.nn)).to(dtype)
    with torch.no_grad():
        module[0].weight.copy_(4 * torch.eye(3))
        module[0].bias.zero_()
    network = load(module, torch.zeros(1, 3, dtype=dtype))
    for low, high in ((-2.0, 2.0), (1.4, 1.6), (-1.6, -1.4), (-0.1, 0.2)):
        points = torch.linspace(low, high, 4001, dtype=dtype)[:, None].repeat(1, 3)
        with torch.no_grad():
            values = module(points).numpy().astype(float)
        kind = points.numpy().dtype
        ends = (np.full((1, 3), end, kind) for end in (low, high))
        assert_bounds_hold(network, *ends, values)


class Rounded(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.round(x, decimals=1)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (torch.nn.ELU(float("nan")), "alpha is nan"),
        (torch.nn.CELU(float("inf")), "alpha is inf"),
        (torch.nn.LeakyReLU(float("inf")), "negative_slope is inf"),
        (torch.nn.Softplus(beta=0.0), "beta is zero"),
        (torch.nn.Softplus(threshold=1.0), "threshold"),
        (Rounded(), "decimals is 1"),
    ],
)
def test_modules_without_meaning_are_refused_by_name(module: Any, reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        load(module, torch.zeros(1, 3))
