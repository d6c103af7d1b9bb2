"""Every benchmark network loads, agrees with onnxruntime, and comes out in the expected form."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.verify.loading import load
from conftest import shared_dir

if TYPE_CHECKING:
    from pathlib import Path

ROOT = shared_dir() / "vnncomp"
SETS = sorted(folder.name for folder in ROOT.iterdir() if (folder / "onnx").is_dir())
HEAVY = 8 << 20
"""Raw bytes from which a network is left to the slow run."""


def networks(name: str) -> list[Path]:
    return sorted((ROOT / name / "onnx").rglob("*.onnx.gz"))


def raw_size(path: Path) -> int:
    """The unpacked size, as gzip notes it in the last four bytes."""
    return int.from_bytes(path.read_bytes()[-4:], "little")


@pytest.mark.parametrize("name", SETS)
def test_networks_of_a_set(name: str) -> None:
    light = [path for path in networks(name) if raw_size(path) < HEAVY]
    assert light or name == "tllverifybench"
    for path in light:
        load(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_heavy_networks_of_a_set(name: str) -> None:
    for path in networks(name):
        if raw_size(path) >= HEAVY:
            load(path)


def test_acasxu_is_seven_dense_layers() -> None:
    network = load(ROOT / "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx")
    counts = Counter(node.op for node in network.graph.nodes)
    assert counts == {"Input": 1, "Reshape": 1, "Linear": 7, "Relu": 6}
    assert network.inputs[0].shape == (1, 1, 1, 5)
    assert network.operator_counts["MatMul"] == 7
    assert len(network.sha256) == 64
    assert network.parameter_count == 13305


def test_batch_normalisation_and_input_scaling_are_folded() -> None:
    network = load(ROOT / "sri_resnet_a/onnx/resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx.gz")
    assert {node.op for node in network.graph.nodes} <= {"Input", "Conv", "Relu", "Add", "Reshape", "Linear"}


def test_nonlinear_power_flow_has_no_reshapes_left() -> None:
    network = load(ROOT / "ml4acopf/onnx/14_ieee_ml4acopf.onnx.gz")
    assert not any(node.op in ("Reshape", "Transpose") for node in network.graph.nodes)


def test_scalar_integer_output() -> None:
    network = load(ROOT / "carvana_unet/onnx/unet_simp_small.onnx.gz")
    assert network.outputs[0].shape == ()
    assert network.outputs[0].dtype == np.int64


def test_box_for_the_comparison() -> None:
    path = ROOT / "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx.gz"
    load(path, lower=np.full(5, -0.3), upper=np.full(5, 0.5))
