"""The small inputs of ``../shared/cases`` that showed a fault, and what is right; skipped where they are absent."""

from __future__ import annotations

import contextlib
import io
import runpy
from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.cli.main import cli
from boundsmith.verify import Options, bounds, load
from boundsmith.verify.budget import Deadline
from boundsmith.verify.errors import BoundsmithError
from boundsmith.verify.result import Verdict
from boundsmith.verify.strategy import verify_files
from click.testing import CliRunner

from tests.conftest import shared_dir

if TYPE_CHECKING:
    from boundsmith.verify.result import Result

CASES = shared_dir() / "cases"
if not CASES.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)

METHODS = ("auto", "bounds", "input-split", "activation-split", "milp")
SECONDS = 5.0


def decide(
    folder: str, query: str, network: str, name: str = "", seconds: float = SECONDS, **options: object
) -> Result:
    """The answer to a query of a case."""
    files = {name: CASES / folder / f"{network}.onnx"}
    chosen = Options(threads=1, **options)
    return verify_files(CASES / folder / f"{query}.vnnlib", files, chosen, Deadline.after(seconds))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["min1_two_gemms", "fold_c"])
def test_folded_weights(name: str, method: str, dtype: str) -> None:
    """Violated over the reals."""
    for attack in (True, False):
        result = decide("folded_weights", name, name, seconds=0.5, method=method, dtype=dtype, attack=attack)
        assert result.verdict is not Verdict.UNSAT


def test_a_violation_that_float32_shows_is_found() -> None:
    assert decide("folded_weights", "fold_c", "fold_c").verdict is Verdict.SAT


def test_float64_bounds() -> None:
    network = load(CASES / "float64_bounds" / "canc_900020.onnx")
    center = np.array([[11050.0625, -5337.5859375]])
    for method in ("ibp", "forward", "crown", "crown-ibp", "alpha-crown"):
        lower, upper = bounds(network, center, 1.0, method)
        assert lower.dtype == np.float64
        assert (lower <= upper).all()
    np.testing.assert_allclose([lower[0, 0], upper[0, 0]], [150452.9, 150484.8], atol=0.1)


@pytest.mark.parametrize("attack", [True, False])
@pytest.mark.parametrize(("query", "network"), [("q", "elu"), ("q2", "mlp")])
def test_elu_with_a_negative_alpha(query: str, network: str, attack: bool) -> None:
    for method in ("auto", "input-split"):
        result = decide("elu_negative_alpha", query, network, method=method, attack=attack)
        assert result.verdict is Verdict.SAT


@pytest.mark.parametrize("method", ["auto", "input-split", "activation-split"])
@pytest.mark.parametrize("network", ["table", "cast"])
def test_boxes_of_whole_numbers(network: str, method: str) -> None:
    for query, verdict in (("none", Verdict.UNSAT), ("inner_hi", Verdict.UNSAT), ("inner_sat", Verdict.SAT)):
        result = decide("int_input_box", query, network, method=method)
        assert result.verdict is verdict, query
        if verdict is Verdict.SAT:
            (_, value), *_ = result.witness.inputs
            assert value.dtype == np.int64
            assert value.tolist() == [[2]]


def test_an_index_beyond_its_table_has_no_value() -> None:
    for attack in (True, False):
        result = decide("int_input_box", "beyond", "table", attack=attack)
        assert result.verdict is Verdict.UNKNOWN
        assert any("GatherND" in text or "Gather" in text for text in result.warnings)


@pytest.mark.parametrize("query", ["threshold", "coefficient"])
def test_huge_constants(query: str) -> None:
    for method in METHODS:
        for dtype in ("float32", "float64"):
            assert decide("huge_constants", query, "net", method=method, dtype=dtype).verdict is Verdict.UNSAT


@pytest.mark.parametrize("name", ["conv_per_channel", "gemm_transB", "matmul_per_channel", "matmul_per_tensor"])
def test_int8_weights(name: str) -> None:
    assert load(CASES / "int8_weights" / f"{name}.onnx").parameter_count


def test_a_gemm_of_constants() -> None:
    assert load(CASES / "gemm_constant_product" / "net.onnx").graph.nodes[-1].shape == (1, 3)


@pytest.mark.parametrize(("network", "query"), [("batch", "batch2"), ("length", "length4")])
def test_symbolic_extents(network: str, query: str) -> None:
    assert decide("symbolic_dims", query, network).verdict is Verdict.UNSAT
    shown = CliRunner().invoke(cli, ["inspect", str(CASES / "symbolic_dims" / f"{network}.onnx")])
    assert shown.exit_code == 0
    assert "a query's declaration fixes it" in shown.output


def test_unsorted_nodes() -> None:
    assert len(load(CASES / "unsorted_nodes" / "net.onnx").graph.nodes) == 3


@pytest.mark.filterwarnings("ignore")
def test_radii() -> None:
    """The case prints a line each: refusals in words, bounds in order."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(CASES / "api_bad_radius" / "case.py"))
    text = printed.getvalue()
    for refused in ("negative radius -> ArgumentError", "nan radius -> ArgumentError", "bfloat16 module -> LoadError"):
        assert refused in text
    for taken in ("radius [5] for centre [5, 3] -> [[", "integer centre -> [[", "list -> [["):
        assert taken in text


def test_a_constant_output() -> None:
    for method in METHODS:
        assert decide("crashes", "q", "const", method=method).verdict is Verdict.UNSAT


@pytest.mark.parametrize("method", ["auto", "activation-split", "milp"])
def test_softmax_has_an_answer(method: str) -> None:
    result = decide("crashes", "1147_1", "1147", seconds=1.0, method=method)
    assert result.verdict in (Verdict.TIMEOUT, Verdict.UNKNOWN, Verdict.UNSAT)


@pytest.mark.parametrize("name", ["ext_loop", "ext_nul", "dims_many"])
def test_files_that_cannot_be_read_are_refused(name: str) -> None:
    with pytest.raises(BoundsmithError):
        load(CASES / "crashes" / f"{name}.onnx")


def test_an_empty_archive_of_points_is_refused() -> None:
    words = [
        "bounds",
        str(CASES / "crashes" / "const.onnx"),
        "--data",
        str(CASES / "crashes" / "empty.npz"),
        "--eps",
        "1",
    ]
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 2
    assert "Traceback" not in shown.output


def test_the_verdict_is_the_first_line() -> None:
    folder = CASES / "stdout"
    words = ["verify", str(folder / "mono2.vnnlib"), "--network", f"f={folder / 'mono2.onnx'}"]
    shown = CliRunner().invoke(cli, words)
    assert shown.stdout.splitlines()[0] == "unsat"


@pytest.mark.parametrize("query", ["frac_sat", "mixed_frac"])
def test_no_whole_number_in_the_box(query: str) -> None:
    for method in METHODS:
        assert decide("integer_inputs", query, "two_in", method=method).verdict is Verdict.UNSAT


@pytest.mark.parametrize("query", ["equal_margin", "strict"])
def test_monotone(query: str) -> None:
    for attack in (True, False):
        assert decide("monotone", query, "f", "f", attack=attack).verdict is Verdict.UNSAT
