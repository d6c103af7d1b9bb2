"""Backward bounds of many rows about one box, with the arithmetic laid out for a CPU (numpy only).

The same mathematics as `crown.backward`, arranged for few boxes with many neurons:

- Coefficients are ``[entries, rows]``, rows last, and only entries that count are kept: below a ReLU those that are
  live on the box. A dense layer is one product with the rows and columns of its weight that are live; a convolution
  works block by block (`kernels/blocks.py`).
- Rows that start at neurons of a convolution stay on small windows (`kernels/patches.py`) while these are clearly
  smaller than the layer.
- What a relaxation leaves alone (active neurons) is not touched.

Everything else (`Take`, products, pooling ...) goes through the general step, which is handed over as `through`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..kernels import blocks, patches
from ..kernels.patches import Patches
from ..ops.conv import window_of
from ..rounding import rounding, unit_roundoff
from . import windows
from .backward import constants_rounding
from .charges import underflow
from .live import (
    ALL,
    Columns,
    Entries,
    Lines,
    is_image,
    is_plain_dense,
    is_plane_convolution,
    is_plane_enlarging,
    spatial,
)

if TYPE_CHECKING:
    from ..graph import Node
    from ..kernels.relaxation import Step
    from .charges import BoxCharges, Charge
    from .structure import Structure

Through = Callable[[int, np.ndarray], tuple[tuple[np.ndarray, ...], "np.ndarray | None"]]
"""Takes a position and coefficients ``[1, R, *shape]`` to what `backward.through` answers."""

StepOf = Callable[[int], "Step | None"]
"""Answers the elementwise relaxation of a node, None where there is none."""

_SETTLED_ROWS = 48
"""Choosing the live entries of a convolution pays once this many rows have gone through it."""

_WINDOW_SHARE = 2.0
"""Windows that cover more than one in this many pixels of a layer are spread over it."""


@dataclass(eq=False)
class _Run:
    """The rows under way: pieces waiting at nodes, constants, their magnitudes added up, what rounding may have taken
    otherwise ``[rows]``, and the node at which the rows start."""

    pending: dict[int, Columns | Patches]
    total: np.ndarray
    sizes: np.ndarray
    lost: np.ndarray
    start: int

    def add(self, part: np.ndarray) -> None:
        """Add constants."""
        self.total += part
        self.sizes += abs(part)


class BoxPass:
    """Backward passes about one box.

    Relaxations are read when a pass first meets their node and must not change afterwards; matrices of live entries
    are kept for later passes. Passes may run in several threads: what two of them make at the same time is the same.
    """

    def __init__(
        self,
        structure: Structure,
        box: tuple[np.ndarray, np.ndarray],
        step: StepOf,
        through: Through,
        charges: BoxCharges,
    ) -> None:
        """`box` is flat, ``[n]``; `step` answers a node's relaxation on it (arrays ``[1, size]``)."""
        self._structure = structure
        self._nodes = structure.nodes
        self._step = step
        self._through = through
        self._charges = charges
        self._charged: dict[int, Charge | None] = {}
        self._charge_tables: dict[tuple[int, bool], np.ndarray] = {}
        radius = 0.5 * (box[1] - box[0])
        self._slack = rounding(radius, len(radius))
        self._share = constants_rounding(structure.plan, radius)
        self._centre = 0.5 * (box[0] + box[1])
        # The allowance covers |a| |x| for every x of the box: |x| <= |centre| + radius.
        extent = abs(self._centre) + radius
        self._reach = radius + self._slack * extent
        self._tiny = underflow(extent[None])[0]
        if structure.image is not None:
            shape = self._nodes[structure.image].shape
            self._boxes = np.stack([self._centre, self._reach]).reshape(2, *shape[1:]).transpose(0, 2, 3, 1)
        self._lines: dict[int, Lines] = {}
        self._widest: dict[int, int] = {}
        self._tables: dict[int, np.ndarray] = {}
        self._matrices: dict[tuple[int, Entries, Entries], np.ndarray] = {}
        self._parts: dict[tuple[int, Entries, Entries], list[blocks.Part]] = {}
        self._seen: dict[tuple[int, Entries, Entries], int] = {}

    def numbers_a_row(self, target: int) -> int | None:
        """Coefficients that rows of a target's entries held at most on one node in the passes so far; None before."""
        return self._widest.get(target)

    def entry_bounds(self, target: int, entries: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """Lower bounds ``[K]`` of ``signs * entries`` of a node's value (signs +1 and -1)."""
        run = self._seed(target, entries, signs)
        result = self._walk(run, target)
        minimum = self._minimum_of_patches(result) if isinstance(result, Patches) else self._minimum(result)
        unit = unit_roundoff(minimum)
        lost = run.lost + self._share * run.sizes
        lost = 1.01 * lost + unit * (abs(minimum) + 2.0 * abs(run.total)) + self._tiny
        return minimum + (run.total - lost)

    # --- the walk ----------------------------------------------------------------------------------------------------

    def _seed(self, target: int, entries: np.ndarray, signs: np.ndarray) -> _Run:
        """Rows that pick entries of a node, taken one step back at once where that is a gather of weights."""
        node, count = self._nodes[target], len(entries)
        zeros = np.zeros(count, dtype=self._reach.dtype)
        run = _Run({}, zeros, zeros.copy(), zeros.copy(), target)
        if is_plain_dense(node) and "weight_error" not in node.params:
            weight, bias = node.params["weight"], node.params.get("bias")
            needed = self._needed(node.inputs[0])
            run.pending[node.inputs[0]] = Columns(needed, np.multiply(needed.pick(weight[entries].T), signs, order="C"))
            if bias is not None:
                run.add(bias[entries] * signs)
            if "bias_error" in node.params:
                run.lost += node.params["bias_error"][entries]
            return run
        shown = windows.seeds(self._structure, target, entries, signs)
        if shown is not None and (shown[0] == target or self._is_small(*shown)):
            run.pending[shown[0]] = shown[1]
            run.start = shown[0]
        else:
            values = np.zeros((node.size, count), dtype=zeros.dtype)
            values[entries, np.arange(count)] = signs
            run.pending[target] = Columns(ALL, values)
        return run

    def _walk(self, run: _Run, start: int) -> Columns | Patches:
        """Carry all pieces to the input; windows are on `Structure.image`."""
        plan = self._structure.plan
        result: Columns | Patches | None = None
        widest = 1
        for position in range(start, -1, -1):
            piece = run.pending.pop(position, None)
            if piece is None:
                continue
            widest = max(widest, piece.values.size // max(1, piece.values.shape[-1]))
            if position == plan.input:
                result = piece
            elif not isinstance(piece, Patches):
                self._carry_columns(run, position, self._nodes[position], piece)
            elif position == self._structure.image:
                result = piece
            else:
                self._carry_patches(run, position, self._nodes[position], piece)
        self._widest[start] = max(widest, self._widest.get(start, 1))
        if result is None:
            return Columns(ALL, np.zeros((len(self._centre), len(run.total)), dtype=self._centre.dtype))
        return result

    def _charge(self, run: _Run, position: int, piece: Columns | Patches) -> None:
        """Charge coefficients that arrive at a node for the rounding of its step."""
        if position == run.start:
            charge = self._charges.at(position, start=True)
        else:
            if position not in self._charged:
                self._charged[position] = self._charges.at(position)
            charge = self._charged[position]
        if charge is None:
            return
        sizes = np.abs(piece.values)
        if isinstance(piece, Columns):
            tables = [piece.entries.pick(table[0]) for table in (charge.vector, charge.infinite) if table is not None]
            found = [table @ sizes for table in tables]
        else:
            windows_of = patches.look_up(self._charge_table(run, position, charge), piece)
            found = [_total(sizes, table) for table in windows_of]
        run.lost += found[0] + charge.constant[0]
        if len(found) > 1:
            run.lost[found[1] > 0] = np.inf

    def _charge_table(self, run: _Run, position: int, charge: Charge) -> np.ndarray:
        """The charge as images ``[1 or 2, H, W, C]``."""
        key = position, position == run.start
        table = self._charge_tables.get(key)
        if table is None:
            shape = self._nodes[position].shape[1:]
            rows = [x[0].reshape(shape) for x in (charge.vector, charge.infinite) if x is not None]
            table = self._charge_tables[key] = np.ascontiguousarray(np.stack(rows).transpose(0, 2, 3, 1))
        return table

    def _charge_sent(self, run: _Run, position: int, number: int, piece: Columns | Patches) -> None:
        """Charge coefficients that a nonlinear node sends to an input where others do, too."""
        leaving = self._charges.leaving(position)
        if leaving is not None:
            sizes = np.abs(piece.values)
            vector = leaving[number].vector[0]
            source = self._nodes[self._nodes[position].inputs[number]]
            if isinstance(piece, Columns):
                run.lost += piece.entries.pick(vector) @ sizes
            else:
                table = vector.reshape(1, *source.shape[1:]).transpose(0, 2, 3, 1)
                run.lost += _total(sizes, next(iter(patches.look_up(np.ascontiguousarray(table), piece))))

    def _needed(self, position: int) -> Entries:
        """The entries of a node's value whose coefficients count."""
        while self._nodes[position].op == "Reshape":
            position = self._nodes[position].inputs[0]
        lines = self._lines_of(position)
        return ALL if lines is None else lines.live

    def _lines_of(self, position: int) -> Lines | None:
        """The relaxation of a node with one input; None for all others."""
        if position not in self._lines:
            step = self._step(position)
            if step is None or len(step.spread) != 1:
                return None
            return self._lines.setdefault(position, Lines.of(step))
        return self._lines[position]

    def _arrive(self, run: _Run, position: int, piece: Columns | Patches) -> None:
        """Add a piece to what waits at a node."""
        known = run.pending.get(position)
        if isinstance(piece, Patches) and (known is None or isinstance(known, Patches)):
            together = piece if known is None else patches.joined(known, piece)
            if together is not None and self._is_small(position, together):
                run.pending[position] = together
                return
        columns = self._on_needed(position, piece)
        if known is not None:
            columns = self._sum(position, self._on_needed(position, known), columns)
        run.pending[position] = columns

    def _on_needed(self, position: int, piece: Columns | Patches) -> Columns:
        """The piece as columns, without entries that do not count."""
        if isinstance(piece, Patches):
            return self._spread(position, piece)
        needed = self._needed(position)
        if piece.entries is ALL and needed is not ALL:
            return Columns(needed, needed.pick(piece.values))
        return piece

    def _sum(self, position: int, first: Columns, second: Columns) -> Columns:
        """Both pieces of a node in one, in place where they hold the same entries."""
        if first.entries is not second.entries:
            first, second = self._whole(position, first), self._whole(position, second)
        np.add(first.values, second.values, out=first.values)
        return first

    def _is_small(self, position: int, piece: Patches) -> bool:
        """Whether windows on a node's value are worth keeping apart."""
        shape = self._nodes[position].shape
        if not is_image(shape):
            return False
        window = min(piece.height, shape[2]) * min(piece.width, shape[3])
        return window * _WINDOW_SHARE <= shape[2] * shape[3]

    def _whole(self, position: int, piece: Columns) -> Columns:
        """The same coefficients on all entries."""
        if piece.entries is ALL:
            return piece
        values = np.zeros((self._nodes[position].size, piece.values.shape[1]), dtype=piece.values.dtype)
        values[piece.entries.index] = piece.values
        return Columns(ALL, values)

    # --- one operator, columns ---------------------------------------------------------------------------------------

    def _carry_columns(self, run: _Run, position: int, node: Node, piece: Columns) -> None:
        self._charge(run, position, piece)
        if node.op == "Reshape":
            self._arrive(run, node.inputs[0], piece)
        elif node.op == "Add":
            self._carry_add(run, node, piece)
        elif is_plain_dense(node) or is_plane_convolution(node) or is_plane_enlarging(node):
            bias = node.params.get("bias")
            if bias is not None:
                full = bias if node.op == "Linear" else np.repeat(bias, node.size // len(bias))
                run.add(piece.entries.pick(full) @ piece.values)
            below = self._dense if node.op == "Linear" else self._convolution
            self._arrive(run, node.inputs[0], below(position, node, piece))
        elif self._lines_of(position) is not None:
            self._arrive(run, node.inputs[0], self._bend(run, position, piece))
        else:
            self._carry_general(run, position, node, piece)

    def _carry_add(self, run: _Run, node: Node, piece: Columns | Patches) -> None:
        """Every input but the last gets a copy: pieces are changed in place further down."""
        last = len(node.inputs) - 1
        for number, (source, sign) in enumerate(zip(node.inputs, node.attributes["signs"], strict=True)):
            values = piece.values if number == last else piece.values.copy()
            self._arrive(run, source, piece._replace(values=values if sign > 0 else -values))

    def _dense(self, position: int, node: Node, piece: Columns) -> Columns:
        to = self._needed(node.inputs[0])
        key = (position, piece.entries, to)
        matrix = self._matrices.get(key)
        if matrix is None:
            chosen = piece.entries.pick(node.params["weight"])
            matrix = self._matrices.setdefault(key, np.ascontiguousarray(to.pick(chosen.T)))
        return Columns(to, matrix @ piece.values)

    def _convolution(self, position: int, node: Node, piece: Columns) -> Columns:
        to = self._needed(node.inputs[0])
        key = (position, piece.entries, to)
        parts = self._parts.get(key)
        if parts is None:
            self._seen[key] = self._seen.get(key, 0) + piece.values.shape[1]
            if self._seen[key] < _SETTLED_ROWS or node.attributes["groups"] > 1:
                return Columns(to, to.pick(self._folded(position, node, self._whole(position, piece).values)))
            parts = self._parts.setdefault(key, self._choose(position, node, to, piece.entries))
        return Columns(to, blocks.apply(parts, piece.values, to.count(math.prod(node.input_shapes[0]))))

    def _choose(self, position: int, node: Node, to: Entries, of: Entries) -> list[blocks.Part]:
        _, channels, height, width = node.input_shapes[0]
        _, outputs, tall, wide = node.shape
        shapes = ((channels, height, width), (outputs, tall, wide))
        size = channels * height * width
        return blocks.choose(self._structure.template(position), to.flat(size), of.flat(node.size), shapes)

    def _folded(self, position: int, node: Node, values: np.ndarray) -> np.ndarray:
        """The transpose of a convolution (or a transposed one) on all entries, ``[entries, R]``."""
        image = values.reshape(*node.shape[1:], -1).transpose(1, 2, 0, 3)
        corner = np.zeros(values.shape[1], dtype=np.int64)
        carry = patches.through_convolution if node.op == "Conv" else patches.through_transposed
        kernel = spatial(node.params["weight"].shape)
        whole = Patches(image, corner, corner, False)
        below = carry(whole, self._structure.kernel(position), kernel, window_of(node))
        full = patches.spread_out(below, spatial(node.input_shapes[0]))
        return full.transpose(2, 0, 1, 3).reshape(-1, values.shape[1])

    def _bend(self, run: _Run, position: int, piece: Columns) -> Columns:
        """Carry rows through a relaxation, in place; only bent entries are touched."""
        lines = self._lines[position]
        if piece.entries is not lines.live:
            piece = Columns(lines.live, lines.live.pick(self._whole(position, piece).values))
        values = piece.values
        everything = len(lines.bent) == len(values)
        part = values if everything else values[lines.bent]
        negative = np.minimum(part, 0)
        if lines.above is not None:
            run.add(lines.above @ negative)
        if lines.below is not None:
            run.add(lines.below @ (part - negative))
        part *= lines.slope
        negative *= lines.spread
        part += negative
        if not everything:
            values[lines.bent] = part
        self._charge_sent(run, position, 0, piece)
        return piece

    def _carry_general(self, run: _Run, position: int, node: Node, piece: Columns) -> None:
        """Any operator, by the step that all bounds share."""
        rows = self._whole(position, piece).values.T
        carried, part = self._through(position, rows.reshape(1, -1, *node.shape))
        if part is not None:
            run.add(part[0])
        for number, (source, below) in enumerate(zip(node.inputs, carried, strict=True)):
            # An operator that is bounded by its interval alone asks nothing of its inputs.
            if below.any():
                sent = Columns(ALL, np.array(below.reshape(rows.shape[0], -1).T, order="C"))
                if position in self._structure.plan.elementwise:
                    self._charge_sent(run, position, number, sent)
                self._arrive(run, source, sent)

    def _minimum(self, piece: Columns) -> np.ndarray:
        """``min a . x`` over the box, less the rounding allowance, of ``[entries, R]``; the piece is used up."""
        minimum = piece.entries.pick(self._centre) @ piece.values
        return minimum - piece.entries.pick(self._reach) @ np.abs(piece.values, out=piece.values)

    # --- one operator, windows ---------------------------------------------------------------------------------------

    def _carry_patches(self, run: _Run, position: int, node: Node, piece: Patches) -> None:
        if not self._keeps_patches(position, node):
            self._carry_columns(run, position, node, self._spread(position, piece))
            return
        self._charge(run, position, piece)
        if node.op == "Add":
            self._carry_add(run, node, piece)
        elif is_plane_convolution(node):
            piece = piece.within(spatial(node.shape))
            part = windows.bias_of(node, piece)
            if part is not None:
                run.add(part)
            kernel = spatial(node.params["weight"].shape)
            below = patches.through_convolution(piece, self._structure.kernel(position), kernel, window_of(node))
            self._arrive(run, node.inputs[0], below)
        elif self._lines_of(position) is not None:
            self._arrive(run, node.inputs[0], self._bend_patches(run, position, node, piece))
        elif (carried := windows.carry(self._structure, position, piece)) is not None:
            if carried.part is not None:
                run.add(carried.part)
            for source, below in zip(node.inputs, carried.pieces, strict=True):
                self._arrive(run, source, below)

    def _keeps_patches(self, position: int, node: Node) -> bool:
        """Whether the node has a step on windows."""
        return (
            node.op == "Add"
            or is_plane_convolution(node)
            or self._lines_of(position) is not None
            or windows.carries(self._structure, position)
        )

    def _bend_patches(self, run: _Run, position: int, node: Node, piece: Patches) -> Patches:
        step = self._lines[position].step
        table = self._tables.get(position)
        if table is None:
            rows = [step.lower_slopes[0], step.spread[0], step.lower_intercept, step.upper_intercept]
            stacked = np.stack([row[0].reshape(node.shape[1:]) for row in rows if row is not None])
            table = np.ascontiguousarray(stacked.transpose(0, 2, 3, 1))
            self._tables[position] = table
        slope, spread, *intercepts = patches.look_up(table, piece)
        values = piece.values
        negative = np.minimum(values, 0)
        if step.upper_intercept is not None:
            run.add(_total(negative, intercepts[-1]))
        if step.lower_intercept is not None:
            run.add(_total(values - negative, intercepts[0]))
        values = values * slope
        negative *= spread
        values += negative
        piece = piece._replace(values=values, overhangs=False)
        self._charge_sent(run, position, 0, piece)
        return piece

    def _spread(self, position: int, piece: Patches) -> Columns:
        """The rows on the node's entries that count."""
        _, channels, height, width = self._nodes[position].shape
        full = patches.spread_out(piece, (height, width)).reshape(height * width, channels, -1)
        needed = self._needed(position)
        if needed.index is None:
            return Columns(ALL, full.transpose(1, 0, 2).reshape(channels * height * width, -1))
        channel, pixel = np.divmod(needed.index, height * width)
        return Columns(needed, full[pixel, channel])

    def _minimum_of_patches(self, piece: Patches) -> np.ndarray:
        """The same of windows on the image that the input is."""
        centre, reach = patches.look_up(self._boxes, piece)
        return _total(piece.values, centre) - _total(abs(piece.values), reach)


def _total(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The sum of products over windows, ``[rows]``."""
    return (values * table).sum(axis=(0, 1, 2))
