"""`boundsmith bounds`: the region in every form, and bounds that hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.cli.main import cli
from click.testing import CliRunner

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


def test_an_engine_that_is_absent_is_named() -> None:
    pytest.importorskip("boundsmith.verify.bounding.auto_lirpa")
    import importlib.util

    if importlib.util.find_spec("auto_LiRPA") is not None:
        pytest.skip("auto_LiRPA is installed")
    ended = CliRunner().invoke(cli, ["bounds", str(MOONS), "--center", "0", "--eps", "1", "--engine", "auto-lirpa"])
    assert ended.exit_code == 2
    assert "auto_LiRPA" in ended.stderr
