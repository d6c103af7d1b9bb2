"""`boundsmith bounds`: the region in every form, and bounds that hold."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from boundsmith.cli.main import cli
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from .conftest import QUICKSTART

if TYPE_CHECKING:
    from pathlib import Path

MOONS = QUICKSTART / "onnx" / "moons.onnx"


def _run(tmp_path: Path, *arguments: str | Path) -> dict:
    file = tmp_path / "bounds.json"
    ended = CliRunner().invoke(cli, ["bounds", str(MOONS), *map(str, arguments), "--json", str(file)])
    assert ended.exit_code == 0, ended.output
    return json.loads(file.read_text())


@pytest.mark.parametrize("method", ["crown", "crown-ibp", "ibp", "forward"])
def test_samples_lie_inside(tmp_path: Path, method: str) -> None:
    import onnxruntime

    found = _run(tmp_path, "--center", "0.5,0.2", "--eps", "0.25", "--method", method)
    points = np.random.default_rng(0).uniform([0.25, -0.05], [0.75, 0.45], (500, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(MOONS)
    outputs = np.concatenate([session.run(None, {"X": point[None]})[0] for point in points])
    assert np.all(outputs >= np.array(found["lower"][0]) - 1e-5)
    assert np.all(outputs <= np.array(found["upper"][0]) + 1e-5)
    assert all(0 <= row["unstable"] <= row["of"] for row in found["unstable"])


def test_every_form_of_a_region_means_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "center.npy", np.array([0.5, 0.5]))
    np.savez(tmp_path / "points.npz", x=np.array([[0.5, 0.5]]))
    np.savez(tmp_path / "boxes.npz", lower=np.array([[0.25, 0.25]]), upper=np.array([[0.75, 0.75]]))
    query = tmp_path / "query.vnnlib"
    query.write_text(
        "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
        "(assert (and (>= X_0 0.25) (<= X_0 0.75) (>= X_1 0.25) (<= X_1 0.75)))(assert (>= Y_0 Y_1))\n"
    )
    forms: list[list[str | Path]] = [
        ["--center", "0.5", "--eps", "0.25"],
        ["--center", "0.5,0.5", "--eps", "0.25"],
        ["--center", tmp_path / "center.npy", "--eps", "0.25"],
        ["--data", tmp_path / "points.npz", "--eps", "0.25"],
        ["--data", tmp_path / "boxes.npz"],
        ["--region", query],
    ]
    first, *others = [_run(tmp_path, *form) for form in forms]
    for other in others:
        assert (other["lower"], other["upper"]) == (first["lower"], first["upper"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of --region"),
        (["--center", "0", "--data", "x.npz"], "one of --region"),
        (["--center", "0"], "--eps"),
        (["--center", "a,b", "--eps", "1"], "list of numbers"),
        (["--center", "1,2,3", "--eps", "1"], "the network has 2"),
        (["--center", "nan,1", "--eps", "1"], "no number"),
        (["--data", "none.npz", "--eps", "1"], "does not exist"),
    ],
)
def test_regions_that_make_no_sense(arguments: list[str], says: str) -> None:
    ended = CliRunner().invoke(cli, ["bounds", str(MOONS), *arguments])
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("no points", {"x": np.zeros((0, 2))}),
        ("no boxes", {"lower": np.zeros((0, 2)), "upper": np.zeros((0, 2))}),
        ("no inputs", {"x": np.zeros((3, 0))}),
        ("nothing", {}),
        ("no batch", {"x": np.zeros(2)}),
        ("words", {"x": np.array([["a", "b"]])}),
        ("no number", {"x": np.array([[np.nan, 0.0]])}),
        ("no end", {"x": np.array([[np.inf, 0.0]])}),
        ("too far for float32", {"x": np.array([[1e39, 0.0]])}),
    ],
)
def test_data_that_give_no_boxes_are_one_sentence(tmp_path: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, **arrays)
    eps = [] if "lower" in arrays else ["--eps", "0.1"]
    ended = CliRunner().invoke(cli, ["bounds", str(MOONS), "--data", str(file), *eps])
    assert ended.exit_code == 2, (name, ended.output, ended.exception)
    assert len(ended.stderr.strip().splitlines()) == 1


def test_damaged_data_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, x=np.zeros((1, 2)))
    content = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for position in random.integers(0, len(content), 3):
            damaged[position] = int(random.integers(256))
        file.write_bytes(damaged[: random.integers(1, len(content))] if random.random() < 0.3 else damaged)
        ended = CliRunner().invoke(cli, ["bounds", str(MOONS), "--data", str(file), "--eps", "0.1"])
        assert ended.exit_code in (0, 2), (ended.output, ended.exception)


def test_boxes_are_rounded_outward() -> None:
    from boundsmith.cli.regions import rounded_outward

    lower, upper = np.array([[0.1, 0.3, -0.7, 0.5]]), np.array([[0.2, 0.3, 0.7, 0.5]])
    low, high = rounded_outward(lower, upper, "float32")
    assert low.dtype == high.dtype == np.float32
    assert (low.astype(np.float64) <= lower).all()
    assert (upper <= high.astype(np.float64)).all()
    assert (low[0, 3], high[0, 3]) == (0.5, 0.5)


def test_a_network_of_float64_is_bounded_in_float64(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["X", "B"], ["Y"])],
        "net",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [1, 1])],
        [helper.make_tensor_value_info("Y", TensorProto.DOUBLE, [1, 1])],
        [numpy_helper.from_array(np.array([1e9]), "B")],
    )
    file, report = tmp_path / "net.onnx", tmp_path / "bounds.json"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    arguments = ["bounds", str(file), "--center", "0", "--eps", "0.5", "--json", str(report)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    found = json.loads(report.read_text())
    assert found["lower"][0][0] == pytest.approx(1e9 - 0.5, abs=1e-3)
    assert found["upper"][0][0] == pytest.approx(1e9 + 0.5, abs=1e-3)
    assert CliRunner().invoke(cli, [*arguments, "--dtype", "float32"]).exit_code == 2


@pytest.mark.parametrize("method", ["crown", "alpha-crown", "crown-ibp", "forward"])
def test_a_limit_that_passes_leaves_the_bounds_of_ibp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from boundsmith.verify.bounding import api
    from boundsmith.verify.budget import TimeUp

    arguments = ["--center", "0.5,0.2", "--eps", "0.25"]
    expected = _run(tmp_path, *arguments, "--method", "ibp")
    honest = api.bounds_of

    def late(network: object, lower: object, upper: object, method: str, **more: object) -> object:
        if method != "ibp":
            raise TimeUp
        return honest(network, lower, upper, method, **more)

    monkeypatch.setattr(api, "bounds_of", late)
    found = _run(tmp_path, *arguments, "--method", method, "--timeout", "60")
    assert (found["lower"], found["upper"]) == (expected["lower"], expected["upper"])
    assert found["method"] == "ibp"
    assert found["warnings"] == [f"--timeout 60 passed before {method} gave bounds"]


def test_a_limit_holds_although_the_process_is_stuck() -> None:
    stuck = (
        "import ctypes, sys\nfrom boundsmith.verify.bounding import api\nhonest = api.bounds_of\n"
        "def bounds_of(network, lower, upper, method, **more):\n"
        "    if method == 'ibp':\n        return honest(network, lower, upper, method, **more)\n"
        "    ctypes.CDLL(None).sleep(600)\n"
        "api.bounds_of = bounds_of\nfrom boundsmith.cli.main import main\nmain(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", stuck, "bounds", MOONS, "--center", "0", "--eps", "0.1", "--timeout", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0
    assert "ibp by boundsmith" in ended.stdout
    assert ended.stderr == "warning: --timeout 3 passed before crown gave bounds; these are ibp's\n"


def test_no_time_at_all_is_one_sentence() -> None:
    command = [sys.executable, "-m", "boundsmith.cli.main", "bounds", MOONS, "--center", "0", "--eps", "0.1"]
    ended = subprocess.run([*command, "--timeout", "0"], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == ("error: --timeout 0 passed before crown gave bounds; give more time, or try --method ibp\n")


def test_one_box_is_a_box() -> None:
    ended = CliRunner().invoke(cli, ["bounds", str(MOONS), "--center", "0", "--eps", "0.1"])
    assert ", 1 box, " in ended.stdout


def test_an_engine_that_is_absent_is_named() -> None:
    pytest.importorskip("boundsmith.verify.bounding.auto_lirpa")
    import importlib.util

    if importlib.util.find_spec("auto_LiRPA") is not None:
        pytest.skip("auto_LiRPA is installed")
    ended = CliRunner().invoke(cli, ["bounds", str(MOONS), "--center", "0", "--eps", "1", "--engine", "auto-lirpa"])
    assert ended.exit_code == 2
    assert "auto_LiRPA" in ended.stderr
