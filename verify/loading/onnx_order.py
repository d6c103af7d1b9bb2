"""The order in which the operators of an ONNX graph are read: what makes a tensor comes before what reads it.

ONNX asks files for such an order, and runtimes do not insist on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def in_order(nodes: Sequence[Any], label: str) -> list[Any]:
    """The nodes, each after those it reads from; nodes that are in order already stay where they are.

    Raises `LoadError` where nodes read each other in a circle.
    """
    makers = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    reads = [dict.fromkeys(makers[name] for name in _read(node) if name in makers) for node in nodes]
    done: dict[int, None] = {}
    for first in range(len(nodes)):
        path = [] if first in done else [(first, iter(reads[first]))]
        waiting = {first}
        while path:
            position, rest = path[-1]
            source = next((k for k in rest if k not in done), None)
            if source is None:
                done[position] = None
                path.pop()
            elif source in waiting:
                raise LoadError(
                    f"{label}: operator {nodes[source].op_type} ({nodes[source].name or list(nodes[source].output)}) "
                    "reads what follows from its own result; the model is damaged."
                )
            else:
                waiting.add(source)
                path.append((source, iter(reads[source])))
    return [nodes[position] for position in done]


def _read(node: Any) -> Iterator[str]:
    """The tensors that a node reads, also in its inner graphs."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _read(inner)
            yield from (info.name for info in attribute.g.output)
