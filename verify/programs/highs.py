"""Running HiGHS: linear programmes in this process, mixed-integer ones in a child that dies at the deadline.

HiGHS looks at its time limit only now and then, and a branch-and-bound may hold gigabytes; so mixed-integer programmes
run in `highs_child`, which is killed when the deadline passes and ends by itself when this process does.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..budget import Deadline
    from .program import Program

TOLERANCE = 1e-9
"""Feasibility, integrality and optimality tolerance asked of HiGHS (its defaults are 1e-7 and 1e-6)."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What HiGHS said.

    status      optimal; infeasible; target (a point with an objective at most the target: not optimal); limit (time
                or memory ran out); failed (see `message`).
    objective   the objective at `values`; dual_bound  a lower bound of the optimum up to tolerances (``inf`` when
                infeasible, ``-inf`` when there is none).
    values      ``[columns]`` or None;  row_duals  ``[rows]`` (linear programmes) or None.
    nodes       nodes of the branch-and-bound.
    """

    status: str
    objective: float = np.inf
    dual_bound: float = -np.inf
    values: np.ndarray | None = None
    row_duals: np.ndarray | None = None
    nodes: int = 0
    message: str = ""


def solve_linear(program: Program, deadline: Deadline) -> Solution:
    """Solve a linear programme in this process with one thread."""
    return run_highs(program, seconds=deadline.remaining, threads=1, target=-np.inf)


def solve_integer(
    program: Program,
    deadline: Deadline,
    *,
    threads: int = 1,
    target: float = -np.inf,
    memory: int | None = None,
    presolve: bool = True,
) -> Solution:
    """Solve a mixed-integer programme in a child process, which never outlives the deadline or this process.

    target    stop at the first point with an objective at most this;  memory  bytes the child may allocate.
    presolve  simplify the programme first. That is faster, and called programmes infeasible that have points (HiGHS
              1.16: a row of 2,800 with a column between -4e-8 and 6e-6).
    """
    if deadline.passed:
        return Solution("limit", message="the deadline has passed")
    arrays = {field.name: getattr(program, field.name) for field in fields(program)}
    request = pickle.dumps((arrays, max(0.0, deadline.remaining), threads, target, memory, presolve))
    answer, code = _converse(request, deadline)
    if answer is None:
        return Solution("limit", message="HiGHS was stopped at the deadline")
    try:
        result = pickle.loads(answer)
    except (EOFError, pickle.UnpicklingError):
        return Solution("failed", message=f"HiGHS's process ended without an answer (exit code {code})")
    return result if isinstance(result, Solution) else Solution("failed", message="HiGHS's process gave no answer")


def _converse(request: bytes, deadline: Deadline) -> tuple[bytes | None, int | None]:
    """Send the request to a new child; its answer and exit code, or None where the deadline passed first.

    The child's input stays open while it works: its end tells the child that nobody waits any more.
    """
    command = [sys.executable, "-m", f"{__package__}.highs_child"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    received: list[bytes] = []

    def exchange() -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(len(request).to_bytes(8, "little") + request)
            child.stdin.flush()
            received.append(child.stdout.read())
        except (OSError, ValueError):
            received.append(b"")

    talk = threading.Thread(target=exchange, daemon=True)
    try:
        talk.start()
        talk.join(max(0.0, min(deadline.remaining, threading.TIMEOUT_MAX)))
    finally:
        late = talk.is_alive()
        child.kill()
        code = child.wait()
        talk.join()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                _close(pipe)
    return (None if late else received[0]), code


def _close(pipe: Any) -> None:
    """Close a pipe whose other end may be gone."""
    try:
        pipe.close()
    except OSError:
        return


def run_highs(program: Program, *, seconds: float, threads: int, target: float, presolve: bool = True) -> Solution:
    """Solve a programme here and now, with a time limit in seconds."""
    try:
        import highspy
    except ImportError:
        return Solution("failed", message="highspy is not installed; install it with `pip install highspy`")
    # HiGHS itself takes coefficients that are not numbers, and answers "optimal".
    if not _is_sound(program):
        return Solution("failed", message="the programme has coefficients or bounds that are not numbers")
    solver = _quiet_solver(highspy)
    integer = bool(program.integer.any())
    options: dict[str, Any] = {
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
        "threads": threads,
        "time_limit": min(max(seconds, 0.0), 1e9),
        "random_seed": 0,
        "presolve": "choose" if presolve else "off",
    }
    if integer:
        options |= {
            "mip_feasibility_tolerance": TOLERANCE,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": TOLERANCE,
            "objective_target": target,
        }
    for name, value in options.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            return Solution("failed", message=f"HiGHS refused the option {name}")
    if solver.passModel(_highs_model(program, highspy)) == highspy.HighsStatus.kError:
        return Solution("failed", message="HiGHS refused the programme")
    solver.run()
    return _read(solver, highspy, integer)


def _quiet_solver(highspy: Any) -> Any:
    """A solver that prints nothing, also while it is made.

    From 1.16 on, `highspy.Highs` prints a banner when it is made, before it can be told not to; the compiled class that
    it extends by modelling aids does not, and has all that is needed here.
    """
    compiled = highspy.Highs.__base__
    solver = compiled() if hasattr(compiled, "passModel") else highspy.Highs()
    solver.setOptionValue("output_flag", False)
    return solver


def _is_sound(program: Program) -> bool:
    """Whether all coefficients are finite and no bound is NaN."""
    ends = (program.column_lower, program.column_upper, program.row_lower, program.row_upper)
    finite = np.isfinite(program.values).all() and np.isfinite(program.cost).all()
    return bool(finite) and not any(np.isnan(end).any() for end in ends)


def _highs_model(program: Program, highspy: Any) -> Any:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.cost), len(program.row_lower)
    model.col_cost_ = program.cost
    model.col_lower_, model.col_upper_ = program.column_lower, program.column_upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_, model.a_matrix_.index_ = program.starts, program.indices
    model.a_matrix_.value_ = program.values
    if program.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[int(whole)] for whole in program.integer]
    return model


def _read(solver: Any, highspy: Any, integer: bool) -> Solution:
    """The solver's state as a `Solution`."""
    known = highspy.HighsModelStatus
    names = {
        known.kOptimal: "optimal",
        known.kInfeasible: "infeasible",
        known.kObjectiveTarget: "target",
        known.kTimeLimit: "limit",
        known.kMemoryLimit: "limit",
        known.kInterrupt: "limit",
    }
    status = solver.getModelStatus()
    name = names.get(status, "failed")
    message = solver.modelStatusToString(status)
    if name == "failed":
        return Solution(name, message=f"HiGHS ended with status {message}")
    info, point = solver.getInfo(), solver.getSolution()
    nodes = max(0, int(info.mip_node_count)) if integer else 0
    if name == "infeasible":
        return Solution(name, dual_bound=np.inf, nodes=nodes, message=message)
    values = np.asarray(point.col_value, dtype=np.float64) if point.value_valid else None
    duals = np.asarray(point.row_dual, dtype=np.float64) if point.dual_valid and not integer else None
    if not all(np.isfinite(part).all() for part in (values, duals) if part is not None):
        return Solution("failed", message="HiGHS's answer holds values that are not finite")
    objective = float(info.objective_function_value) if values is not None else np.inf
    if integer:
        return Solution(name, objective, float(info.mip_dual_bound), values, None, nodes, message)
    return Solution(name, objective, objective if name == "optimal" else -np.inf, values, duals, 0, message)
