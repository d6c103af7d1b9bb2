"""`boundsmith inspect`: what is in a network file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..options import InputPath, check_writable, debug_option, json_option, require_file
from ..output import Answering, say, write_report

if TYPE_CHECKING:
    from pathlib import Path

    from ...verify.loading import Network

INSPECT_SCHEMA = "boundsmith.inspect/1"


@click.command(cls=Answering)
@click.argument("network", type=InputPath())
@click.option("--no-check", is_flag=True, help="Do not compare with onnxruntime.")
@json_option
@debug_option
def command(network: Path, no_check: bool, json_file: Path | None) -> None:
    """Show the layers, shapes and parameters of NETWORK, an ONNX file (plain or .gz), as Boundsmith sees it.

    Ends with status 2 and the list of all unsupported operators if there are any.

    \b
    Example:
      boundsmith inspect net.onnx
    """
    from ...verify.loading import load

    check_writable(json_file)
    found = to_object(load(require_file(network, "network"), check=not no_check), checked=not no_check)
    say(describe(found))
    write_report(json_file, found)


def to_object(network: Network, checked: bool) -> dict[str, Any]:
    """What the command shows, as one JSON object."""
    return {
        "schema": INSPECT_SCHEMA,
        "file": network.source,
        "sha256": network.sha256,
        "inputs": [_tensor(tensor) for tensor in network.inputs],
        "outputs": [_tensor(tensor) for tensor in network.outputs],
        "parameters": network.parameter_count,
        "operators": dict(network.operator_counts),
        "checked": checked,
        "layers": [
            {
                "name": node.name,
                "op": node.op,
                "shape": list(node.shape),
                "inputs": list(node.inputs),
                "parameters": {key: list(array.shape) for key, array in node.params.items()},
            }
            for node in network.graph.nodes
        ],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    shown = {"name": tensor.name, "type": str(tensor.dtype), "shape": list(tensor.shape)}
    return shown | ({"symbolic": {str(axis): name for axis, name in tensor.symbolic}} if tensor.symbolic else {})


def _open_extents(tensor: dict[str, Any]) -> str:
    """Which extents the model leaves open."""
    open_ = [f"axis {axis} is {name}" for axis, name in tensor.get("symbolic", {}).items()]
    return f" ({', '.join(open_)} in the model; a query's declaration fixes it, 1 is assumed here)" if open_ else ""


def describe(found: dict[str, Any]) -> str:
    """The object as lines of text."""
    lines = [f"{found['file']}: {found['parameters']:,} parameters"]
    for side in ("inputs", "outputs"):
        lines += [
            f"{side[:-1]} {tensor['name']} {tensor['type']} {tensor['shape']}{_open_extents(tensor)}"
            for tensor in found[side]
        ]
    counts = ", ".join(f"{count} {name}" for name, count in sorted(found["operators"].items()))
    lines.append(f"ONNX operators: {counts}")
    width = max((len(layer["op"]) for layer in found["layers"]), default=0)
    for index, layer in enumerate(found["layers"]):
        parameters = ", ".join(f"{key} {shape}" for key, shape in layer["parameters"].items())
        sources = ", ".join(map(str, layer["inputs"]))
        lines.append(f"{index:>5} {layer['op']:{width}} {layer['shape']} <- [{sources}] {parameters}".rstrip())
    lines.append("all operators are supported" + ("; outputs agree with onnxruntime" if found["checked"] else ""))
    return "\n".join(lines)
