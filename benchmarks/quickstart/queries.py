"""The quickstart queries: what they ask, how they are written, and how their answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from answers import MARGIN, largest_by_milp, largest_on_grid, sample_largest
from nets import Network, digits

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 60
CELLS = {2: 300, 3: 60}
"""Cells a side of the grid of `largest_on_grid`, by number of inputs."""


@dataclass(frozen=True, eq=False)
class Atom:
    """One unsafe condition: output `left` is ``>=`` or ``<=`` than another output (an int) or a number (a float).

    As a row it reads ``row . y >= threshold``.
    """

    left: int
    comparison: str
    right: int | float
    outputs: int = 1

    @property
    def row(self) -> np.ndarray:
        unit = np.eye(self.outputs)
        row = unit[self.left] - (unit[self.right] if isinstance(self.right, int) else 0)
        return row if self.comparison == ">=" else -row

    @property
    def threshold(self) -> float:
        limit = 0.0 if isinstance(self.right, int) else self.right
        return limit if self.comparison == ">=" else -limit

    def text(self, output: str) -> str:
        """The condition in VNN-LIB; `output` is how the version writes an output, for example ``Y_{}``."""
        right = output.format(self.right) if isinstance(self.right, int) else self.right
        return f"({self.comparison} {output.format(self.left)} {right})"


@dataclass(frozen=True, eq=False)
class Case:
    """A box and the conditions any one of which makes a point of it unsafe."""

    lower: np.ndarray
    upper: np.ndarray
    atoms: tuple[Atom, ...]


@dataclass(frozen=True, eq=False)
class Query:
    """A query about one network: any unsafe point of any case violates it.

    `comment` says what it means; `answer` is the intended verdict, which `confirm` establishes.
    """

    name: str
    network: str
    comment: str
    answer: str
    cases: tuple[Case, ...]
    version: str = "1.0"


def confirm(query: Query, network: Network, rng: np.random.Generator) -> str:
    """How the query's answer is known, in words. Raises RuntimeError where the intended answer is not established."""
    pairs = [(case, atom) for case in query.cases for atom in case.atoms]
    if query.answer == "sat":
        for case, atom in pairs:
            if sample_largest(network, atom.row, case.lower, case.upper, rng)[0] >= atom.threshold + MARGIN:
                return "a sampled point violates it"
        raise RuntimeError(f"no violation of {query.name} was found")
    margins = []
    for case, atom in pairs:
        largest, how = _largest(network, atom, case)
        margins.append(atom.threshold - largest)
    if min(margins) < MARGIN:
        raise RuntimeError(f"{query.name} is not established: margin {min(margins):.4g}")
    return f"{how}, margin {min(margins):.3g}"


def _largest(network: Network, atom: Atom, case: Case) -> tuple[float, str]:
    if network.name == "monotone" and atom.row[0] > 0:
        return float((network(case.upper[None]) @ atom.row)[0]), "value at the upper corner of a monotone network"
    if len(case.lower) in CELLS:
        cells = CELLS[len(case.lower)]
        return largest_on_grid(network, atom.row, case.lower, case.upper, cells), f"intervals on {cells} cells a side"
    return largest_by_milp(network, atom.row, case.lower, case.upper), "mixed-integer programming"


def at_least(threshold: float) -> Atom:
    """``Y_0 >= threshold``."""
    return Atom(0, ">=", threshold)


def at_most(threshold: float) -> Atom:
    """``Y_0 <= threshold``."""
    return Atom(0, "<=", threshold)


def other_classes(label: int, classes: int) -> tuple[Atom, ...]:
    """Some other class's score reaches the label's."""
    return tuple(Atom(other, ">=", label, classes) for other in range(classes) if other != label)


def box(lower: list[float], upper: list[float], *atoms: Atom) -> Case:
    """A case over the box between two corners."""
    return Case(np.array(lower), np.array(upper), atoms)


def robustness(network: str, sample: int, eps: float, answer: str) -> Query:
    """Whether a digit keeps its class when every pixel moves by at most `eps`, inside [0, 1]."""
    images, labels = digits()
    label = int(labels[sample])
    lower = np.clip(np.round(images[sample] - eps, 4), 0, 1).astype(np.float64)
    upper = np.clip(np.round(images[sample] + eps, 4), 0, 1).astype(np.float64)
    return Query(
        f"{network}_{sample}_{eps}",
        network,
        f"scikit-learn's digit {sample} stays a {label} within {eps} of every pixel",
        answer,
        (Case(lower.round(4), upper.round(4), other_classes(label, 10)),),
    )


def all_queries() -> list[Query]:
    """Every query of the suite."""
    first, second = other_classes(0, 2), other_classes(1, 2)
    return [
        robustness("digits_dense", 3, 0.03, "unsat"),
        robustness("digits_dense", 17, 0.06, "unsat"),
        robustness("digits_dense", 101, 0.06, "sat"),
        robustness("digits_conv", 3, 0.06, "unsat"),
        robustness("digits_conv", 101, 0.06, "unsat"),
        robustness("digits_conv", 17, 0.1, "sat"),
        robustness("digits_residual", 3, 0.06, "unsat"),
        robustness("digits_residual", 17, 0.03, "unsat"),
        robustness("digits_residual", 101, 0.06, "sat"),
        Query("controller_limit", "controller", "the torque never exceeds 2.3 in size", "unsat",
              (box([-1, -1], [1, 1], at_least(2.3), at_most(-2.3)),)),
        Query("controller_brakes", "controller", "far right and moving right, it brakes", "unsat",
              (box([0.4, 0.2], [1, 1], at_least(-1.5)),)),
        Query("controller_gentle", "controller", "the torque stays below 1.5", "sat",
              (box([-1, -1], [1, 1], at_least(1.5)),)),
        Query("moons_upper", "moons", "points on the upper moon are class 0", "unsat",
              (box([-0.1, 0.9], [0.2, 1.1], *first),)),
        Query("moons_lower", "moons", "points on the lower moon are class 1", "unsat",
              (box([0.8, -0.6], [1.2, -0.3], *second),), version="2.0"),
        Query("moons_between", "moons", "points between the moons are class 0", "sat",
              (box([0.2, -0.2], [0.8, 0.7], *first),)),
        Query("monotone_two_boxes", "monotone", "wear stays below a limit in two modes of operation", "unsat",
              (box([0, 0, 0], [0.5, 0.5, 0.5], at_least(0.9)), box([0.5, 0, 0], [0.7, 0.3, 0.2], at_least(0.9)))),
        Query("monotone_high", "monotone", "wear stays below 1.5 everywhere", "sat",
              (box([0, 0, 0], [1, 1, 1], at_least(1.5)),)),
        Query("surface_range", "surface", "the surface stays within [-1.15, 1.15]", "unsat",
              (box([-2, -2], [2, 2], at_least(1.15), at_most(-1.15)),)),
        Query("surface_peak", "surface", "the surface stays below 0.95", "sat",
              (box([-2, -2], [2, 2], at_least(0.95)),), version="2.0"),
    ]  # fmt: skip


def text(query: Query, network: Network) -> str:
    """The query in its VNN-LIB version."""
    lines = [f"; {query.comment}", f"; network {query.network}"]
    body = _version_1 if query.version == "1.0" else _version_2
    return "\n".join([*lines, *body(query, network)]) + "\n"


def _version_1(query: Query, _: Network) -> Iterator[str]:
    outputs = query.cases[0].atoms[0].outputs
    inputs = len(query.cases[0].lower)
    yield from (f"(declare-const X_{i} Real)" for i in range(inputs))
    yield from (f"(declare-const Y_{i} Real)" for i in range(outputs))
    if len(query.cases) == 1:
        (case,) = query.cases
        for i, (low, high) in enumerate(zip(case.lower, case.upper, strict=True)):
            yield f"(assert (>= X_{i} {low}))"
            yield f"(assert (<= X_{i} {high}))"
        yield "(assert (or " + " ".join(f"(and {atom.text('Y_{}')})" for atom in case.atoms) + "))"
        return
    yield "(assert (or"
    for case in query.cases:
        for atom in case.atoms:
            bounds = " ".join(
                f"(>= X_{i} {low}) (<= X_{i} {high})"
                for i, (low, high) in enumerate(zip(case.lower, case.upper, strict=True))
            )
            yield f"  (and {bounds} {atom.text('Y_{}')})"
    yield "))"


def _version_2(query: Query, network: Network) -> Iterator[str]:
    (case,) = query.cases
    outputs = case.atoms[0].outputs
    yield "(vnnlib-version <2.0>)"
    yield "(declare-network N"
    yield f"  (declare-input X real [{', '.join(map(str, network.shape))}])"
    yield f"  (declare-output Y real [1, {outputs}])"
    yield ")"
    for i, (low, high) in enumerate(zip(case.lower, case.upper, strict=True)):
        yield f"(assert (and (>= X[0, {i}] {low}) (<= X[0, {i}] {high})))"
    atoms = [atom.text("Y[0, {}]") for atom in case.atoms]
    yield f"(assert (or {' '.join(atoms)}))" if len(atoms) > 1 else f"(assert {atoms[0]})"
