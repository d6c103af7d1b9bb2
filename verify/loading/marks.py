"""What the importer notes of a tensor whose actual shape depends on the network's inputs; see `shortening`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Short:
    """A slice of `length` entries out of `extent`, from the position ``root + offset`` (`root` is a graph node)."""

    root: int
    offset: float
    length: int
    extent: int


@dataclass(frozen=True)
class Marks:
    """How a tensor of the source differs from the full-length one that stands for it.

    axes      the axes that a slice shortens (always at their end).
    entries   of shape arithmetic, the entries that are such an axis's actual extent.
    checked   the tensor's bounds are refused where anything is shortened (`DynamicSlice`), so that values may be used
              freely, but not its shape: nothing need remain in the graph that would be refused.
    """

    axes: Mapping[int, Short] = field(default_factory=dict)
    entries: Mapping[int, Short] = field(default_factory=dict)
    checked: bool = False

    @property
    def matters(self) -> bool:
        """Whether the tensor may differ at all."""
        return bool(self.axes or self.entries or self.checked)


NONE = Marks()
