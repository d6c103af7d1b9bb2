"""Inputs of integer and boolean element types take whole numbers alone, within their type's range.

A query bounds them by real numbers: its boxes are cut to the whole numbers in them, and a box without any holds no
input at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..specs.property import Property
    from .loading.network import Network
    from .problem import Group, Problem

EXACT_IN_DOUBLE = 2.0**53
"""Up to here float64 tells every whole number from its neighbours."""

EXACT_IN_SINGLE = 2.0**24
"""Up to here float32 does."""


def input_types(property: Property, networks: Mapping[str, Network]) -> list[np.dtype]:
    """The element type of every input variable, in the order in which the query declares them."""
    types: list[np.dtype] = []
    for declared in property.networks:
        for info in networks[declared.name].inputs:
            types += [np.dtype(info.dtype)] * int(np.prod(info.shape, dtype=np.int64))
    return types


def with_whole_numbers(problem: Problem, networks: Mapping[str, Network]) -> Problem:
    """The problem with its boxes rounded inwards where inputs are integers or booleans, without the empty ones; maybe
    without any group.

    Raises `UnsupportedError` where a box reaches to whole numbers that float64 does not tell apart.
    """
    types = input_types(problem.property, networks)
    if all(dtype.kind == "f" for dtype in types):
        return problem
    size = problem.property.free_count
    whole, least, most = np.zeros(size, dtype=bool), np.full(size, -np.inf), np.full(size, np.inf)
    for dtype in {dtype for dtype in types if dtype.kind != "f"}:
        free = problem.property.input_map[[own == dtype for own in types]]
        first, last = _range(dtype)
        whole[free] = True
        least[free], most[free] = np.maximum(least[free], first), np.minimum(most[free], last)
    groups = [_rounded(group, whole, least, most) for group in problem.groups]
    kept = tuple(group for group in groups if (group.lower <= group.upper).all())
    for group in kept:
        far = whole & (np.maximum(abs(group.lower), abs(group.upper)) > EXACT_IN_DOUBLE)
        if far.any():
            raise UnsupportedError(
                f"{problem.property.source or 'the query'}: the box of integer input {int(np.flatnonzero(far)[0])} "
                "reaches beyond 2^53, where whole numbers are not told apart; give it a smaller one"
            )
    return replace(problem, groups=kept, whole=whole)


def exceeds_single(problem: Problem) -> bool:
    """Whether an integer input's box reaches to whole numbers that float32 does not tell apart."""
    return any(
        bool((np.maximum(abs(group.lower), abs(group.upper))[problem.whole] > EXACT_IN_SINGLE).any())
        for group in problem.groups
    )


def _range(dtype: np.dtype) -> tuple[float, float]:
    """The least and the largest number of an integer or boolean type."""
    if dtype.kind == "b":
        return 0.0, 1.0
    limits = np.iinfo(dtype)
    return float(limits.min), float(limits.max)


def _rounded(group: Group, whole: np.ndarray, least: np.ndarray, most: np.ndarray) -> Group:
    """The group on the whole numbers of its box alone."""
    lower = np.maximum(np.where(whole, np.ceil(group.lower), group.lower), least)
    upper = np.minimum(np.where(whole, np.floor(group.upper), group.upper), most)
    return replace(group, lower=lower, upper=upper)
