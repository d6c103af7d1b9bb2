"""HiGHS in this process and in a child: answers, deadlines, and a child that never outlives its purpose."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.programs import highs
from boundsmith.verify.programs.highs import Solution, solve_integer, solve_linear
from boundsmith.verify.programs.program import Program, ProgramBuilder

CHILD = [sys.executable, "-m", "boundsmith.verify.programs.highs_child"]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")


def knapsack(sizes, total):
    """As few as possible of the items so that the sizes sum to the total."""
    build = ProgramBuilder()
    items = build.add_columns(np.zeros(len(sizes)), np.ones(len(sizes)), cost=1.0, integer=True)
    row = build.add_rows(float(total), float(total), 1)
    build.add_terms(np.repeat(row, len(sizes)), items, np.asarray(sizes, dtype=float))
    return build.finish()


def market_split(rows=6, seed=0):
    """Hard for branch-and-bound on purpose (Cornuejols & Dawande 1998): no solver finishes it in a test's time."""
    rng = np.random.default_rng(seed)
    count = 10 * (rows - 1)
    sizes = rng.integers(0, 100, size=(rows, count)).astype(float)
    build = ProgramBuilder()
    items = build.add_columns(np.zeros(count), np.ones(count), integer=True)
    over = build.add_columns(np.zeros(rows), np.full(rows, np.inf), cost=1.0)
    under = build.add_columns(np.zeros(rows), np.full(rows, np.inf), cost=1.0)
    half = np.floor(sizes.sum(axis=1) / 2)
    lines = build.add_rows(half, half, rows)
    build.add_terms(np.repeat(lines, count), np.tile(items, rows), sizes.reshape(-1))
    build.add_terms(lines, over, 1.0)
    build.add_terms(lines, under, -1.0)
    return build.finish()


def request(program, seconds):
    arrays = {field.name: getattr(program, field.name) for field in fields(program)}
    body = pickle.dumps((arrays, seconds, 1, -np.inf, None, True))
    return len(body).to_bytes(8, "little") + body


def test_the_child_and_this_process_agree():
    program = knapsack([3, 5, 7, 11, 13], 24)
    here = highs.run_highs(program, seconds=10.0, threads=1, target=-np.inf)
    there = solve_integer(program, Deadline.after(60.0))
    assert (here.status, there.status) == ("optimal", "optimal")
    assert here.objective == there.objective == there.dual_bound == 2.0
    assert there.values @ np.array([3, 5, 7, 11, 13]) == pytest.approx(24.0)


def test_infeasible_programmes_have_an_infinite_bound():
    answer = solve_integer(knapsack([4, 6, 8], 7), Deadline.after(60.0))
    assert (answer.status, answer.dual_bound, answer.values) == ("infeasible", np.inf, None)


def test_a_target_stops_the_search():
    answer = solve_integer(market_split(2), Deadline.after(60.0), target=1e6)
    assert answer.status in ("target", "optimal")
    assert answer.objective <= 1e6


def test_row_duals_price_the_rows():
    build = ProgramBuilder()
    x = build.add_columns(np.zeros(2), np.full(2, 5.0), cost=1.0)
    row = build.add_rows(3.0, np.inf, 1)
    build.add_terms(np.repeat(row, 2), x, np.array([1.0, 2.0]))
    answer = solve_linear(build.finish(), NEVER)
    assert answer.objective == pytest.approx(1.5)
    assert answer.row_duals == pytest.approx([0.5])


def test_elastic_counts_violations():
    build = ProgramBuilder()
    x = build.add_columns(np.zeros(1), np.ones(1))
    row = build.add_rows(3.0, 3.0, 1)
    build.add_terms(row, x, 1.0)
    program = build.finish()
    assert solve_linear(program, NEVER).status == "infeasible"
    assert solve_linear(program.elastic(row), NEVER).objective == pytest.approx(2.0)


def test_the_solvers_own_limit_is_an_answer():
    answer = solve_integer(market_split(), Deadline.after(2.0))
    assert answer.status == "limit"
    assert answer.dual_bound <= answer.objective


def test_a_child_that_ignores_its_limit_is_killed():
    body = request(market_split(), 1e6)[8:]
    assert highs._converse(body, Deadline.after(1.5)) == (None, -signal.SIGKILL)


def test_a_passed_deadline_starts_nothing(monkeypatch):
    monkeypatch.setattr(highs.subprocess, "Popen", None)
    assert solve_integer(market_split(), Deadline.after(-1.0)).status == "limit"


@pytest.mark.parametrize("answer", [(b"", 1), (b"garbage", 0), (pickle.dumps("something else"), 0)])
def test_an_answer_that_makes_no_sense_is_a_failure(monkeypatch, answer):
    monkeypatch.setattr(highs, "_converse", lambda *_: answer)
    assert solve_integer(knapsack([1], 1), NEVER).status == "failed"


def test_a_child_that_cannot_run_is_a_failure(monkeypatch):
    monkeypatch.setattr(highs, "__package__", "boundsmith.nowhere")
    assert solve_integer(knapsack([1], 1), Deadline.after(60.0)).status == "failed"


def test_the_solver_prints_nothing(capfd):
    import ctypes

    assert solve_linear(knapsack([1], 1), NEVER).status == "optimal"
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


def test_without_highspy_nothing_is_claimed(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    answer = solve_linear(knapsack([1], 1), NEVER)
    assert answer.status == "failed"
    assert "highspy" in answer.message


def test_options_that_highs_refuses_are_a_failure(monkeypatch):
    monkeypatch.setattr(highs, "TOLERANCE", -1.0)
    assert solve_linear(knapsack([1], 1), NEVER).status == "failed"


def test_numbers_that_are_not_finite_are_a_failure():
    program = knapsack([np.nan, 1.0], 1)
    assert highs.run_highs(program, seconds=5.0, threads=1, target=-np.inf).status == "failed"


def test_the_child_ends_when_its_input_closes():
    with subprocess.Popen(CHILD, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        child.stdin.write(request(market_split(), 1e6))
        child.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(2.0)
        child.stdin.close()
        try:
            assert child.wait(30.0) == 1
        finally:
            child.kill()


def _children(parent):
    """Process ids whose parent is the given one."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:
                if int(stat.read().rsplit(")", 1)[1].split()[1]) == parent:
                    found.append(int(name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def _alive(process):
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


@LINUX
def test_a_parent_killed_outright_leaves_no_child():
    script = (
        "import pickle, sys\n"
        "from boundsmith.verify.budget import Deadline\n"
        "from boundsmith.verify.programs.highs import solve_integer\n"
        "solve_integer(pickle.load(sys.stdin.buffer), Deadline.after(600.0))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as parent:
        parent.stdin.write(pickle.dumps(market_split()))
        parent.stdin.close()
        children = []
        for _ in range(300):
            children = _children(parent.pid)
            if children:
                break
            time.sleep(0.1)
        time.sleep(1.0)
        parent.kill()
    assert children
    for _ in range(300):
        if not any(map(_alive, children)):
            break
        time.sleep(0.1)
    assert not any(map(_alive, children))


def test_a_child_short_of_memory_gives_no_answer():
    answer = solve_integer(market_split(), Deadline.after(20.0), memory=1 << 20)
    assert isinstance(answer, Solution)
    assert answer.status in ("failed", "limit")


def test_threads_may_solve_at_the_same_time():
    program = market_split(3)
    relaxed = replace(program, integer=np.zeros_like(program.integer))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: solve_linear(relaxed, NEVER), range(16)))
    assert {answer.status for answer in answers} == {"optimal"}
    assert np.ptp([answer.objective for answer in answers]) < 1e-6


def test_without_presolving_a_point_of_a_thin_programme_is_found():
    """(Presolving, HiGHS 1.16 calls this programme infeasible; it has points.)"""
    program = Program(
        cost=np.array([0.0, 0.0, 0.0, 1.0]),
        column_lower=np.array([3.9918968081474304e-01, -1.6154679656028748e-01, 1.0753060536016474e03, -4.447877e-08]),
        column_upper=np.array([3.9997535943984985e-01, -1.1433360725641251e-01, 1.0786872979110094e03, 6.0816824e-06]),
        row_lower=np.array([2.7966157226562500e03, 1.0027523520454884]),
        row_upper=np.array([2.7966157226562500e03, np.inf]),
        starts=np.array([0, 3, 5], np.int32),
        indices=np.array([1, 0, 2, 2, 3], np.int32),
        values=np.array([9.588846587575972e-04, 4.303539550781250e03, 1.0, 9.296043426729739e-04, 1.0]),
        integer=np.zeros(4, dtype=bool),
    )
    answer = solve_integer(program, Deadline.after(20.0), presolve=False)
    assert answer.status == "optimal"
    assert answer.objective < 0.0
