"""Queries and networks that do not belong together: one sentence each, whatever the way in."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs.errors import BoundsmithError
from boundsmith.specs.read import parse_property
from boundsmith.verify.api import verify
from boundsmith.verify.budget import Deadline
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options
from boundsmith.verify.strategy import verify_files
from onnx import helper

from tests.onnx_files import random_layers, save, save_dense

QUERY = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,{inputs}]) (declare-output Y real [{outputs}]))
{bounds}
(assert (<= Y[0] -100))
"""
PAIR = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [2]) (declare-output Y_f real [1]))
(declare-network g ({link} f) (declare-input X_g real [2]) (declare-output Y_g real [1]))
(assert (and (>= X_f[0] 0) (<= X_f[0] 1)))(assert (== X_g[0] X_f[0]))
(assert (and (>= X_f[1] 0) (<= X_f[1] 1)))(assert (== X_g[1] X_f[1]))
(assert (>= (- Y_f[0] Y_g[0]) 1000))
"""


def single(inputs, outputs):
    bounds = "".join(f"(assert (and (>= X[0,{k}] 0) (<= X[0,{k}] 1)))" for k in range(inputs))
    return QUERY.format(inputs=inputs, outputs=outputs, bounds=bounds)


@pytest.fixture
def file(tmp_path):
    """A network of two inputs and one output."""
    return save_dense(tmp_path / "net.onnx", random_layers((2, 4, 1), 0))


def message_of(tmp_path, text, files):
    """The message by files; the way through Python must complain as well."""
    query = tmp_path / "query.vnnlib"
    query.write_text(text)
    with pytest.raises(BoundsmithError) as caught:
        verify_files(query, files, Options(threads=1), Deadline.after(20))
    with pytest.raises(BoundsmithError):
        verify({name: load(path) for name, path in files.items()}, parse_property(text), 20, Options(threads=1))
    message = str(caught.value)
    assert "\n" not in message
    assert "query.vnnlib" in message
    return message


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind"), [(1, 1, "input"), (3, 1, "input"), (2, 2, "output"), (7, 9, "input")]
)
def test_variables_more_or_fewer_than_the_network_has(tmp_path, file, inputs, outputs, kind):
    message = message_of(tmp_path, single(inputs, outputs), {"": file})
    declared, has = (inputs, 2) if kind == "input" else (outputs, 1)
    assert f"declares {declared} {kind} variables" in message
    assert f"has {has};" in message


def test_a_network_without_a_file(tmp_path, file):
    assert "network g" in message_of(tmp_path, PAIR.format(link="isomorphic-to"), {"f": file})
    assert "network f" in message_of(tmp_path, PAIR.format(link="isomorphic-to"), {"g": file})
    assert "network f" in message_of(tmp_path, PAIR.format(link="isomorphic-to"), {"": file})
    assert "network f" in message_of(tmp_path, single(2, 1), {})


def test_a_file_for_a_network_that_is_not_declared(tmp_path, file):
    message = message_of(tmp_path, PAIR.format(link="equal-to"), {"f": file, "h": file})
    assert "declares no network h" in message
    assert "f, g" in message
    assert "without a name" in message_of(tmp_path, single(2, 1), {"f": file, "": file})


def test_what_is_enough(tmp_path, file):
    """Names that are given cover those that are declared equal to them, and one without a name what remains."""
    (tmp_path / "query.vnnlib").write_text(PAIR.format(link="equal-to"))
    for files in ({"": file}, {"f": file}, {"f": file, "g": file}):
        result = verify_files(tmp_path / "query.vnnlib", files, Options(threads=1), Deadline.after(20))
        assert result.verdict.value == "unsat"
    (tmp_path / "query.vnnlib").write_text(PAIR.format(link="isomorphic-to"))
    for files in ({"f": file, "g": file}, {"f": file, "": file}):
        result = verify_files(tmp_path / "query.vnnlib", files, Options(threads=1), Deadline.after(20))
        assert result.verdict.value == "unsat"


def test_a_single_network_in_python(file):
    network = load(file)
    assert verify(network, parse_property(single(2, 1)), 20, Options(threads=1)).verdict.value == "unsat"
    assert (
        verify(network, parse_property(PAIR.format(link="equal-to")), 20, Options(threads=1)).verdict.value == "unsat"
    )


@pytest.mark.parametrize(("name", "content"), [("missing.onnx", None), ("broken.onnx", b"no network")])
def test_a_file_that_is_no_network(tmp_path, name, content):
    (tmp_path / "query.vnnlib").write_text(single(2, 1))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BoundsmithError, match=name) as caught:
        verify_files(tmp_path / "query.vnnlib", {"": tmp_path / name}, Options(), Deadline.after(20))
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(file):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(BoundsmithError, match="no CUDA device"):
        verify(load(file), parse_property(single(2, 1)), 20, Options(device="cuda"))


def test_figures_of_a_result(file):
    """The best bound is a proven one, and the phases and counters are what the report prints."""
    result = verify(load(file), parse_property(single(2, 1)), 20, Options(threads=1))
    assert result.counters["clauses"] == 1
    assert result.counters["uncertain inputs"] == 2
    assert result.counters["domains"] >= 1
    assert result.counters["peak memory"] > 1 << 20
    assert all(phase.seconds >= 0 for phase in result.phases)
    assert "input-split" in result.method
    assert result.device == "cpu"
    assert all(verdict.sentence for verdict in type(result.verdict))


def test_the_best_bound_is_below_the_margin(tmp_path):
    """``best_bound`` of an undecided run bounds the violation margin from below."""
    layers = random_layers((6, 30, 30, 1), 4)
    network = load(save_dense(tmp_path / "net.onnx", layers))
    text = single(6, 1).replace("-100", "-1.5")
    result = verify(network, parse_property(text), 20, Options(threads=1, method="bounds", attack=False))
    assert result.verdict.value == "unknown"
    points = np.random.default_rng(0).random((2000, 6)).astype(np.float32)
    margins = [float(network.runtime.run(point)[0].item()) + 1.5 for point in points]
    assert result.best_bound is not None
    assert result.best_bound <= min(margins)


@pytest.mark.parametrize("element", ["float64", "int32", "int64", "float16", "bool"])
@pytest.mark.parametrize("kind", ["input X", "output Y"])
def test_another_element_type_than_the_network_has(tmp_path, file, kind, element):
    """Only `real` stands for any type, as the standard says."""
    text = single(2, 1)
    message = message_of(tmp_path, text.replace(f"{kind} real", f"{kind} {element}"), {"": file})
    assert f"declares {kind[-1]} as {element}, but {kind[-1]} of network f has type float32" in message
    (tmp_path / "query.vnnlib").write_text(text.replace(f"{kind} real", f"{kind} float32"))
    result = verify_files(tmp_path / "query.vnnlib", {"": file}, Options(threads=1), Deadline.after(20))
    assert result.verdict.value == "unsat"


def test_another_shape_of_the_same_size(tmp_path):
    """``X[0,1]`` of a transposed declaration would be another entry than the query means."""
    nodes = [helper.make_node("Flatten", ["X"], ["Y"])]
    network = save(tmp_path / "net.onnx", nodes, [("X", (1, 2, 3))], [("Y", (1, 6))])

    def text(shape):
        places = [",".join(str(int(i)) for i in np.unravel_index(k, shape)) for k in range(6)]
        made = "".join(f"(assert (== X[{place}] {k}))" for k, place in enumerate(places))
        return (
            f"(vnnlib-version <2.0>)(declare-network f (declare-input X real {list(shape)})"
            f"(declare-output Y real [1,6])){made}(assert (<= Y[0,1] 0))"
        )

    assert "has shape [1, 2, 3]" in message_of(tmp_path, text((3, 2)), {"": network})
    assert "has shape [1, 2, 3]" in message_of(tmp_path, text((1, 3, 2)), {"": network})
    for shape in ((2, 3), (6,), (1, 1, 2, 3), (1, 6)):
        assert verify(load(network), parse_property(text(shape)), 20, Options(threads=1)).verdict.value == "unsat"


def test_networks_declared_equal_that_differ(tmp_path, file):
    other = save_dense(tmp_path / "other.onnx", random_layers((2, 4, 1), 1))
    message = message_of(tmp_path, PAIR.format(link="equal-to"), {"f": file, "g": other})
    assert "declares network g equal to f, but other.onnx and net.onnx differ" in message
