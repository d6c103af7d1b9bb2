"""The optional engine: what is said where it is missing or old, and that the network handed over is the network."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import numpy as np
import pytest
import torch
from boundsmith.verify.bounding import auto_lirpa
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.bounding.auto_lirpa import auto_lirpa_bounds, require_auto_lirpa, torch_module
from boundsmith.verify.errors import UnsupportedError
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.loading.network import load
from boundsmith.verify.problem import flatten

from tests.conftest import shared_dir
from tests.networks import dense, node, pooled, residual

NETS = (
    "arctan", "attention", "bilinear", "conv_maxpool", "cos", "expdiv", "gelu",
    "leaky", "power", "relu", "residual_bn", "sigmoid", "sin", "tanh",
)  # fmt: skip


class BoundedTensor:
    def __init__(self, value, region):
        self.value, self.region = value, region


class PerturbationLpNorm:
    def __init__(self, norm, x_L, x_U):
        self.norm, self.x_L, self.x_U = norm, x_L, x_U


class BoundedModule:
    """Answers the range over corners and samples: no bound, but it shows what was handed over."""

    calls: list = []  # noqa: RUF012

    def __init__(self, module, example):
        self.module, self.example = module, example

    def compute_bounds(self, x, method):
        (tensor,) = x
        BoundedModule.calls.append((self, tensor, method))
        low, high = tensor.region.x_L, tensor.region.x_U
        mix = torch.rand(200, *low.shape, generator=torch.Generator().manual_seed(0))
        mix[:100] = mix[:100].round()
        values = torch.stack([self.module(low + part * (high - low)) for part in mix])
        return values.amin(0), values.amax(0)


def install(monkeypatch, version="0.7.1"):
    """A package of that name and version, as far as the engine uses it."""
    package = types.ModuleType("auto_LiRPA")
    package.__spec__ = importlib.machinery.ModuleSpec("auto_LiRPA", None)
    package.BoundedModule = BoundedModule
    package.BoundedTensor = BoundedTensor
    package.PerturbationLpNorm = PerturbationLpNorm
    if version is not None:
        package.__version__ = version
    monkeypatch.setitem(sys.modules, "auto_LiRPA", package)
    monkeypatch.setattr(BoundedModule, "calls", [])
    return package


def boxes(size, count=3):
    rng = np.random.default_rng(0)
    lower = rng.uniform(-1, 0.5, (count, size))
    return lower, lower + rng.uniform(0, 0.5, (count, size))


def test_missing(monkeypatch):
    monkeypatch.setattr(auto_lirpa.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"needs auto_LiRPA 0\.7 or newer, which is not installed; install it"):
        require_auto_lirpa()
    with pytest.raises(UnsupportedError, match="leave out --engine"):
        bounds_of(dense((2, 3, 1)), *boxes(2), "auto-lirpa")


@pytest.mark.parametrize("version", ["0.3", "0.6.9", "0.3.1.post2"])
def test_too_old(monkeypatch, version):
    install(monkeypatch, version)
    with pytest.raises(UnsupportedError, match=rf"0\.7 or newer; version {version} is installed"):
        require_auto_lirpa()


@pytest.mark.parametrize("version", ["0.7", "0.7.1", "0.7rc1", "0.10.0", "1.0", "v0.8+cpu"])
def test_new_enough(monkeypatch, version):
    package = install(monkeypatch, version)
    assert require_auto_lirpa() is package


def test_a_version_that_only_the_installer_knows(monkeypatch):
    install(monkeypatch, None)
    monkeypatch.setattr(auto_lirpa.importlib.metadata, "version", lambda name: "0.3")
    with pytest.raises(UnsupportedError, match=r"version 0\.3"):
        require_auto_lirpa()


@pytest.mark.parametrize("batch", [1, 3])
def test_the_hand_over(monkeypatch, batch):
    """The region is the box in float32, the method passes through, and the answer comes back as arrays ``[B, m]``."""
    install(monkeypatch)
    graph = residual(1)
    lower, upper = boxes(3, batch)
    low, high = auto_lirpa_bounds(graph, lower, upper, "IBP")
    assert isinstance(low, np.ndarray)
    assert low.shape == high.shape == (batch, 2)
    ((module, tensor, method),) = BoundedModule.calls
    assert method == "IBP"
    assert tensor.region.norm == float("inf")
    np.testing.assert_array_equal(tensor.region.x_L.numpy(), lower.astype(np.float32))
    np.testing.assert_array_equal(tensor.region.x_U.numpy(), upper.astype(np.float32))
    assert ((tensor.value >= tensor.region.x_L) & (tensor.value <= tensor.region.x_U)).all()
    assert module.example.shape == (1, 3)
    ours = bounds_of(graph, lower, upper, "crown")
    assert (low >= ours.lower - 1e-4).all()
    assert (high <= ours.upper + 1e-4).all()
    whole = bounds_of(graph, lower, upper, "auto-lirpa")
    np.testing.assert_array_equal(whole.lower, low)
    np.testing.assert_array_equal(whole.upper, high)
    assert whole.unstable == ()


def test_the_module_computes_the_graph():
    for graph in (
        dense((3, 5, 2)),
        residual(),
        dense((3, 5, 2), activation="Sigmoid"),
        dense((2, 4, 2), activation="Sin"),
    ):
        assert_same_function(graph)


@pytest.mark.parametrize("name", NETS)
def test_the_module_computes_the_reference_networks(name):
    """Each one is handed over faithfully, or refused with the list of all operators that have no such form."""
    graph = flatten(load(shared_dir() / "reference" / "nets" / f"{name}.onnx").graph)
    missing = sorted({node.op for node in graph.nodes} - {"Input"} - set(auto_lirpa._functions()))
    if missing:
        with pytest.raises(UnsupportedError, match=f": {', '.join(missing)};"):
            torch_module(graph)
        assert name in ("attention", "conv_maxpool", "expdiv", "gelu")
    else:
        assert_same_function(graph)


def assert_same_function(graph):
    points = np.random.default_rng(1).uniform(-1, 1, (6, graph.nodes[graph.inputs[0]].size)).astype(np.float32)
    with torch.no_grad():
        values = torch_module(graph)(torch.as_tensor(points)).numpy().reshape(6, -1)
    np.testing.assert_allclose(values, output_vector(graph, points), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slope", [np.array(0.1), np.array([0.1, 0.5, -0.2])])
def test_slopes_by_channel(slope):
    """A parametric ReLU has one slope an entry; all of them are handed over."""
    nodes = (node("x", "Input", (), (3,)), node("y", "LeakyRelu", (0,), (3,), {"slope": slope}))
    assert_same_function(Graph(nodes, (0,), (1,)))


def test_unsupported_operators_are_listed_at_once():
    nodes = (
        node("x", "Input", (), (3,)),
        node("f", "Floor", (0,), (3,)),
        node("r", "Relu", (1,), (3,)),
        node("s", "Softplus", (2,), (3,)),
    )
    with pytest.raises(UnsupportedError, match=r"does not take these operators: Floor, Softplus; leave out --engine"):
        torch_module(Graph(nodes, (0,), (3,)))
    with pytest.raises(UnsupportedError, match="Max, Take"):
        torch_module(pooled())


def test_asymmetric_padding_is_refused():
    nodes = (
        node("x", "Input", (), (1, 1, 4, 4)),
        node(
            "y", "Conv", (0,), (1, 1, 4, 4), {"weight": np.ones((1, 1, 2, 2))},
            strides=(1, 1), pads=(1, 1, 0, 0), dilations=(1, 1), groups=1,
        ),
    )  # fmt: skip
    module = torch_module(Graph(nodes, (0,), (1,)))
    with pytest.raises(UnsupportedError, match=r"symmetric two-dimensional convolutions only \(y\)"):
        module(torch.zeros(1, 1, 4, 4))
