"""Small networks, queries and suites for the command line's tests."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUICKSTART = Path(__file__).resolve().parents[2] / "benchmarks" / "quickstart"


def run_boundsmith(
    arguments: Sequence[str | Path], cwd: Path | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "boundsmith.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=seconds, check=False)


@pytest.fixture(autouse=True)
def _commands_start_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands called inside the test process count their time from the call: the process may be minutes old."""
    monkeypatch.setattr("boundsmith.verify.budget.process_start", time.monotonic)


@pytest.fixture
def boundsmith() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_boundsmith`."""
    return run_boundsmith


def make_network(weight: np.ndarray, op: str = "Relu", shape: Sequence[int | str] | None = None) -> onnx.ModelProto:
    """``Y = op(weight @ X)`` for one operator without attributes; input ``[1, n]`` unless `shape` says otherwise."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["h"]), helper.make_node(op, ["h"], ["Y"])],
        "net",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape or [1, weight.shape[1]])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [1, weight.shape[0]])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T.astype(np.float32)), "W")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def query_text(condition: str, low: float = 0.0, high: float = 1.0, inputs: int = 2, outputs: int = 2) -> str:
    """A VNN-LIB 1.0 query over the box ``[low, high] ** inputs`` with one output condition."""
    declared = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    declared += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    bounds = [f"(assert (and (>= X_{i} {low}) (<= X_{i} {high})))" for i in range(inputs)]
    return "\n".join([*declared, *bounds, f"(assert {condition})"]) + "\n"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """``Y = relu(X)`` on two inputs: over the unit box, ``Y_0 >= 2`` is impossible and ``Y_0 >= 0.25`` easy."""
    file = tmp_path / "net.onnx"
    onnx.save(make_network(np.eye(2)), file)
    return file


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """A query about `network` whose answer is unsat."""
    file = tmp_path / "safe.vnnlib"
    file.write_text(query_text("(>= Y_0 2.0)"))
    return file


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    """A query about `network` whose answer is sat."""
    file = tmp_path / "unsafe.vnnlib"
    file.write_text(query_text("(>= Y_0 0.25)"))
    return file


@pytest.fixture
def suite(tmp_path: Path, network: Path, safe: Path, unsafe: Path) -> Path:
    """A set `tiny` of six instances with known answers; its networks are copies, so that the names differ."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    rows, expected = [], ["benchmark,onnx,vnnlib,verdict"]
    for number in range(3):
        (folder / f"net{number}.onnx").write_bytes(network.read_bytes())
        for query, verdict in ((safe, "unsat"), (unsafe, "sat")):
            (folder / query.name).write_bytes(query.read_bytes())
            rows.append(f"net{number}.onnx,{query.name},30")
            expected.append(f"tiny,net{number}.onnx,{query.name},{verdict}")
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")
    (folder / "expected.csv").write_text("\n".join(expected) + "\n")
    return folder
