"""`boundsmith verify`: what it prints where, what it writes, and its exit status."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from boundsmith.cli.bench.replay import confirm, parse_assignment
from boundsmith.cli.main import cli
from click.testing import CliRunner
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Run = Callable[..., CompletedProcess[str]]


def test_unsat_prints_one_word_on_stdout(boundsmith: Run, network: Path, safe: Path) -> None:
    ended = boundsmith(["verify", safe, "--network", network])
    assert (ended.returncode, ended.stdout) == (0, "unsat\n")
    assert "The property holds" in ended.stderr


def test_sat_prints_an_assignment_that_replays(boundsmith: Run, network: Path, unsafe: Path) -> None:
    ended = boundsmith(["verify", unsafe, "--network", network])
    first, *rest = ended.stdout.splitlines()
    assert first == "sat"
    assert [line for line in rest if " " in line] == ["X float32 [1,2]", "Y float32 [1,2]"]
    inputs, outputs = parse_assignment(rest)
    assert np.array_equal(np.maximum(inputs, 0), outputs)
    assert confirm(unsafe, {"": network}, rest) == ""


@pytest.mark.parametrize(("query", "status"), [("safe", 0), ("unsafe", 10)])
def test_exit_status_tells_the_verdict(request: pytest.FixtureRequest, network: Path, query: str, status: int) -> None:
    arguments = ["verify", str(request.getfixturevalue(query)), "--network", str(network)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert CliRunner().invoke(cli, [*arguments, "--exit-status"]).exit_code == status


def test_no_time_at_all_is_timed_out(boundsmith: Run, network: Path, safe: Path) -> None:
    ended = boundsmith(["verify", safe, "--network", network, "--timeout", "0"])
    assert (ended.returncode, ended.stdout) == (0, "timed-out\n")


def test_json_holds_verdict_witness_and_provenance(tmp_path: Path, network: Path, unsafe: Path) -> None:
    file = tmp_path / "result.json"
    CliRunner().invoke(cli, ["verify", str(unsafe), "--network", str(network), "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["schema"] == "boundsmith.result/1"
    assert result["verdict"] == "sat"
    assert [tensor["name"] for tensor in result["witness"]["inputs"]] == ["X"]
    assert result["networks"][0]["file"] == str(network)
    assert len(result["query"]["sha256"]) == len(result["networks"][0]["sha256"]) == 64
    assert result["versions"]["onnxruntime"]
    assert result["options"]["timeout"] == 116.0


def test_assignments_are_written_as_tensors(tmp_path: Path, network: Path, unsafe: Path) -> None:
    folder = tmp_path / "assignment"
    ended = CliRunner().invoke(
        cli, ["verify", str(unsafe), "--network", str(network), "--serialise-assignments", str(folder)]
    )
    inputs, outputs = parse_assignment(ended.stdout.splitlines()[1:])
    for name, values in (("X", inputs), ("Y", outputs)):
        tensor = onnx.TensorProto.FromString((folder / f"{name}.pb").read_bytes())
        assert tensor.name == name
        assert np.array_equal(numpy_helper.to_array(tensor), values)


def test_no_assignment_overwrites_another(tmp_path: Path) -> None:
    from boundsmith.cli.report.tensors import write_assignments
    from boundsmith.verify.result import Witness

    names = ("a/b", "a_b", "a b", "..")
    witness = Witness(tuple((name, np.array([number])) for number, name in enumerate(names)), ())
    written = write_assignments(tmp_path / "folder", witness)
    assert len(set(written)) == len(os.listdir(tmp_path / "folder")) == len(names)
    assert [onnx.TensorProto.FromString(file.read_bytes()).name for file in written] == list(names)


def test_truth_values_are_numbers_in_the_competitions_form() -> None:
    from boundsmith.cli.report.vnncomp import results_text
    from boundsmith.verify.result import Result, Verdict, Witness

    witness = Witness((("X", np.array([True, False])),), (("Y", np.array([0.5], np.float32)),))
    assert results_text(Result(Verdict.SAT, witness)) == "sat\n((X_0 1)\n (X_1 0)\n (Y_0 0.5))\n"


def test_names_and_counts_of_a_result_are_words_of_one_line() -> None:
    from boundsmith.cli.report.console import answer, story
    from boundsmith.cli.report.json import result_object
    from boundsmith.verify.result import Phase, Result, Verdict, Witness

    witness = Witness((("in\nput", np.array([1.0], np.float32)),), ())
    result = Result(Verdict.SAT, witness, phases=(Phase("input split", 0.05, 1), Phase("milp", 0.05, 2)))
    assert answer(result) == "sat\nin\\nput float32 [1]\n1.0"
    lines = story(result_object(result, {}, 0.1)).splitlines()
    assert "the witness violates the property" in lines[1]
    assert lines[2:] == ["  input split: 0.05 s, 1 domain", "  milp: 0.05 s, 2 domains"]


def test_results_file_has_the_competitions_form(tmp_path: Path, network: Path, safe: Path, unsafe: Path) -> None:
    file = tmp_path / "results.txt"
    runner = CliRunner()
    runner.invoke(cli, ["verify", str(safe), "--network", str(network), "--results", str(file)])
    assert file.read_text() == "unsat\n"
    runner.invoke(cli, ["verify", str(unsafe), "--network", str(network), "--results", str(file)])
    first, *pairs = file.read_text().splitlines()
    assert first == "sat"
    names = [pair.strip(" ()").split()[0] for pair in pairs]
    assert names == ["X_0", "X_1", "Y_0", "Y_1"]
    runner.invoke(cli, ["verify", str(tmp_path / "none"), "--network", str(network), "--results", str(file)])
    assert file.read_text() == "error\n"


def test_float_types_of_2_0_need_assume_real(tmp_path: Path, network: Path) -> None:
    text = (
        "(vnnlib-version <2.0>)\n(declare-network N (declare-input X {0} [1, 2]) (declare-output Y {0} [1, 2]))\n"
        "(assert (and (>= X[0,0] 0) (<= X[0,0] 1) (>= X[0,1] 0) (<= X[0,1] 1)))\n(assert (>= Y[0,0] 2))\n"
    )
    query = tmp_path / "two.vnnlib"
    arguments = ["verify", str(query), "--network", f"N={network}"]
    query.write_text(text.format("real"))
    assert CliRunner().invoke(cli, arguments).stdout == "unsat\n"
    query.write_text(text.format("float32"))
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 2
    assert "--assume-real" in refused.stderr
    assert CliRunner().invoke(cli, [*arguments, "--assume-real"]).stdout == "unsat\n"


def test_record_holds_the_proof_of_an_unsat_and_nothing_else(
    tmp_path: Path, network: Path, safe: Path, unsafe: Path
) -> None:
    file = tmp_path / "proof.npz"
    runner = CliRunner()
    assert runner.invoke(cli, ["verify", str(unsafe), "--network", str(network), "--record", str(file)]).exit_code == 0
    assert not file.exists()
    assert runner.invoke(cli, ["verify", str(safe), "--network", str(network), "--record", str(file)]).exit_code == 0
    with np.load(file) as arrays:
        assert (int(arrays["format"]), int(arrays["kind"])) == (1, 0)
        assert arrays["boxes/lower"].tolist() == [[0.0, 0.0]]
        assert arrays["boxes/upper"].tolist() == [[1.0, 1.0]]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".proof")] == []
