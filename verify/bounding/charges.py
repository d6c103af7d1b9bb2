"""What rounding may take from backward bounds: per unit of a coefficient's size, for every node.

Carrying coefficients ``a`` through ``y = M x + b`` computes ``a M`` and ``<a, b>`` with an error. What it can change
the bound by, where no input is larger than its reach ``|x| <= R``, is at most

    <|a|, g(fan out) |M| R + g(size) |b|>,         g(n): the allowance for a sum of n terms (`rounding`),

whatever cancels in the sums. The vector on the right is the node's charge. It depends on the boxes alone, so that it
is worked out once for all rows; a pass multiplies the size of its coefficients by it.

Errors that are relative to each single coefficient (one product, a relaxation of one variable) need no charge of their
own: the next charged node pays for them (`rounding.FEW`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..ops import rule
from ..ops.arrays import as_like, product, quiet, surely_finite
from ..rounding import FEW, MANY, element_type, rounding, smallest, together
from .interval import node_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Graph, Node
    from ..kernels.relaxation import Step
    from ..ops.rule import Interval, LinearRule

WIDE = 512
"""Entries up to which the norms of coefficients and of charges bound their product: on few entries that is little
more."""

EVEN = 500.0
"""Entries of an even vector are at most so many times as large as others."""

ACCURATE = 4.0
"""``a l + a (u - l)`` is off by few roundings of ``a u`` where the terms are at most so many times as large."""


@dataclass(frozen=True, eq=False)
class Charge:
    """A vector that coefficients' sizes are multiplied by, and a constant for what underflows.

    vector     ``[B or 1, n]``, finite.
    norm       its Euclidean norm ``[B or 1]``.
    even       whether no entry is much larger than the others, so that norms are a good bound of products.
    infinite   1 where the charge is not finite, ``[B or 1, n]``: a coefficient other than zero there makes the charge
               infinite (and the bound minus infinity); None where it is finite everywhere.
    constant   ``[B or 1]``: for any coefficients.
    """

    vector: Array
    norm: Array
    even: bool
    infinite: Array | None
    constant: Array

    @classmethod
    @quiet
    def make(cls, vector: Array, constant: Array) -> Charge:
        """The charge of a vector that may not be finite."""
        xp = array_namespace(vector)
        infinite = None
        if not (isinstance(vector, np.ndarray) and np.isfinite(vector).all()):
            finite = xp.isfinite(vector)
            infinite = xp.astype(~finite, vector.dtype)
            vector = xp.where(finite, vector, 0.0)
        # (The norm of a vector with a long range is at least a share of its largest entry, whatever underflows.)
        largest = xp.max(vector, axis=1)
        unit = xp.where(largest > 0, largest, 1.0)
        norm = 1.01 * unit * xp.sqrt(xp.sum((vector / unit[:, None]) ** 2, axis=1))
        even = isinstance(vector, np.ndarray) and bool((largest <= EVEN * vector.min(axis=1)).all())
        # Squares of coefficients that underflow are off by less than the smallest normal number each.
        if even:
            constant = constant + norm * (vector.shape[1] * smallest(vector)) ** 0.5
        return cls(vector, norm, even, infinite, constant)

    def __add__(self, other: Charge) -> Charge:
        """The charge of coefficients that are charged for both."""
        infinite = self.infinite if other.infinite is None else other.infinite
        if self.infinite is not None and other.infinite is not None:
            infinite = array_namespace(self.infinite).maximum(self.infinite, other.infinite)
        vector, constant = self.vector + other.vector, self.constant + other.constant
        return Charge(vector, self.norm + other.norm, self.even and other.even, infinite, constant)

    @quiet
    def of(self, a: Array, index: Array | None = None) -> Array:
        """The charges ``[B, S]`` of coefficients ``[B, S, ...]``; `index` ``[B]`` says which box each is about."""
        a = a.reshape(*a.shape[:2], -1)
        norm, constant = self.norm, self.constant
        if index is not None and norm.shape[0] > 1:
            norm = norm[index]
        if index is not None and constant.shape[0] > 1:
            constant = constant[index]
        if self.even and a.shape[2] <= WIDE:
            # By Cauchy and Schwarz: one pass over the coefficients in place of three.
            total = np.sqrt(np.einsum("bsn,bsn->bs", a, a)) * norm[:, None]
        else:
            total = _sums(abs(a), self.vector, index)
        total = total + constant[:, None]
        if self.infinite is None:
            return total
        return array_namespace(a).where(_sums(abs(a), self.infinite, index) > 0, total + float("inf"), total)

    def of_rows(self, a: Array) -> Array:
        """The charges ``[R]`` of one row a box: coefficients ``[R, ...]``."""
        return self.of(a.reshape(a.shape[0], 1, -1))[:, 0]

    def box(self, box: int) -> Charge:
        """The charge on one box of the batch (views)."""
        here = slice(box, box + 1)

        def cut(x: Array) -> Array:
            return x if x.shape[0] == 1 else x[here]

        infinite = None if self.infinite is None else cut(self.infinite)
        return Charge(cut(self.vector), cut(self.norm), self.even, infinite, cut(self.constant))


def _sums(sizes: Array, vector: Array, index: Array | None) -> Array:
    """``<sizes, vector>`` over the last axis, ``[B, S]``."""
    vector = as_like(vector, sizes)
    if vector.shape[0] == 1:
        return sizes @ vector[0]
    if index is not None:
        vector = vector.take(index, axis=0) if isinstance(vector, np.ndarray) else vector[index]
    if isinstance(sizes, np.ndarray):
        return np.einsum("bsn,bn->bs", sizes, vector)
    return (sizes @ vector[:, :, None])[:, :, 0]


class Charges:
    """The charges of a graph's nodes on a batch of boxes, worked out when they are first asked for.

    `intervals` are bounds ``[B or 1, *shape]`` of nodes' values by index; those of nodes that are missing follow from
    those of their inputs. `steps` are the relaxations of elementwise nodes where they are fixed. With `joint`, charges
    hold on all boxes at once (``[1, n]``). `like` has the library, dtype and device.
    """

    def __init__(
        self,
        graph: Graph,
        intervals: Mapping[int, Interval] | Sequence[Interval],
        like: Array,
        *,
        steps: Mapping[int, Step] | None = None,
        joint: bool = False,
    ) -> None:
        self._graph = graph
        self._intervals = intervals
        self._like = like
        self._steps = steps if steps is not None else {}
        self._joint = joint
        self._merges = [max((len(graph.readers[k]) - 1 for k in node.inputs), default=0) for node in graph.nodes]
        self._at: dict[int, Charge | None] = {}
        self._leaving: dict[int, tuple[Charge, ...] | None] = {}
        self._reach: dict[int, tuple[Interval | None, Array]] = {}

    def at(self, position: int, *, start: bool = False) -> Charge | None:
        """The charge of coefficients that arrive at a node; None where nothing is charged there.

        Terms of a sum that nothing else reads get the sum's coefficients, so that all are charged at the sum; `start`:
        the coefficients did not come from there.
        """
        return None if not start and self._deferred(position) else self._full(position)

    def _deferred(self, position: int) -> bool:
        """Whether a node's charge is part of that of its only reader, which hands its coefficients on as they are."""
        found = self._graph.readers[position]
        nodes = self._graph.nodes
        if len(found) != 1 or nodes[found[0]].op not in ("Add", "Reshape") or nodes[position].op == "Input":
            return False
        return rule(nodes[position].op).linear is not None

    def _full(self, position: int) -> Charge | None:
        """A node's own charge and those of its inputs that are deferred to it."""
        if position not in self._at:
            total = self._made(position)
            for source in self._graph.nodes[position].inputs:
                more = self._full(source) if self._deferred(source) else None
                if more is not None:
                    total = more if total is None else total + more
            self._at[position] = total
        return self._at[position]

    def leaving(self, position: int) -> tuple[Charge, ...] | None:
        """The charges of coefficients that a nonlinear node sends to its inputs, one each; None where it is the only
        one that sends any there."""
        if position not in self._leaving:
            count = self._merges[position]
            node = self._graph.nodes[position]
            made = None
            if count:
                reaches = [self._whole(self.reach(source)) for source in node.inputs]
                made = tuple(Charge.make(_shared(count, reach), zero_of(reach)) for reach in reaches)
            self._leaving[position] = made
        return self._leaving[position]

    def reach(self, position: int) -> Array:
        """The largest magnitudes ``[B or 1, size]`` of a node's value."""
        known = self._reach.get(position)
        interval = self._known(position)
        # Bounds may have become better since.
        if known is None or known[0] is not interval:
            low, high = (end.reshape(end.shape[0], -1) for end in self._interval(position))
            known = self._reach[position] = interval, detached(array_namespace(low).maximum(abs(low), abs(high)))
        return known[1]

    def joint_reach(self, position: int) -> Array:
        """The largest magnitudes of a node's value on all boxes, ``[size]``."""
        return array_namespace(self._like).max(self.reach(position), axis=0)

    def box(self, box: int) -> BoxCharges:
        """The charges on one box of the batch."""
        return BoxCharges(self, box)

    def _interval(self, position: int) -> Interval:
        known = self._known(position)
        if known is not None:
            return known
        node = self._graph.nodes[position]
        return node_interval(node, rule(node.op), [self._interval(source) for source in node.inputs])

    def _known(self, position: int) -> Interval | None:
        return self._intervals.get(position) if isinstance(self._intervals, Mapping) else self._intervals[position]

    def _whole(self, vector: Array) -> Array:
        """The vector ``[B or 1, n]`` as it is, or the largest of all boxes' ``[1, n]``."""
        if not self._joint or vector.shape[0] == 1:
            return vector
        return array_namespace(vector).max(vector, axis=0, keepdims=True)

    @quiet
    def _made(self, position: int) -> Charge | None:
        node = self._graph.nodes[position]
        if node.op == "Input":
            return None
        operator = rule(node.op)
        reaches = [self._whole(self.reach(source)) for source in node.inputs]
        if operator.linear is not None:
            own = self._whole(self.reach(position))
            return linear_charge(node, operator.linear, reaches, own, self._merges[position], self._like)
        step = self._steps.get(position)
        if step is not None:
            affine = all(rule(self._graph.nodes[source].op).linear is not None for source in node.inputs)
            return lines_charge(node, step, reaches, affine)
        if operator.relax is not None and operator.backward is None:
            return None
        own = self._whole(self.reach(position))
        if operator.terms is not None:
            shaped = [x.reshape(-1, *shape) for x, shape in zip(reaches, node.input_shapes, strict=True)]
            own = own + operator.terms(node, shaped).reshape(-1, node.size)
        widest = max([node.size, *(reach.shape[1] for reach in reaches)])
        return Charge.make(rounding(own, widest) * own, _underflow(own, widest, [own, *reaches]))


def underflow(extent: Array) -> Array:
    """What underflow may take at the input ``[B]``: of coefficients that multiply values as large as ``extent [B, n]``,
    and of these products."""
    xp = array_namespace(extent)
    return FEW * smallest(extent) * (extent.shape[1] + xp.sum(extent, axis=1))


class BoxCharges:
    """The charges of a graph's nodes on one box of a batch."""

    def __init__(self, charges: Charges, box: int) -> None:
        self._charges = charges
        self._box = box

    def at(self, position: int, *, start: bool = False) -> Charge | None:
        """`Charges.at`, one box."""
        charge = self._charges.at(position, start=start)
        return None if charge is None else charge.box(self._box)

    def leaving(self, position: int) -> tuple[Charge, ...] | None:
        """`Charges.leaving`, one box."""
        charges = self._charges.leaving(position)
        return None if charges is None else tuple(charge.box(self._box) for charge in charges)


def zero_of(reach: Array) -> Array:
    """Zeros ``[B or 1]``."""
    return array_namespace(reach).zeros_like(reach[:, 0])


def _shared(count: int, reach: Array) -> Array:
    """What adding up `count` more coefficients may be off by, where the value is as large as its reach."""
    return element_type(reach.dtype).unit * (FEW + count) * reach


def _underflow(like: Array, terms: int, reaches: Sequence[Array]) -> Array:
    """What products below the smallest normal number may have lost ``[B or 1]``: so many terms for every coefficient,
    which multiplies a value as large as its reach.

    Where a value is unbounded, so is what reads it, and charged: no coefficient underflows on the way there alone.
    """
    xp = array_namespace(like)
    total: Array = 1.0
    for reach in reaches:
        total = total + xp.sum(xp.where(xp.isfinite(reach), reach, 0.0), axis=1)
    return terms * smallest(like) * total


@quiet
def linear_charge(
    node: Node, linear: LinearRule, reaches: Sequence[Array], own: Array, added: int, like: Array
) -> Charge | None:
    """The charge of a linear node whose inputs reach as far as ``[B or 1, size_k]`` and whose value as far as `own`;
    `added` is how many coefficients are added to those that it sends to an input. None where it computes nothing."""
    vector: Array | None = None
    fan_out = linear.sums(node)[1]
    if reaches and (fan_out > 1 or added or "scale" in node.params):
        weighted = "weight" in node.params or "matrix" in node.params
        many = weighted and linear.sums(node)[0] >= MANY and not node.irregular and isinstance(like, np.ndarray)
        size = _root(node, linear, reaches) if many else _magnitude(node, linear, reaches)
        vector = rounding(reaches[0], fan_out + added) * size
    bias = linear.bias(node)
    if bias is not None:
        shift = rounding(like, node.size) * abs(as_like(bias, like)).reshape(1, -1)
        vector = shift if vector is None else vector + shift
    error = None
    if node.has_errors:
        shaped = [x.reshape(x.shape[0], *shape) for x, shape in zip(reaches, node.input_shapes, strict=True)]
        error = linear.parameter_error(node, shaped)
    if error is not None:
        error = error.reshape(error.shape[0], -1)
        vector = error if vector is None else vector + error
    if vector is None:
        return None
    if reaches and not node.params.keys() & {"weight", "matrix", "scale"}:
        # Nothing is multiplied, and sums do not underflow. (Masks add numbers as large as there are.)
        return Charge.make(vector, zero_of(vector))
    # (Its own value: a relaxation that reads it may have sent coefficients that underflowed.)
    return Charge.make(vector, _underflow(like, fan_out + added + 1, [*reaches, own]))


def _magnitude(node: Node, linear: LinearRule, reaches: Sequence[Array]) -> Array:
    """``|M| R``, ``[B or 1, size]``, with ``0 * inf = 0``."""
    shaped = [x.reshape(x.shape[0], *shape) for x, shape in zip(reaches, node.input_shapes, strict=True)]
    if surely_finite(*shaped):
        total = linear.magnitude(node, shaped)
        return total.reshape(total.shape[0], -1)
    xp = array_namespace(reaches[0])
    bounded = [xp.isfinite(x) for x in shaped]
    total = linear.magnitude(node, [xp.where(mask, x, 0.0) for mask, x in zip(bounded, shaped, strict=True)])
    unbounded = linear.magnitude(node, [xp.astype(~mask, total.dtype) for mask in bounded])
    return xp.where(unbounded > 0, xp.inf, total).reshape(total.shape[0], -1)


def _root(node: Node, linear: LinearRule, reaches: Sequence[np.ndarray]) -> np.ndarray:
    """What the errors of many independent sums add up to ``[B or 1, size]`` (`rounding.together`), in units of their
    allowance; infinite or NaN where a reach is not finite."""
    squared, largest = node.squared
    (reach,) = reaches
    most = reach.max(axis=1, keepdims=True)
    unit = np.where(most > 0, most, 1)
    total = linear.apply_linear(squared, [((reach / unit) ** 2).reshape(-1, *node.input_shapes[0])])
    return together(total.reshape(total.shape[0], -1)) * (largest * unit)


@quiet
def lines_charge(node: Node, step: Step, reaches: Sequence[Array], affine: bool) -> Charge | None:
    """The charge of an elementwise relaxation, `affine` saying whether all its inputs are values of linear nodes, which
    are charged for coefficients that are off by little of themselves."""
    intercepts = step.lower_intercept, step.upper_intercept
    if affine and isinstance(step.spread[0], np.ndarray) and pays_itself(step.lower_slopes, step.spread, intercepts):
        return None
    vector = lines_vector(step.lower_slopes, step.spread, intercepts, reaches, node.size)
    return Charge.make(vector, _underflow(vector, 4, reaches))


Intercepts = tuple["Array | None", "Array | None"]


def pays_itself(slopes: Sequence[Array], spread: Sequence[Array], intercepts: Intercepts) -> bool:
    """Whether each coefficient that lines carry is off by little of itself, and the terms of each constant have one
    sign, so that their sum is their magnitude (lines of a ReLU). (numpy arrays of any layout.)"""
    lower, upper = intercepts
    if not ((lower is None or (lower <= 0).all()) and (upper is None or (upper >= 0).all())):
        return False
    pairs = zip(slopes, spread, strict=True)
    return all(bool((abs(slope) + abs(width) <= ACCURATE * abs(slope + width)).all()) for slope, width in pairs)


def lines_vector(
    slopes: Sequence[Array], spread: Sequence[Array], intercepts: Intercepts, reaches: Sequence[Array], size: int
) -> Array:
    """What rounding may take for each coefficient of a node of so many entries that is carried through lines. (Arrays
    of any layout.)"""
    unit = element_type(reaches[0].dtype).unit
    vector: Array = 0.0
    for slope, width, reach in zip(slopes, spread, reaches, strict=True):
        vector = vector + 4.0 * unit * product(detached(abs(slope) + abs(width)), reach)
    for intercept in intercepts:
        if intercept is not None:
            vector = vector + rounding(reaches[0], size) * abs(detached(intercept))
    return vector


def detached(x: Array) -> Array:
    """The values without their history: charges are no part of a gradient."""
    return x if isinstance(x, np.ndarray) else x.detach()
