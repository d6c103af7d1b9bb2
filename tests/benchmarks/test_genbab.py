"""The benchmark of smooth networks: trained, calibrated and run on made-up images, and what its methods prove."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.scripts import scripts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

MODULES = ("models", "train", "methods", "calibrate", "run")
NETWORK = "tanh_4x100"


@pytest.fixture(scope="module")
def genbab() -> Iterator[SimpleNamespace]:
    with scripts("genbab", MODULES) as modules:
        yield modules


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of ten random patterns with noise, as an MNIST file."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (10, 28, 28))
    parts = {}
    for part, count in (("train", 1000), ("test", 60)):
        labels = rng.integers(0, 10, count)
        noisy = patterns[labels] + rng.normal(scale=60, size=(count, 28, 28))
        parts |= {f"{part}_x": noisy.clip(0, 255).astype(np.uint8), f"{part}_y": labels.astype(np.uint8)}
    path = tmp_path_factory.mktemp("data") / "mnist.npz"
    np.savez(path, **parts)
    return path


def test_networks_are_trained_calibrated_and_compared(genbab, data, tmp_path, monkeypatch, capsys):
    nets, results = tmp_path / "nets", tmp_path / "results.csv"

    def call(module, *options):
        monkeypatch.setattr(sys, "argv", [module.__name__, "--data", str(data), *map(str, options)])
        module.main()

    monkeypatch.setattr(genbab.calibrate, "HALVINGS", 2)
    call(genbab.train, "--out", nets, "--epochs", 2, NETWORK)
    call(genbab.calibrate, "--nets", nets, "--count", 2, "--trial", 1)
    with (nets / "instances.csv").open(newline="") as file:
        instances = list(csv.DictReader(file))
    assert [row["network"] for row in instances] == [NETWORK] * 2
    options = ("--nets", nets, "--results", results, "--timeout", 0.5)
    call(genbab.run, *options, "--instances", 1)
    table = capsys.readouterr().out
    assert f"| {NETWORK} | 1 |" in table
    assert "| all | 1 |" in table

    found = genbab.run.read(results)
    assert {(row["image"], row["method"]) for row in found} == {
        (row["image"], method) for row in instances[:1] for method in genbab.methods.METHODS
    }
    proved = {
        method: {row["image"] for row in found if row["method"] == method and row["status"] == "proved"}
        for method in genbab.methods.METHODS
    }
    assert proved["ibp"] <= proved["crown"] <= proved["alpha-crown"]
    assert all(proved["crown"] <= proved[method] for method in genbab.methods.SEARCHES)

    call(genbab.run, *options, "--instances", 2, "--methods", "crown", "genbab")
    again = genbab.run.read(results)
    assert again[: len(found)] == found
    assert len(again) == len(found) + 2
    assert f"| {NETWORK} | 2 |" in capsys.readouterr().out


def test_a_witness_is_one_and_what_is_proved_has_none(genbab, data, tmp_path):
    """At a small radius everything is proved, at the largest an attack succeeds, and no search then says proved."""
    x, y = genbab.train.images(data, "train")
    network = genbab.train.train(NETWORK, torch.from_numpy(x), torch.from_numpy(y), 1, 0.05)
    genbab.train.write(network, tmp_path / "net.onnx")
    task = genbab.methods.Task(genbab.run.load(tmp_path / "net.onnx").graph)
    right = int(np.nonzero(task.scores(x[:50]).argmax(axis=1) == y[:50])[0][0])
    image, label = x[right], int(y[right])
    assert task.decide("attack", image, label, 1.0, 5.0).status == "witness"
    for method in genbab.methods.METHODS:
        assert task.decide(method, image, label, 1e-6, 5.0).status == "proved", method
        assert task.decide(method, image, label, 1.0, 1.0).status != "proved", method
    with pytest.raises(ValueError, match="no method is called 'guess'"):
        task.decide("guess", image, label, 0.1, 1.0)
