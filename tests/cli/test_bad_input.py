"""Every kind of bad input ends with status 2 and one line that says what is wrong; never with a traceback."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from boundsmith.cli.main import cli
from click.testing import CliRunner
from onnx import TensorProto, helper

from .conftest import make_network, query_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD_QUERY = query_text("(>= Y_0 2.0)").encode()
GOOD_NETWORK = make_network(np.eye(2)).SerializeToString()


def _unsupported() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Det", ["X"], ["Y"])],
        "net",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def _with_weight(value: float) -> bytes:
    weight = np.eye(2)
    weight[0, 1] = value
    return make_network(weight).SerializeToString()


NETWORKS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "does not exist"),
    "empty": (b"", "empty"),
    "truncated": (GOOD_NETWORK[: len(GOOD_NETWORK) // 2], ""),
    "not ONNX": (b"This is a letter, not a network.", ""),
    "unsupported operator": (_unsupported(), "Det"),
    "dynamic shapes": (make_network(np.eye(2), shape=["batch", "features"]).SerializeToString(), ""),
    "NaN weight": (_with_weight(np.nan), "W"),
    "infinite weight": (_with_weight(np.inf), "W"),
    "truncated gzip": (gzip.compress(GOOD_NETWORK)[:-20], "gzip"),
}

QUERIES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "does not exist"),
    "empty": (b"", "empty"),
    "blank": (b"; nothing here\n\n", "empty"),
    "truncated": (GOOD_QUERY[: len(GOOD_QUERY) - 8], "query.vnnlib:7:1:"),
    "not text": (b"\x80\x81\xff" * 20, "UTF-8"),
    "more inputs than the network": (query_text("(>= Y_0 2.0)", inputs=3).encode(), "3"),
    "fewer inputs than the network": (query_text("(>= Y_0 2.0)", inputs=1).encode(), "1"),
    "more outputs than the network": (query_text("(>= Y_2 2.0)", outputs=3).encode(), "3"),
    "contradictory bounds": (query_text("(>= Y_0 2.0)", low=1.0, high=0.0).encode(), "X_0"),
    "unbounded input": (GOOD_QUERY.replace(b"(<= X_1 1.0)", b""), "X_1"),
    "unknown variable": (query_text("(>= Y_7 2.0)").encode(), "Y_7"),
    "open parenthesis": (GOOD_QUERY.rstrip()[:-1], "query.vnnlib:7:1:"),
    "extra parenthesis": (GOOD_QUERY.rstrip() + b")", "query.vnnlib:7:22:"),
    "a number that is none": (query_text("(>= Y_0 2.0.0)").encode(), "2.0.0"),
    "truncated gzip": (gzip.compress(GOOD_QUERY)[:-20], "gzip"),
}


def _expect_refusal(arguments: list[str], says: str) -> None:
    ended = CliRunner().invoke(cli, arguments)
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ")
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def _write(file: Path, content: bytes | None) -> Path:
    if content is not None:
        file.write_bytes(content)
    return file


@pytest.mark.parametrize("case", NETWORKS)
def test_bad_network(tmp_path: Path, case: str) -> None:
    content, says = NETWORKS[case]
    query = _write(tmp_path / "query.vnnlib", GOOD_QUERY)
    network = _write(tmp_path / "net.onnx", content)
    _expect_refusal(["verify", str(query), "--network", str(network)], says)


@pytest.mark.parametrize("case", QUERIES)
def test_bad_query(tmp_path: Path, case: str) -> None:
    content, says = QUERIES[case]
    query = _write(tmp_path / "query.vnnlib", content)
    network = _write(tmp_path / "net.onnx", GOOD_NETWORK)
    _expect_refusal(["verify", str(query), "--network", str(network)], says)


@pytest.mark.parametrize("name", ["query.vnnlib.gz", "net.onnx.gz"])
def test_gz_that_is_not_gzip(tmp_path: Path, name: str) -> None:
    query = _write(tmp_path / "query.vnnlib", GOOD_QUERY)
    network = _write(tmp_path / "net.onnx", GOOD_NETWORK)
    plain = query if name.startswith("query") else network
    packed = plain.rename(tmp_path / name)
    query, network = (packed, network) if plain is query else (query, packed)
    _expect_refusal(["verify", str(query), "--network", str(network)], "gzip")


@pytest.mark.parametrize(
    "networks",
    [["a={0}", "a={0}"], ["{0}", "{0}"], ["[('f', "], ["{1}"]],
    ids=["name twice", "two without a name", "broken list", "a folder"],
)
def test_bad_network_arguments(tmp_path: Path, network: Path, safe: Path, networks: list[str]) -> None:
    given = [
        part
        for text in networks
        for part in ("--network", text.replace("{0}", str(network)).replace("{1}", str(tmp_path)))
    ]
    _expect_refusal(["verify", str(safe), *given], "")


def test_unwritable_json_is_refused_before_any_work(tmp_path: Path, network: Path, safe: Path) -> None:
    file = tmp_path / "no" / "such" / "result.json"
    _expect_refusal(["verify", str(safe), "--network", str(network), "--json", str(file)], "result.json")


@pytest.mark.parametrize("size", ["0", "0.5", "-1G", "nan", "1e3", "9" * 400, "much"])
def test_sizes_that_are_none(network: Path, safe: Path, size: str) -> None:
    ended = CliRunner().invoke(cli, ["verify", str(safe), "--network", str(network), "--memory", size])
    assert ended.exit_code == 2
    assert "is no size" in ended.stderr


def test_a_process_prints_no_traceback_unless_debugged(boundsmith: Callable, tmp_path: Path, network: Path) -> None:
    arguments = ["verify", tmp_path / "none.vnnlib", "--network", network]
    ended = boundsmith(arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.strip().count("\n") == 0
    assert "Traceback" in boundsmith([*arguments, "--debug"]).stderr


@pytest.mark.parametrize("command", ["inspect", "bounds", "bench"])
def test_other_commands_refuse_bad_input_too(tmp_path: Path, command: str) -> None:
    extra = ["--center", "0", "--eps", "1"] if command == "bounds" else []
    _expect_refusal([command, str(tmp_path / "none"), *extra], "none")
    (tmp_path / "junk").write_bytes(b"junk")
    _expect_refusal([command, str(tmp_path / "junk"), *extra], "junk")


def test_the_good_files_are_good(tmp_path: Path) -> None:
    """The table above tests what it says: without the fault there is no refusal."""
    query = _write(tmp_path / "query.vnnlib", GOOD_QUERY)
    network = _write(tmp_path / "net.onnx", GOOD_NETWORK)
    onnx.checker.check_model(onnx.load(network))
    assert CliRunner().invoke(cli, ["verify", str(query), "--network", str(network)]).exit_code == 0
