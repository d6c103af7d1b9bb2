"""Queries of known truth, the ways they are decided, and what is wrong with an answer."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from boundsmith.specs.read import parse_property
from boundsmith.verify import Options, Verdict, load, verify
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.errors import BoundsmithError, CrossedBounds, LoadError, UndefinedOnRegion
from hostile import NUMBERS, SHAPES, hostile
from maxima import tiny

from tests.exact import run_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from boundsmith.verify.loading import Network

WAYS = tuple(
    itertools.product(("auto", "input-split", "activation-split", "milp"), ("float32", "float64"), (True, False))
)
"""Method, type of the bounds, and whether to attack."""

ENGINES = ("ibp", "forward", "crown-ibp", "crown", "alpha-crown")
"""Of bounds of outputs."""

ARRAYS = tuple(itertools.product((np.float32, np.float64), ("numpy", "torch")))

BOUNDS = ("bounds", "float32", False)
"""One pass of bounds, which every query gets."""


@dataclass(frozen=True, eq=False)
class Query:
    """``row . y >= threshold`` (VNN-LIB text), asked of a network on a box.

    violated   True where a point of the box is known to violate it over the reals; False where none does.
    lower, upper, values   the box, and what the outputs are at one of its points over the reals.
    """

    name: str
    content: bytes
    text: str
    row: tuple[float, ...]
    threshold: float
    violated: bool
    lower: np.ndarray
    upper: np.ndarray
    values: np.ndarray


@dataclass
class Figures:
    """Counts of verdicts by kind of query, and what was wrong."""

    verdicts: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    queries: int = 0
    runs: int = 0
    seconds: float = 0.0

    def add(self, other: Figures) -> None:
        """Count another part of the campaign, too."""
        self.verdicts += other.verdicts
        self.wrong += other.wrong
        self.queries += other.queries
        self.runs += other.runs
        self.seconds += other.seconds


def decimal(x: float) -> str:
    """A number as text, exactly."""
    return f"{Decimal(float(x)):f}"


def query_text(lower: np.ndarray, upper: np.ndarray, row: tuple[float, ...], threshold: float) -> str:
    """A query in VNN-LIB."""
    lines = [f"(declare-const X_{k} Real)" for k in range(lower.size)]
    lines += [f"(declare-const Y_{k} Real)" for k in range(len(row))]
    for k, (low, high) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        lines.append(f"(assert (>= X_{k} {decimal(low)}))(assert (<= X_{k} {decimal(high)}))")
    terms = [f"(* {decimal(c)} Y_{k})" for k, c in enumerate(row) if c]
    left = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
    return "\n".join([*lines, f"(assert (>= {left} {decimal(threshold)}))"])


def beside(value: Fraction, hair: float, *, above: bool) -> float:
    """A float64 number a relative `hair` beside a value, truly on that side."""
    end = math.inf if above else -math.inf
    moved = float(value) + (1 if above else -1) * hair * abs(float(value))
    while (Fraction(moved) <= value) if above else (Fraction(moved) >= value):
        moved = math.nextafter(moved, end)
    return moved


def hostile_queries(seeds: range) -> Iterator[Query]:
    """Queries that are violated at a point, by a hair: one of each kind a seed."""
    for seed in seeds:
        for number, (shape, numbers, curved) in enumerate(itertools.product(SHAPES, NUMBERS, (False, True))):
            rng = np.random.default_rng([seed, number, 1])
            # (onnxruntime has no convolution in float64.)
            dtype = np.float64 if shape != "convolution" and rng.random() < 0.2 else np.float32
            made = hostile(seed, shape, numbers, curved=curved, dtype=dtype)
            outputs = run_file(made.content, made.point[None]).reshape(-1)
            # (The side on which onnxruntime's rounding hides the violation at the point.)
            hidden = -1.0 if replayed(made.content, made.point[None])[0, 0] > outputs[0] else 1.0
            row = [(hidden, 0.0), (hidden, 0.0), (-hidden, 0.0), (float(rng.normal()), float(rng.normal()))][
                rng.integers(4)
            ]
            value = sum(Fraction(c) * y for c, y in zip(row, outputs, strict=True))
            if abs(value) < 1e-60 or abs(value) > 1e60:
                continue
            threshold = beside(value, 10 ** rng.uniform(-9, -6), above=False)
            wide = made.point.astype(float)
            radius = rng.choice([0.0, 0.0, 1e-6, 1e-3]) * (1.0 if rng.random() < 0.5 else abs(wide))
            box = wide - radius, wide + radius
            text = query_text(*box, row, threshold)
            kind = f"{shape} {numbers}{' smooth' if curved else ''}"
            yield Query(f"{kind} {seed}", made.content, text, row, threshold, True, *box, outputs)


def tiny_queries(seeds: range) -> Iterator[Query]:
    """Of each network two: violated by a hair at the best of many points, and true by a hair at the exact maximum."""
    for seed in seeds:
        net = tiny(seed)
        rng = np.random.default_rng([seed, 2])
        best = run_file(net.content, net.sampled(rng)[None]).reshape(-1)[0]
        most = net.maximum()
        if best > most:
            raise AssertionError(f"network {seed}: the exact maximum is smaller than a value")
        for violated, value in ((True, best), (False, most)):
            threshold = beside(value, 10 ** rng.uniform(-9, -3), above=not violated)
            text = query_text(net.lower, net.upper, (1.0,), threshold)
            name, values = f"tiny {'violated' if violated else 'safe'} {seed}", np.array([value], object)
            yield Query(name, net.content, text, (1.0,), threshold, violated, net.lower, net.upper, values)


def decide(queries: Iterator[Query], limit: float, ways: int) -> Figures:
    """Run queries, each in so many ways besides one pass of bounds, and count."""
    figures = Figures()
    started = time.monotonic()
    for number, query in enumerate(queries):
        kind = query.name.rsplit(" ", 1)[0]
        figures.queries += 1
        property = parse_property(query.text)
        try:
            network = load(query.content)
        except LoadError:
            figures.verdicts[kind, "unchecked"] += 1
            network = load(query.content, check=False)
        figures.wrong += [f"{query.name} {fault}" for fault in outside(query, network, number)]
        for way in [BOUNDS, *(WAYS[(number * 5 + k * 7) % len(WAYS)] for k in range(ways))]:
            method, dtype, attack = way
            options = Options(method=method, dtype=dtype, attack=attack, threads=1)
            figures.runs += 1
            try:
                result = verify(network, property, limit, options)
            except BoundsmithError as error:
                figures.verdicts[kind, "refused"] += 1
                if "ternal" in str(error):
                    figures.wrong.append(f"{query.name} {way}: {error}")
                continue
            figures.verdicts[kind, result.verdict.value] += 1
            fault = wrong(query, result)
            if fault:
                figures.wrong.append(f"{query.name} {way}: {fault}")
    figures.seconds = time.monotonic() - started
    return figures


def outside(query: Query, network: Network, number: int) -> list[str]:
    """What bounds of the outputs do not contain the known values; types and array libraries take turns."""
    faults = []
    for k, method in enumerate(ENGINES):
        dtype, library = ARRAYS[(number + k) % len(ARRAYS)]
        if network.inputs[0].dtype == np.float64 and dtype is np.float32:
            continue
        low, high = (_outwards(end, dtype, way) for end, way in ((query.lower, -np.inf), (query.upper, np.inf)))
        if library == "torch":
            import torch

            low, high = torch.from_numpy(low), torch.from_numpy(high)
        try:
            found = bounds_of(network, low[None], high[None], method)
        except UndefinedOnRegion:
            continue
        except CrossedBounds as error:
            faults.append(f"{method} {dtype.__name__} {library}: {error}")
            continue
        for k, value in enumerate(query.values):
            lower, upper = float(found.lower[0, k]), float(found.upper[0, k])
            if not (lower <= value <= upper):
                faults.append(
                    f"{method} {dtype.__name__} {library}: Y_{k} = {float(value):.17g} not in [{lower}, {upper}]"
                )
    return faults


def _outwards(end: np.ndarray, dtype: type, way: float) -> np.ndarray:
    """A box's end in another type, not less wide."""
    near = end.astype(dtype)
    moved = near > end if way < 0 else near < end
    return np.where(moved, np.nextafter(near, dtype(way)), near)


def wrong(query: Query, result) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if any("lower bound above" in text or "internal" in text for text in result.warnings):
        return f"warning: {result.warnings}"
    if result.verdict is Verdict.UNSAT:
        return "unsat, but violated" if query.violated else ""
    if result.verdict is not Verdict.SAT:
        return ""
    (_, point), (_, shown) = result.witness.inputs[0], result.witness.outputs[0]
    if not _met(query, replayed(query.content, point)) or not _met(query, shown):
        return "sat, but the witness does not replay"
    truly = _met(query, run_file(query.content, point).reshape(-1))
    said = result.witness.over_reals
    if said is not None and said is not truly:
        return f"sat, and said to {'hold' if said else 'fail'} over the reals, which it does not"
    return ""


def replayed(content: bytes, point: np.ndarray) -> np.ndarray:
    """The outputs on a session of onnxruntime of our own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": point})[0]


def _met(query: Query, outputs: np.ndarray) -> bool:
    values = [Fraction(y) for y in outputs.reshape(-1).tolist()]
    return sum(Fraction(c) * y for c, y in zip(query.row, values, strict=True)) >= Fraction(query.threshold)
