"""What a recorded search hands over is a proof: an independent float64 pass over every leaf confirms it."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify.api import verify
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options
from boundsmith.verify.result import Verdict

from tests.onnx_files import forward, random_layers, save_dense
from tests.queries import query_of

TOLERANCE = 5e-4


def unsafe_below(layers, centre, radius, share):
    """A query whose unsafe margin lies below the smallest one sampled, by a share of the range sampled."""
    rng = np.random.default_rng(0)
    low, high = centre - radius, centre + radius
    size = len(centre)
    points = rng.uniform(low, high, size=(20_000, size))
    points[:10_000] = np.where(rng.random((10_000, size)) < 0.5, low, high)
    values = forward(layers, points)
    margin = values[:, 0] - values[:, 1]
    offset = margin.min() - share * (margin.max() - margin.min())
    return low, high, np.array([[1.0, -1.0]]), np.array([offset])


class DenseProof:
    """An independent reading of a record about a dense ReLU network."""

    def __init__(self, layers, arrays):
        self.layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in layers]
        self.arrays = arrays
        nodes = sorted({int(key.split("/")[1]) for key in arrays if key.startswith("root/") and key.count("/") == 2})
        self.nodes = nodes[: len(layers) - 1]
        self.relus = [node + 1 for node in self.nodes]

    def root_bounds(self, kind="root"):
        """Bounds of the layers before their ReLU, ``[(low, high), ...]``."""
        return [
            tuple(self.arrays[f"{kind}/{node}/{end}"].reshape(-1).astype(np.float64) for end in ("lower", "upper"))
            for node in self.nodes
        ]

    def bound(self, a, constant, top, bounds, slopes, forces):
        """The bound of ``a h + constant`` for the input `h` of layer `top`: one backward pass."""
        for layer in range(top - 1, -1, -1):
            low, high = bounds[layer]
            undecided = (low < 0) & (high > 0)
            chord = np.where(undecided, high / np.where(undecided, high - low, 1), high > 0)
            below = np.where(undecided, np.clip(slopes[layer], 0, 1), high > 0)
            up, down = np.maximum(a, 0), np.minimum(a, 0)
            constant = constant + np.sum(np.where(undecided, -down * chord * low, 0))
            a = up * below + down * chord
            for entry, force in forces[layer]:
                a[entry] -= force
            weight, bias = self.layers[layer]
            a, constant = a @ weight, constant + a @ bias
        low, high = (self.arrays[f"root/{end}"].reshape(-1).astype(np.float64) for end in ("lower", "upper"))
        return np.minimum(a * low, a * high).sum() + constant

    def slopes(self, weights):
        """Slopes by layer of one leaf's row of stored weights."""
        found = [np.zeros(len(bias)) for _, bias in self.layers[:-1]]
        columns = (self.arrays[f"weights/{key}"] for key in ("node", "entry", "side"))
        for value, node, entry, side in zip(weights, *columns, strict=True):
            assert side == 0
            found[self.relus.index(node)][entry] = value
        return found

    def leaf_bound(self, number, rows, offsets):
        """The bound of one leaf from the root's bounds, its splits and its multipliers."""
        get = {key: self.arrays[f"leaves/{key}"][number] for key in ("slot", "sign", "point", "beta", "mixture")}
        assert (get["beta"] >= 0).all()
        assert (get["mixture"] >= 0).all()
        bounds = [(low.copy(), high.copy()) for low, high in self.root_bounds()]
        forces = [[] for _ in bounds]
        for slot, sign, point, beta in zip(*(get[key] for key in ("slot", "sign", "point", "beta")), strict=True):
            if slot < 0:
                continue
            assert point == 0
            layer = self.nodes.index(self.arrays["slots/node"][slot])
            entry = self.arrays["slots/entry"][slot]
            low, high = bounds[layer]
            if sign > 0:
                low[entry] = max(low[entry], 0)
            else:
                high[entry] = min(high[entry], 0)
            forces[layer].append((entry, beta * sign))
        mixed = get["mixture"] @ rows
        weight, bias = self.layers[-1]
        constant = mixed @ bias - get["mixture"] @ offsets
        slopes = self.slopes(self.arrays["leaves/weights"][number])
        return self.bound(mixed @ weight, constant, len(self.layers) - 1, bounds, slopes, forces)


def covers(splits):
    """Whether the leaves' lists of (slot, point, sign) are exactly those of a binary tree."""
    if any(not own for own in splits):
        return len(splits) == 1
    if len({own[0][:2] for own in splits}) != 1:
        return False
    halves = [[own[1:] for own in splits if own[0][2] == sign] for sign in (-1, 1)]
    return all(half and covers(half) for half in halves)


@pytest.mark.parametrize("seed", range(6))
def test_every_leaf_of_a_recorded_search_is_confirmed(tmp_path, seed):
    layers = random_layers((6, 12, 10, 2), seed, scale=1.6)
    low, high, rows, offsets = unsafe_below(layers, np.zeros(6), 0.6, 0.1)
    query = query_of(6, 2, [(Box(low, high), rows, offsets)])
    network = load(save_dense(tmp_path / "net.onnx", layers))
    result = verify(network, query, 60, Options(method="activation-split", record=True))
    assert result.verdict is Verdict.UNSAT
    arrays = result.record.arrays()
    proof = DenseProof(layers, arrays)
    splits = []
    for number, bound in enumerate(arrays["leaves/bound"].astype(float)):
        again = proof.leaf_bound(number, rows, offsets)
        assert again > 0
        assert again == pytest.approx(bound, abs=TOLERANCE * (1 + abs(bound)))
        columns = [arrays[f"leaves/{key}"][number] for key in ("slot", "point", "sign")]
        splits.append([own for own in zip(*columns, strict=True) if own[0] >= 0])
    programmes = {key.split("/")[1] for key in arrays if key.startswith("programmes/")}
    for number in programmes:
        columns = [arrays[f"programmes/{number}/{key}"][0] for key in ("slot", "point", "sign")]
        splits.append([own for own in zip(*columns, strict=True) if own[0] >= 0])
    assert covers(splits)
    assert len(splits) > 1


def test_optimised_bounds_of_the_root_follow_from_what_was_recorded(tmp_path):
    layers = random_layers((6, 12, 10, 2), 3, scale=1.6)
    low, high, rows, offsets = unsafe_below(layers, np.zeros(6), 0.6, 0.1)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    query = query_of(6, 2, [(Box(low, high), rows, offsets)])
    arrays = verify(network, query, 60, Options(method="activation-split", record=True)).record.arrays()
    proof = DenseProof(layers, arrays)
    known, root = proof.root_bounds("crown"), proof.root_bounds()
    node, entries = int(arrays["entries/0/node"]), arrays["entries/0/entry"]
    layer = proof.nodes.index(node)
    weight, bias = proof.layers[layer]
    improved = 0
    for half, sign in enumerate((1, -1)):
        for place, entry in enumerate(entries):
            slopes = [arrays[f"entries/0/lines/{relu}/0"][half * len(entries) + place] for relu in proof.relus[:layer]]
            bound = proof.bound(sign * weight[entry], sign * bias[entry], layer, root, slopes, [()] * layer)
            found = sign * root[layer][half][entry]
            assert found <= max(bound, sign * known[layer][half][entry]) + TOLERANCE
            improved += bound > sign * known[layer][half][entry] + TOLERANCE
    assert improved


def test_recorded_boxes_cover_the_region_and_are_safe(tmp_path):
    layers = random_layers((3, 12, 10, 2), 1, scale=1.6)
    low, high, rows, offsets = unsafe_below(layers, np.zeros(3), 0.8, 0.1)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    query = query_of(3, 2, [(Box(low, high), rows, offsets)])
    result = verify(network, query, 60, Options(method="input-split", record=True))
    assert result.verdict is Verdict.UNSAT
    arrays = result.record.arrays()
    lower, upper = arrays["boxes/lower"], arrays["boxes/upper"]
    assert len(lower) > 1
    volume = np.prod(upper - lower, axis=1).sum()
    assert volume == pytest.approx(np.prod(high - low), rel=1e-5)
    rng = np.random.default_rng(5)
    points = rng.uniform(low, high, size=(500, 3))
    inside = (points[:, None] >= lower - 1e-6) & (points[:, None] <= upper + 1e-6)
    assert inside.all(axis=2).any(axis=1).all()


def test_nothing_is_recorded_unless_asked_for(tmp_path):
    layers = random_layers((3, 8, 2), 1)
    low, high, rows, offsets = unsafe_below(layers, np.zeros(3), 0.4, 0.05)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    query = query_of(3, 2, [(Box(low, high), rows, offsets)])
    assert verify(network, query, 60).record is None
