"""What the Python functions take, and what they say of the rest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from boundsmith.specs.errors import BoundsmithError
from boundsmith.specs.property import Box
from boundsmith.verify import Options, bounds, load, verify
from boundsmith.verify.errors import ArgumentError

from tests.onnx_files import random_layers, save_dense
from tests.queries import query_of


@pytest.fixture
def net(tmp_path):
    """Three inputs, two outputs."""
    return load(save_dense(tmp_path / "net.onnx", random_layers((3, 6, 2), 0)))


@pytest.fixture
def square(tmp_path):
    """Five inputs."""
    return load(save_dense(tmp_path / "net.onnx", random_layers((5, 6, 2), 0)))


QUERY = query_of(3, 2, [(Box(np.zeros(3), np.ones(3)), [[1.0, 0.0]], [-100.0])])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"method": "activation_split"},
            r"unknown method 'activation_split'; did you mean activation-split\? choose one",
        ),
        ({"method": "crown"}, "unknown method 'crown'; choose one of auto, attack, bounds"),
        ({"method": "MILP"}, r"did you mean milp\?"),
        ({"method": None}, "unknown method None"),
        ({"device": "gpu"}, r"unknown device 'gpu'; did you mean cuda\? choose one of auto, cpu, cuda"),
        ({"dtype": "float16"}, "choose one of float32, float64"),
        ({"dtype": "bfloat16"}, "choose one of float32, float64"),
        ({"dtype": np.float32}, "choose one of float32, float64"),
        ({"timeout": -1.0}, "timeout must be a number of at least 0, not -1.0"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"timeout": "5"}, "timeout must be"),
        ({"memory": 0}, "memory must be a whole number of at least 1"),
        ({"memory": 1e9}, "memory must be a whole number"),
        ({"threads": 0}, "threads must be"),
        ({"threads": 1.5}, "threads must be"),
        ({"seed": -1}, "seed must be"),
        ({"attack": "no"}, "attack must be True or False"),
    ],
)
def test_options_that_are_none(values, message):
    with pytest.raises(ArgumentError, match=message):
        Options(**values)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Options(), **values)


def test_the_timeout_of_the_options_counts(net, monkeypatch):
    seen = []

    def decide(property, networks, options, deadline):
        seen.append((options.timeout, deadline.remaining))

    monkeypatch.setattr("boundsmith.verify.api.verify_property", decide)
    verify(net, QUERY, options=Options(timeout=5))
    verify(net, QUERY, 7, Options(timeout=5))
    verify(net, QUERY, timeout=8.0)
    verify(net, QUERY)
    assert [timeout for timeout, _ in seen] == [5, 7, 8.0, 116.0]
    assert all(timeout - 1 < remaining <= timeout for timeout, remaining in seen)


@pytest.mark.parametrize(
    ("given", "query", "message"),
    [
        (torch.nn.Linear(3, 2), QUERY, r"not a Linear; load it first: load\(path\), or load\(module, example_input\)"),
        ({"f": torch.nn.Linear(3, 2)}, QUERY, "load it first"),
        ("net.onnx", QUERY, "not a str; load it first"),
        (None, 5, "load it first"),
    ],
)
def test_what_verify_does_not_take(given, query, message):
    with pytest.raises(ArgumentError, match=message):
        verify(given, query)


def test_other_arguments_of_verify(net):
    with pytest.raises(ArgumentError, match="the path of a query, or a Property, not a int"):
        verify(net, 5)
    with pytest.raises(ArgumentError, match="options must be Options"):
        verify(net, QUERY, 5, {"method": "auto"})
    with pytest.raises(ArgumentError, match="timeout must be"):
        verify(net, QUERY, float("nan"))


def test_a_module_must_be_loaded_before_it_is_bounded():
    with pytest.raises(ArgumentError, match=r"not a Sequential; load it first"):
        bounds(torch.nn.Sequential(), np.zeros((1, 3)), 0.1)


POINTS = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)


def same(made, expected):
    for a, b in zip(made, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["ibp", "crown"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_spellings_of_the_same_boxes(net, method, as_tensor):
    convert = torch.from_numpy if as_tensor else np.asarray
    radii = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32)
    wide = np.repeat(radii[:, None], 3, axis=1)
    expected = bounds(net, convert(POINTS), convert(wide), method)
    for radius in (radii, radii.tolist(), tuple(radii), radii[:, None], radii.astype(np.float64), torch.tensor(radii)):
        same(bounds(net, convert(POINTS), radius, method), expected)
    for k in range(5):
        single = [end[k : k + 1] for end in expected]
        for radius in (float(radii[k]), radii[k], np.float64(radii[k]), torch.tensor(radii[k]), radii[k : k + 1]):
            same(bounds(net, convert(POINTS[k]), radius, method), single)
    per_input = np.array([0.1, 0.0, 0.3], np.float32)
    expected = bounds(net, convert(POINTS), convert(np.tile(per_input, (5, 1))), method)
    same(bounds(net, convert(POINTS), per_input, method), expected)
    same(bounds(net, POINTS.tolist(), per_input.tolist(), method), expected)


def test_whole_numbers_and_lists_are_taken_in_the_networks_type(net, tmp_path):
    expected = bounds(net, np.ones((1, 3), np.float32), 1.0)
    for center in ([1, 1, 1], [[1.0, 1.0, 1.0]], np.ones(3, int), torch.ones(3, dtype=torch.int64), np.ones(3, bool)):
        made = bounds(net, center, 1)
        assert str(made[0].dtype).endswith("float32")
        same(made, expected)
    double = load(save_dense(tmp_path / "d.onnx", random_layers((3, 6, 2), 0, np.float64)))
    assert bounds(double, [1, 1, 1], 1)[0].dtype == np.float64


def test_a_radius_of_torch_makes_the_bounds_torch(net):
    radius = torch.tensor(0.1, requires_grad=True)
    _, upper = bounds(net, POINTS, radius)
    upper.sum().backward()
    assert radius.grad is not None


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("center", "radius", "message"),
    [
        (POINTS, -0.1, "the radius must be finite and not negative; it has -0.1"),
        (POINTS, np.nan, "it has nan"),
        (POINTS, np.inf, "it has inf"),
        (POINTS, np.array([0.1, 0.1, -0.1, 0.1, 0.1]), "it has -0.1"),
        (np.full((1, 3), np.nan, np.float32), 0.1, "the centre must be finite numbers; it has nan"),
        (np.full((1, 3), np.inf, np.float32), 0.1, "it has inf"),
        (POINTS, np.full(4, 0.1), r"shape \[4\] does not fit centres of shape \[5, 3\]; give a number, or the shape"),
        (POINTS, np.full((3, 5), 0.1), "does not fit"),
        (POINTS[:3], np.full(3, 0.1), r"may mean one a point or one an input .* \[3, 1\] .* \[1, 3\]"),
        (POINTS.T, 0.1, r"the centre has shape \[3, 5\].* takes 3 values a point"),
        (POINTS[:, :2], 0.1, "takes 3 values a point"),
        (POINTS[:0], 0.1, "takes 3 values a point"),
        (POINTS.astype(np.float16), 0.1, "the centre has element type float16; give float32 or float64"),
        (POINTS, np.full((5, 3), 0.1, np.float16), "the radius has element type float16"),
        (POINTS.astype(np.complex64), 0.1, "the centre has element type complex64"),
    ],
)
def test_boxes_that_are_none(net, as_tensor, center, radius, message):
    if as_tensor:
        center, radius = torch.tensor(center), torch.tensor(radius) if isinstance(radius, np.ndarray) else radius
    with pytest.raises(BoundsmithError, match=message):
        bounds(net, center, radius)


@pytest.mark.parametrize(
    ("center", "radius"), [("x", 0.1), (POINTS, "0.1"), (None, 0.1), (POINTS, None), ([[1], [2, 3]], 1)]
)
def test_what_is_no_array_of_numbers(net, center, radius):
    with pytest.raises(ArgumentError, match=r"^the (centre|radius) "):
        bounds(net, center, radius)


def test_images_with_a_radius_a_channel(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(32, 2))
    net = load(module, torch.zeros(1, 3, 6, 6))
    images = np.random.default_rng(0).random((4, 3, 6, 6)).astype(np.float32)
    channels = np.array([0.1, 0.0, 0.2], np.float32)
    expected = bounds(net, images, np.broadcast_to(channels[:, None, None], images.shape))
    same(bounds(net, images, channels[:, None, None]), expected)
    each = np.array([0.0, 0.1, 0.2, 0.3], np.float32)
    expected = bounds(net, images, np.broadcast_to(each[:, None, None, None], images.shape))
    same(bounds(net, images, each), expected)
    for wrong in (np.zeros(6), np.zeros(3), np.zeros((6, 6))):
        with pytest.raises(ArgumentError, match="does not fit"):
            bounds(net, images, wrong)
    with pytest.raises(ArgumentError, match="may mean"):
        bounds(net, images[:3], channels[:, None, None])


def test_unknown_bounding_methods(net):
    with pytest.raises(ArgumentError, match=r"unknown method 'CROWN'; did you mean crown\? choose one of ibp"):
        bounds(net, POINTS, 0.1, "CROWN")


def test_images_as_wide_as_there_are_of_them(square):
    """The radius of one point must not become that of one column."""
    points = np.zeros((5, 5), np.float32)
    with pytest.raises(ArgumentError, match="may mean"):
        bounds(square, points, np.linspace(0, 0.1, 5))
    lower, upper = bounds(square, points, np.linspace(0, 0.1, 5)[:, None])
    assert (upper - lower)[0].max() < 1e-4
