"""The example of power flow: its physics, and that what it proves is so."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from boundsmith.specs import read_property
from boundsmith.verify import Options, Verdict, load, verify

from tests.scripts import scripts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import SimpleNamespace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

MODULES = ("grid", "controller", "bisection", "run")
NAME = "three_tanh_8_20"
OPTIONS = "--grids three --activations tanh --width 8 --steps 150 --shares 0.2 --gap 0.05"


@pytest.fixture(scope="module")
def acopf() -> Iterator[SimpleNamespace]:
    with scripts("acopf", MODULES) as modules:
        yield modules


@pytest.fixture(scope="module")
def ran(acopf: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, str]:
    """The folder that a run with a hastily trained controller leaves, the bound it proved, and what it printed."""
    folder = tmp_path_factory.mktemp("nets")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        acopf.run.main(["--nets", str(folder), *OPTIONS.split()])
    return folder, proved_in(printed.getvalue()), printed.getvalue()


def proved_in(printed: str) -> float:
    """The bound in the last line of the table."""
    return float(printed.splitlines()[-1].split("|")[4])


def violation(acopf: SimpleNamespace, folder: Path) -> Any:
    """The network of the run, in float64."""
    network = acopf.controller.build(acopf.grid.THREE, "tanh", 8)
    network.load_state_dict(torch.load(folder / f"{NAME}.pt", weights_only=True))
    return network.double()


@pytest.mark.parametrize("name", ["THREE", "FIVE", "NINE"])
def test_a_dispatch_is_balanced_and_the_network_computes_the_same_balance(acopf: SimpleNamespace, name: str) -> None:
    grid = getattr(acopf.grid, name)
    state = acopf.grid.dispatch(grid, grid.nominal)
    assert np.abs(acopf.grid.imbalance(grid, state, grid.nominal)).max() < 1e-6
    voltages = state[: grid.buses]
    assert (voltages > grid.least_voltage - 1e-9).all()
    assert (voltages < grid.most_voltage + 1e-9).all()
    rng = np.random.default_rng(0)
    states = state + rng.normal(0, 0.3, (20, len(state)))
    loads = grid.nominal * rng.uniform(0, 2, (20, len(grid.nominal)))
    expected = [acopf.grid.imbalance(grid, *pair) for pair in zip(states, loads, strict=True)]
    balance = acopf.controller.Balance(grid).double()
    got = balance(torch.from_numpy(states), torch.from_numpy(loads)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_lower_voltages_cost_more(acopf: SimpleNamespace) -> None:
    grid = acopf.grid.THREE
    tighter = replace(grid, most_voltage=1.0)

    def cost(own: Any) -> float:
        power = acopf.grid.dispatch(own, grid.nominal)[2 * grid.buses - 1 :]
        return sum(one.linear * p + one.quadratic * p * p for one, p in zip(grid.generators, power, strict=False))

    assert cost(grid) < cost(tighter) - 1e-3


def test_the_proved_bound_holds_on_dense_samples_and_is_near_them(
    acopf: SimpleNamespace, ran: tuple[Path, float, str]
) -> None:
    folder, proved, _ = ran
    middle, reach = acopf.controller.load_box(acopf.grid.THREE, 0.2)
    network = violation(acopf, folder)
    axis = np.linspace(-1, 1, 11)
    grid = np.stack(np.meshgrid(*[axis] * len(middle)), axis=-1).reshape(-1, len(middle))
    with torch.no_grad():
        worst = float(network(torch.from_numpy(middle + reach * grid))[:, :6].abs().max())
    assert worst <= proved
    attacked = acopf.bisection.largest_violation(network, 6, middle, reach)
    assert worst <= attacked + 1e-9
    assert attacked <= proved <= 1.06 * attacked


def test_a_bound_below_a_violation_found_is_refuted_by_a_real_imbalance(
    acopf: SimpleNamespace, ran: tuple[Path, float, str]
) -> None:
    folder, _, _ = ran
    middle, reach = acopf.controller.load_box(acopf.grid.THREE, 0.2)
    bound = 0.97 * acopf.bisection.largest_violation(violation(acopf, folder), 6, middle, reach)
    query = acopf.bisection.at_most(bound, 6, 15, middle, reach)
    result = verify(load(folder / f"{NAME}.onnx"), query, 20.0)
    assert result.verdict is Verdict.SAT
    assert result.witness is not None
    ((_, loads),), ((_, values),) = result.witness.inputs, result.witness.outputs
    imbalance = acopf.grid.imbalance(acopf.grid.THREE, values[0, 6:].astype(float), loads[0].astype(float))
    np.testing.assert_allclose(values[0, :6], imbalance, atol=1e-5)
    assert np.abs(imbalance).max() >= bound - 1e-5


def test_the_query_written_is_the_one_proved(ran: tuple[Path, float, str]) -> None:
    folder, proved, _ = ran
    written = read_property(folder / f"{NAME}.vnnlib")
    assert len(written.clauses) == 12
    (bound,) = {float(-clause.offset[0]) for clause in written.clauses}
    assert proved - 1e-5 < bound <= proved
    for dtype in ("float64", "float32"):
        assert verify(load(folder / f"{NAME}.onnx"), written, 20.0, Options(dtype=dtype)).verdict is Verdict.UNSAT


def test_a_second_run_trains_nothing_and_finds_the_same(
    acopf: SimpleNamespace, ran: tuple[Path, float, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, proved, first = ran
    assert "trained" in first
    acopf.run.main(["--nets", str(folder), *OPTIONS.split()])
    again = capsys.readouterr().out
    assert "trained" not in again
    assert proved_in(again) == proved


def test_nothing_is_asked_when_crown_is_near_enough(acopf: SimpleNamespace, ran: tuple[Path, float, str]) -> None:
    middle, reach = acopf.controller.load_box(acopf.grid.THREE, 0.2)
    network = load(ran[0] / f"{NAME}.onnx")
    attacked = acopf.bisection.largest_violation(violation(acopf, ran[0]), 6, middle, reach)
    found = acopf.bisection.smallest_bound(network, 6, middle, reach, attacked, gap=100.0)
    assert (found.queries, found.proved) == (0, found.crown)
