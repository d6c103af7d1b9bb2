"""Operators of one variable with parameters outside the usual range, exact values, and intervals of every kind: what
the tests of hostile parameters and intervals run over.

Values are computed in numpy's longest float, so that bounds are compared without any tolerance of their own dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
from boundsmith.verify.graph import Array, Node

LONG = np.longdouble
Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Hostile:
    """An operator, its parameters, its exact value, and where it is defined: everywhere, or for positive numbers, or
    numbers from zero on, or negative ones."""

    op: str
    value: Function
    attributes: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Array] = field(default_factory=dict)
    domain: str = "real"
    kinks: tuple[float, ...] = (0.0,)

    @property
    def name(self) -> str:
        settings = [f"{key}={value}" for key, value in (*self.attributes.items(), *self.params.items())]
        return f"{self.op}[{','.join(settings)}]{'' if self.domain == 'real' else self.domain}"

    def node(self, count: int, convert: Callable[[np.ndarray], Array]) -> Node:
        params = {key: convert(value) for key, value in self.params.items()}
        return Node("y", self.op, (0,), (count,), params, self.attributes, ((count,),))


def _elu(alpha: float) -> Function:
    return lambda x: np.where(x > 0, x, LONG(alpha) * np.expm1(np.minimum(x, 0)))


def _leaky(slope: float) -> Function:
    return lambda x: np.where(x > 0, x, LONG(slope) * x)


def _clip(least: float, most: float) -> Function:
    return lambda x: np.minimum(np.maximum(x, LONG(least)), LONG(most))


def _power(exponent: float) -> Function:
    if exponent.is_integer() and abs(exponent) < 1e9:
        return lambda x: x ** int(exponent)
    return lambda x: x ** LONG(exponent)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _piecewise(knots: tuple[float, ...], values: tuple[float, ...], slopes: tuple[float, ...]) -> Function:
    def function(x: np.ndarray) -> np.ndarray:
        y = LONG(values[0]) + LONG(slopes[0]) * (x - LONG(knots[0]))
        for knot, value, slope in zip(knots, values, slopes[1:], strict=True):
            y = np.where(x > knot, LONG(value) + LONG(slope) * (x - LONG(knot)), y)
        return y

    return function


def _by_mpmath(function: Callable[[Any], Any]) -> Function:
    """A function that no library has in more than float64."""

    def one(x: np.longdouble) -> np.longdouble:
        with mpmath.workprec(120):
            high = float(x)
            y = function(mpmath.mpf(high) + mpmath.mpf(float(x - LONG(high))))
            first = float(y)
            return LONG(first) + LONG(float(y - first)) if np.isfinite(first) else LONG(first)

    vectorised = np.vectorize(one, otypes=[LONG])

    def function_of(x: np.ndarray) -> np.ndarray:
        found, where = np.unique(x, return_inverse=True)
        return vectorised(found)[where].reshape(x.shape)

    return function_of


def _gelu(x: Any) -> Any:
    far = 1e4  # beyond it the tail is less than any number of float64
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2 if abs(x) < far else max(x, mpmath.mpf(0))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    inner = LONG(2) * np.sqrt(LONG(2) / (4 * np.arctan(LONG(1)))) * (x + LONG("0.044715") * x**3)
    return x / (1 + np.exp(-inner))


_TABLE: dict[str, Any] = {
    "knots": (-1e10, -1.0, 0.0, 1e-30),
    "values": (1e10, 1.0, 0.0, 1e-30),
    "slopes": (0.0, -1.0, -1.0, 1.0, -1e10),
}

UNUSUAL = (0.0, -0.0, 1.0, -1.0, -0.5, 3.0, -3.0, *(float(np.float32(x)) for x in (1e-30, -1e-30, 1e30, -1e30)))

CASES: tuple[Hostile, ...] = (
    *(Hostile("Elu", _elu(alpha), {"alpha": alpha}) for alpha in (*UNUSUAL, 1.6732632423543772, -1e30)),
    *(Hostile("LeakyRelu", _leaky(k), params={"slope": np.array(k)}) for k in (*UNUSUAL, 1 + 2**-20)),
    *(
        Hostile("Clip", _clip(least, most), {"min": least, "max": most}, kinks=(least, most))
        for least, most in (
            (0.0, 0.0),
            (-1.0, 2.0),
            (-1e30, 1e30),
            (1e-30, 2e-30),
            (-np.inf, 3.0),
            (5.0, np.inf),
            (0.1, 0.7),
            (-1e-40, 1e-40),
        )
    ),
    *(
        Hostile("Pow", _power(exponent), {"exponent": exponent}, domain=domain)
        for exponent, domain in (
            *((e, "real") for e in (0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 30.0, 101.0)),
            *((e, "positive") for e in (-3.0, -2.0, -1.0, -0.5, -1e-3, -30.0)),
            *((e, "negative") for e in (-3.0, -2.0, -1.0, -30.0)),
            *((e, "from zero") for e in (1e-3, 0.5, 0.999, 1.001, 1.5, 2.5, 30.5, 1e30)),
        )
    ),
    Hostile("Reciprocal", lambda x: 1 / x, domain="positive"),
    Hostile("Reciprocal", lambda x: 1 / x, domain="negative"),
    Hostile("Relu", lambda x: np.maximum(x, 0)),
    Hostile("Abs", abs),
    Hostile("HardSwish", lambda x: x * np.clip((x + 3) / 6, 0, 1), kinks=(-3.0, -1.5, 3.0)),
    Hostile("Piecewise", _piecewise(*_TABLE.values()), _TABLE, kinks=_TABLE["knots"]),
    Hostile("Exp", np.exp),
    Hostile("Log", np.log, domain="positive", kinks=(1.0,)),
    Hostile("Sqrt", np.sqrt, domain="from zero"),
    Hostile("Softplus", _softplus),
    Hostile("Softplus", lambda x: np.where(x > 6, x, _softplus(x)), {"threshold": 6.0}, kinks=(6.0,)),
    Hostile("Sigmoid", _sigmoid),
    Hostile("Tanh", np.tanh),
    Hostile("Arctan", np.arctan),
    Hostile("Erf", _by_mpmath(mpmath.erf)),
    Hostile("Gelu", _by_mpmath(_gelu), {"approximate": "none"}),
    Hostile("Gelu", _gelu_tanh, {"approximate": "tanh"}),
    Hostile("Silu", lambda x: x * _sigmoid(x)),
    Hostile("Sin", _by_mpmath(mpmath.sin)),
    Hostile("Cos", _by_mpmath(mpmath.cos)),
    Hostile("Sign", np.sign),
    Hostile("IsPositive", lambda x: (x > 0).astype(LONG)),
    Hostile("IsNonNegative", lambda x: (x >= 0).astype(LONG)),
    Hostile("IsZero", lambda x: (x == 0).astype(LONG)),
    Hostile("Floor", np.floor),
    Hostile("Ceil", np.ceil),
    Hostile("Round", np.round),
)
"""Limits, knots and minima are `kinks`, about which intervals lie closely."""


def numbers(case: Hostile, dtype: Any, random: np.random.Generator) -> np.ndarray:
    """Ends of intervals: zero, subnormal, tiny, usual, huge, and the neighbours of kinks."""
    limits = np.finfo(dtype)
    sizes = [limits.smallest_subnormal, limits.tiny, 3 * limits.tiny, 1e-30, 1e-20, 1e-10, 1e-5, 0.01, 0.3, 0.5, 1, 1.5]
    sizes += [2.5, 3, 5, 9, 20, 40, 88, 104, 300, 1e3, 1e4, 1e6, 1e10, 1e20, 1e30, limits.max]
    kinks = np.array([kink for kink in case.kinks if np.isfinite(kink)], dtype)
    close = [kinks, np.nextafter(kinks, dtype(-np.inf)), np.nextafter(kinks, dtype(np.inf))]
    usual = random.normal(size=24) * random.choice([0.1, 1.0, 10.0], size=24)
    made = np.concatenate([np.array(sizes, dtype), -np.array(sizes, dtype), *close, [0.0], usual.astype(dtype)])
    return made.astype(dtype)


def intervals(case: Hostile, seed: int, count: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Intervals ``[1, count]`` between such numbers where the function is defined; many are points or as good as."""
    random = np.random.default_rng(seed)
    ends = random.choice(numbers(case, dtype, random), (2, count))
    if case.domain != "real":
        ends = np.maximum(abs(ends), 0 if case.domain == "from zero" else np.finfo(dtype).tiny)
        ends = -ends if case.domain == "negative" else ends
    lower, upper = ends.min(axis=0), ends.max(axis=0)
    kind = random.integers(0, 6, count)
    lower = np.where(kind == 0, upper, lower)
    beside = np.where(kind == 1, np.nextafter(upper, dtype(-np.inf)), lower)
    wanted = {"positive": beside > 0, "from zero": beside >= 0}.get(case.domain, np.ones(count, bool))
    lower = np.where(wanted & np.isfinite(beside), beside, lower)
    return lower[None].astype(dtype), upper[None].astype(dtype)


@np.errstate(over="ignore")
def points(case: Hostile, lower: np.ndarray, upper: np.ndarray, count: int) -> np.ndarray:
    """Samples ``[samples, n]`` of intervals ``[1, n]``: evenly and geometrically spaced, both ends, and all kinks."""
    low, high = lower.astype(LONG), upper.astype(LONG)
    share = np.linspace(LONG(0), LONG(1), count)[:, None]
    width = high - low
    geometric = np.concatenate([width * 2.0 ** (-3 * LONG(k)) for k in range(1, count // 2)])
    special = [np.full_like(low, x) for kink in (*case.kinks, 0.0) for x in (kink, np.nextafter(kink, 1))]
    close = [s * np.full_like(low, 10.0**e) for s in (-1, 1) for e in (-30, -10, -3, -1, 0, 0.5, 1, 1.5)]
    made = np.concatenate([low + share * width, low + geometric, high - geometric, *special, *close])
    return np.sort(np.clip(made, low, high), axis=0)
