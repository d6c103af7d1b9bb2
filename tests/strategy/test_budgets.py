"""Time and memory: a passed deadline is `timed-out` whatever the method, and little memory changes no answer."""

from __future__ import annotations

import time

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify.api import verify
from boundsmith.verify.budget import Deadline, MemoryBudget, TimeUp, process_start
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options
from boundsmith.verify.result import Verdict
from boundsmith.verify.strategy import verify_property

from tests.onnx_files import forward, random_layers, save_dense
from tests.queries import query_of

SANE = 8.0
"""Seconds that no run with a timeout of at most one second may take, however busy the machine is."""


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """A network of 12 inputs and a property a little below what sampling reaches: many seconds for any method here."""
    layers = random_layers((12, 60, 60, 60, 1), 3, scale=1.8)
    box = Box(-np.ones(12), np.ones(12))
    reached = forward(layers, np.random.default_rng(0).uniform(-1, 1, (4000, 12))).min()
    network = load(save_dense(tmp_path_factory.mktemp("hard") / "net.onnx", layers))
    return network, query_of(12, 1, [(box, [[1.0]], [float(reached) - 12.0])])


@pytest.mark.parametrize("method", ["auto", "attack", "input-split", "activation-split"])
@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.0])
def test_a_hard_instance_times_out(hard, method, seconds):
    network, property = hard
    asked = []

    def clock():
        asked.append(time.monotonic())
        return asked[-1]

    deadline = Deadline.after(seconds, clock=clock)
    result = verify_property(property, {"N": network}, Options(method=method, threads=1), deadline)
    assert result.verdict is Verdict.TIMEOUT
    assert result.witness is None
    assert len(asked) > (20 if seconds == 1.0 else 0)
    assert time.monotonic() - deadline.at < SANE


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.0])
def test_mixed_integer_programming_times_out(hard, seconds):
    """The child process is waited for, not asked: the deadline alone is counted."""
    network, property = hard
    deadline = Deadline.after(seconds)
    result = verify_property(property, {"N": network}, Options(method="milp", threads=1), deadline)
    assert result.verdict is Verdict.TIMEOUT
    assert time.monotonic() - deadline.at < SANE


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "activation-split", "milp"])
def test_five_seconds_are_obeyed(hard, method):
    network, property = hard
    deadline = Deadline.after(5.0)
    result = verify_property(property, {"N": network}, Options(method=method, threads=1), deadline)
    assert result.verdict is Verdict.TIMEOUT
    assert time.monotonic() - deadline.at < SANE


@pytest.mark.parametrize("memory", [1 << 12, 1 << 16, 1 << 30])
@pytest.mark.parametrize("gap", [-0.3, 0.02])
def test_little_memory_while_activations_are_split(tmp_path, memory, gap):
    layers = random_layers((4, 12, 12, 3), 2)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 4))
    row = np.array([1.0, -1.0, 0.5])
    least = float((forward(layers, points) @ row).min())
    property = query_of(4, 3, [(Box(-np.ones(4), np.ones(4)), [row], [least + gap])])
    result = verify(network, property, 60, Options(memory=memory, attack=False, method="activation-split", threads=1))
    assert result.verdict is (Verdict.SAT if gap > 0 else Verdict.UNSAT)


@pytest.mark.parametrize("attack", [True, False])
def test_one_pass_with_no_time_left_times_out(hard, attack):
    network, property = hard
    result = verify(network, property, 0.0, Options(method="bounds", attack=attack, threads=1))
    assert result.verdict is Verdict.TIMEOUT


def test_a_passed_deadline_never_decides_an_easy_instance(hard):
    """Without time nothing is proven, and what the first points violate may be found or not."""
    network, property = hard
    far = query_of(12, 1, [(property.clauses[0].box, [[1.0]], [-1e6])])
    near = query_of(12, 1, [(property.clauses[0].box, [[1.0]], [1e6])])
    assert verify(network, far, 0.0, Options(threads=1)).verdict is Verdict.TIMEOUT
    assert verify(network, near, 0.0, Options(threads=1)).verdict in (Verdict.TIMEOUT, Verdict.SAT)
    assert verify(network, far, 20.0, Options(threads=1)).verdict is Verdict.UNSAT
    assert verify(network, near, 20.0, Options(threads=1)).verdict is Verdict.SAT


def test_the_refinement_of_one_batch_is_interrupted(tmp_path):
    """A single relaxation is long here (a thousand rows a layer): the deadline is asked inside it."""
    layers = random_layers((20, 500, 500, 500, 1), 1)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    property = query_of(20, 1, [(Box(-np.ones(20), np.ones(20)), [[1.0]], [-2.0])])
    deadline = Deadline.after(0.02)
    options = Options(method="input-split", attack=False, memory=1 << 22, threads=1)
    assert verify_property(property, {"N": network}, options, deadline).verdict is Verdict.TIMEOUT
    assert time.monotonic() - deadline.at < SANE


@pytest.mark.parametrize("memory", [1, 1 << 20, None])
@pytest.mark.parametrize("attack", [True, False])
@pytest.mark.parametrize("gap", [-0.05, 0.02])
def test_little_memory_gives_the_same_answers(tmp_path, memory, attack, gap):
    layers = random_layers((2, 40, 40, 3), 2)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    points = np.stack(np.meshgrid(*[np.linspace(-1, 1, 301)] * 2), axis=-1).reshape(-1, 2)
    row = np.array([1.0, -1.0, 0.5])
    least = float((forward(layers, points) @ row).min())
    property = query_of(2, 3, [(Box(-np.ones(2), np.ones(2)), [row], [least + gap])])
    result = verify(network, property, 60, Options(memory=memory, attack=attack, threads=1))
    assert result.verdict is (Verdict.SAT if gap > 0 else Verdict.UNSAT)


def test_deadlines():
    now = time.monotonic()
    deadline = Deadline.after(5, start=now)
    assert deadline.at == now + 5
    assert not deadline.passed
    deadline.check()
    assert deadline.sooner(100).at == deadline.at
    assert deadline.sooner(1).at < deadline.at
    gone = Deadline.after(-1)
    assert gone.passed
    assert gone.remaining < 0
    with pytest.raises(TimeUp):
        gone.check()


def test_a_deadline_on_another_clock():
    readings = iter([10.0, 11.0, 12.0, 15.5, 15.6])
    deadline = Deadline.after(5, clock=lambda: next(readings))
    assert deadline.remaining == 4.0
    assert deadline.sooner(1).at == 13.0
    assert deadline.sooner(9).passed


def test_a_process_starts_before_its_code_runs():
    assert process_start() < time.monotonic()
    assert process_start() > time.monotonic() - 24 * 3600


@pytest.mark.parametrize(
    ("have", "row", "most", "rows"), [(100, 10, 99, 10), (100, 10, 3, 3), (5, 10, 3, 1), (5, 0, 3, 3)]
)
def test_rows_that_fit(have, row, most, rows):
    assert MemoryBudget(have).rows(row, most) == rows


def test_the_default_memory_is_bounded():
    assert 256 << 20 <= MemoryBudget.default().bytes <= 1 << 30
