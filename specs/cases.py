"""The clauses of one large disjunction of boxes and output bounds, made from arrays.

The result is that of the general expansion; it comes some ten times faster on thousands of disjuncts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .clauses import Leaf, Row

if TYPE_CHECKING:
    from .boxes import Boxes
    from .bulk import Cases
    from .expand import BoundsByKey
    from .property import Box

#: Rows, offsets and strictness.
RowList = tuple[list[Row], list[float], list[bool]]


def leaves_of_cases(
    cases: Cases,
    lower: np.ndarray,
    upper: np.ndarray,
    strict_keys: set[int],
    others: BoundsByKey,
    tail: RowList,
    boxes: Boxes,
) -> list[Leaf]:
    """One leaf for each case whose bounds do not contradict.

    Args:
        cases: over slots.
        lower, upper: float64 ``[n + m]``, the bounds that hold in every case.
        strict_keys: variables, none of them in `cases`, with a strict bound in `others`.
        others: the bounds on forms and the strict bounds that hold in every case.
        tail: the rows of every clause that follow those of single outputs.
        boxes: over the n free inputs.
    """
    columns, position = np.unique(cases.bounds.variable, return_inverse=True)
    count = cases.count
    low = np.repeat(lower[columns][None], count, axis=0)
    high = np.repeat(upper[columns][None], count, axis=0)
    is_upper = cases.bounds.upper
    np.minimum.at(high, (cases.case[is_upper], position[is_upper]), cases.bounds.value[is_upper])
    np.maximum.at(low, (cases.case[~is_upper], position[~is_upper]), cases.bounds.value[~is_upper])
    unchanged = ((low == lower[columns]) & (high == upper[columns])).all(axis=1)
    if unchanged.any():
        # a case that the base implies makes the whole disjunction true
        kept = np.flatnonzero(unchanged)[:1]
    else:
        kept = np.flatnonzero((low <= high).all(axis=1))
    input_count = len(boxes.base.lower)
    inputs = columns < input_count
    heads = _Heads(columns[~inputs], input_count, lower, upper, strict_keys, others, tail)
    box_columns, box_low, box_high = columns[inputs], low[:, inputs], high[:, inputs]
    same_box = ((box_low == lower[box_columns]) & (box_high == upper[box_columns])).all(axis=1)
    leaves = []
    for k in kept.tolist():
        used = slice(0, 0) if same_box[k] else slice(None)
        box = boxes.box(box_columns[used], box_low[k, used], box_high[k, used], others)
        if box is not None:
            leaves.append(heads.leaf(box, low[k, ~inputs], high[k, ~inputs]))
    return leaves


class _Heads:
    """The rows of single outputs, made once for each pattern of sides that are bounded."""

    def __init__(
        self,
        case_outputs: np.ndarray,
        input_count: int,
        lower: np.ndarray,
        upper: np.ndarray,
        strict_keys: set[int],
        others: BoundsByKey,
        tail: RowList,
    ) -> None:
        bounded = input_count + np.flatnonzero(np.isfinite(lower[input_count:]) | np.isfinite(upper[input_count:]))
        self.outputs = np.union1d(bounded, case_outputs)
        self.place = np.searchsorted(self.outputs, case_outputs)
        self.sides = np.stack([upper[self.outputs], -lower[self.outputs]], axis=1)
        self.strict = [
            side
            for key in self.outputs.tolist()
            for side in ((others[key].upper_strict, others[key].lower_strict) if key in strict_keys else (False, False))
        ]
        self.tail_rows, tail_offset, self.tail_strict = tail
        self.tail_offset = np.array(tail_offset, dtype=np.float64)
        self.patterns: dict[bytes, tuple[tuple[Row, ...], tuple[bool, ...]]] = {}

    def leaf(self, box: Box, low: np.ndarray, high: np.ndarray) -> Leaf:
        """The leaf whose case outputs lie between `low` and `high`."""
        sides = self.sides.copy()
        sides[self.place, 0] = high
        sides[self.place, 1] = -low
        flat = sides.reshape(-1)
        finite = np.isfinite(flat)
        key = finite.tobytes()
        if key not in self.patterns:
            chosen = np.flatnonzero(finite).tolist()
            heads = tuple((int(self.outputs[side // 2]), -1.0 if side % 2 else 1.0) for side in chosen)
            sides_strict = tuple(self.strict[side] for side in chosen)
            self.patterns[key] = ((*heads, *self.tail_rows), (*sides_strict, *self.tail_strict))
        rows, strict = self.patterns[key]
        return Leaf(box, rows, np.concatenate([flat[finite], self.tail_offset]), strict)
