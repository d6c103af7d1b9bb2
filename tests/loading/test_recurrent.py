"""Recurrent operators of ONNX and recurrent modules of torch, unrolled: values as their runtimes', sound bounds."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from boundsmith.specs import robustness_property
from boundsmith.verify import Verdict, bounds, verify
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import Network, load
from boundsmith.verify.loading.evaluate import evaluate
from onnx import helper
from onnx.reference import ReferenceEvaluator

from .models import assert_same_as_runtime, model_of

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

F = np.float32
STEPS, BATCH, WIDTH, HIDDEN = 4, 2, 3, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed + sum(shape)).normal(size=shape) * 0.7).astype(F)


def recurrent(
    op: str,
    direction: str = "forward",
    bias: bool = True,
    states: str = "",
    peepholes: bool = False,
    batch: int = BATCH,
    steps: int = STEPS,
    lengths: list[int] | None = None,
    **attributes: Any,
) -> bytes:
    """A model of one recurrent operator; `states` is "constant", "zero", "variable" or "" (absent)."""
    count = 2 if direction == "bidirectional" else 1
    rows = GATES[op] * HIDDEN
    constants = {"W": normal(count, rows, WIDTH), "R": normal(count, rows, HIDDEN)}
    shape = (count, batch, HIDDEN)
    shapes: dict[str, Any] = {"X": [steps, batch, WIDTH]}
    names = ["X", "W", "R", "", "", ""]
    if bias:
        constants["B"], names[3] = normal(count, 2 * rows), "B"
    if lengths is not None:
        constants["L"], names[4] = np.asarray(lengths, np.int32), "L"
    outputs = ["Y", "Y_h"]
    if op == "LSTM":
        names += ["", ""]
        outputs.append("Y_c")
    for k, name in enumerate(("h0", "c0")[: 2 if op == "LSTM" else 1] if states else ()):
        names[5 + k] = name
        if states == "variable":
            shapes[name] = shape
        else:
            constants[name] = normal(*shape, seed=k + 1) * (states == "constant")
    if peepholes:
        constants["P"], names[7] = normal(count, 3 * HIDDEN), "P"
    while names[-1] == "":
        names.pop()
    node = helper.make_node(op, names, outputs, name="cell", hidden_size=HIDDEN, direction=direction, **attributes)
    return model_of([node], shapes, outputs, constants)


@pytest.mark.parametrize(("op", "direction"), list(product(GATES, ["forward", "reverse", "bidirectional"])))
@pytest.mark.parametrize("states", ["", "constant", "zero", "variable"])
def test_directions_and_states(op: str, direction: str, states: str) -> None:
    assert_same_as_runtime(recurrent(op, direction, states=states))


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *[(op, {"bias": False}) for op in GATES],
    *[(op, {"steps": 1, "batch": 1}) for op in GATES],
    *[(op, {"clip": 0.3, "states": "constant"}) for op in GATES],
    *[(op, {"lengths": [STEPS] * BATCH}) for op in GATES],
    ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}),
    ("GRU", {"linear_before_reset": 1, "states": "constant"}),
    ("GRU", {"linear_before_reset": 1, "bias": False}),
    ("LSTM", {"peepholes": True}),
    ("LSTM", {"peepholes": True, "states": "variable", "direction": "bidirectional"}),
    ("LSTM", {"input_forget": 1, "states": "constant"}),
    ("RNN", {"activations": ["Relu"]}),
    ("RNN", {"activations": ["Relu", "Affine"], "direction": "bidirectional", "activation_alpha": [0.4]}),
    ("GRU", {"activations": ["HardSigmoid", "Softsign"]}),
    ("GRU", {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.2], "activation_beta": [0.4]}),
    ("LSTM", {"activations": ["Sigmoid", "Softplus", "Relu"]}),
    (
        "LSTM",
        {
            "activations": ["HardSigmoid", "ScaledTanh", "Elu"],
            "activation_alpha": [0.3, 0.8, 0.5],
            "activation_beta": [0.4, 1.2],
        },
    ),
    ("LSTM", {"activations": ["hardsigmoid", "ThresholdedRelu", "Tanh"], "activation_alpha": [0.2, 0.4]}),
]


LABELS = [f"{op}-{'-'.join(options)}-{k}" for k, (op, options) in enumerate(OPTIONS)]


@pytest.mark.parametrize(("op", "options"), OPTIONS, ids=LABELS)
def test_options(op: str, options: dict[str, Any]) -> None:
    assert_same_as_runtime(recurrent(op, **options))


@pytest.mark.parametrize("op", GATES)
def test_batch_axis_first(op: str) -> None:
    """onnxruntime does not run `layout` 1; ONNX's own evaluator does."""
    batch_last = onnx.load_from_string(recurrent(op, states="constant"))
    model = onnx.ModelProto()
    model.CopyFrom(batch_last)
    for tensor in model.graph.initializer:
        if tensor.name in ("h0", "c0"):
            array = onnx.numpy_helper.to_array(tensor).transpose(1, 0, 2)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    model.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    shape = model.graph.input[0].type.tensor_type.shape.dim
    shape[0].dim_value, shape[1].dim_value = BATCH, STEPS
    network = load(model.SerializeToString(), check=False)
    x = normal(3, BATCH, STEPS, WIDTH)
    ours = evaluate(network.graph, [x])
    # Its GRU and RNN leave the batch axis where it was in some outputs, so the other layout is the reference.
    theirs = [ReferenceEvaluator(batch_last).run(None, {"X": row.transpose(1, 0, 2)}) for row in x]
    moved = [np.stack(column) for column in zip(*theirs, strict=True)]
    np.testing.assert_allclose(ours[0], moved[0].transpose(0, 3, 1, 2, 4), atol=1e-5)
    for mine, reference in zip(ours[1:], moved[1:], strict=True):
        np.testing.assert_allclose(mine, reference.transpose(0, 2, 1, 3), atol=1e-5)


def test_forms_that_are_not_covered_are_named() -> None:
    for model, words in [
        (recurrent("LSTM", lengths=[STEPS, STEPS - 1]), "sequence_lens differ"),
        (recurrent("RNN", activations=["Cube"]), "activation function Cube"),
        (recurrent("RNN", activations=["ScaledTanh"]), "without its alpha"),
        (recurrent("GRU", activations=["Tanh"]), "are not 2 a direction"),
        (recurrent("GRU", direction="sideways"), "direction sideways"),
    ]:
        with pytest.raises(LoadError, match=words) as failure:
            load(model)
        assert "node cell" in str(failure.value)


def test_sequences_are_multiplied_at_once_and_states_one_by_one() -> None:
    """One dense layer of the inputs a cell; none of a layer's later steps depends on the last state below."""
    network = load(Outputs(nn.LSTM(WIDTH, HIDDEN, num_layers=2)), torch.rand(STEPS, 1, WIDTH))
    nodes = network.graph.nodes
    layers = [node for node in nodes if node.op == "Linear"]
    assert [node.shape for node in layers].count((STEPS, 1, 4 * HIDDEN)) == 1
    assert not any(nodes[source].op == "Concat" for node in layers for source in node.inputs)


class Outputs(nn.Module):
    """A recurrent module with all its outputs as one flat tuple."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        made = self.inner(x)
        if not isinstance(made, tuple):
            return made
        return tuple(part for item in made for part in (item if isinstance(item, tuple) else (item,)))


class Classifier(nn.Module):
    """The last hidden state of a recurrent layer through a dense one."""

    def __init__(self, inner: Any, hidden: int, classes: int = 3) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        return self.head(self.inner(x)[0][:, -1])


MODULES: list[tuple[str, Any, tuple[int, ...]]] = [
    ("lstm", nn.LSTM(3, 4, batch_first=True, num_layers=2, bidirectional=True), (2, 5, 3)),
    ("lstm projected", nn.LSTM(3, 4, proj_size=2, num_layers=2, bias=False, bidirectional=True), (4, 2, 3)),
    ("gru", nn.GRU(3, 4, num_layers=2), (5, 2, 3)),
    ("gru without batch", nn.GRU(3, 4, bidirectional=True), (5, 3)),
    ("rnn", nn.RNN(3, 4, batch_first=True), (1, 5, 3)),
    ("rnn with relu", nn.RNN(3, 4, nonlinearity="relu", bias=False), (5, 1, 3)),
    ("lstm cell", nn.LSTMCell(3, 4), (2, 3)),
    ("gru cell", nn.GRUCell(3, 4), (2, 3)),
    ("rnn cell", nn.RNNCell(3, 4, bias=False), (3,)),
    ("rnn cell with relu", nn.RNNCell(3, 4, nonlinearity="relu"), (2, 3)),
]
RUNS = [(*entry, live) for entry in MODULES for live in (False, True) if not live or entry[0] in ("lstm", "gru")]


@pytest.mark.parametrize(("name", "inner", "shape", "live"), RUNS, ids=[f"{r[0]}{' live' * r[3]}" for r in RUNS])
def test_modules(name: str, inner: Any, shape: tuple[int, ...], live: bool) -> None:
    module = Outputs(inner).eval()
    network = load(module, torch.rand(shape), live=live)
    points = torch.randn((3, *shape))
    ours = evaluate(network.graph, [points if live else points.numpy()])
    with torch.no_grad():
        made = [module(point) for point in points]
    columns = zip(*made, strict=True) if isinstance(made[0], tuple) else [made]
    for mine, theirs in zip(ours, columns, strict=True):
        mine = mine.detach().numpy() if live else mine
        np.testing.assert_allclose(mine, torch.stack(list(theirs)).numpy(), atol=1e-5)


def test_live_recurrent_weights_follow_an_optimiser_and_get_gradients() -> None:
    module = Classifier(nn.GRU(3, 4, batch_first=True), 4).eval()
    network = load(module, torch.rand(1, 5, 3), live=True)
    point = torch.rand(1, 5, 3)
    optimiser = torch.optim.SGD(module.parameters(), 0.5)
    for _ in range(2):
        optimiser.zero_grad()
        (output,) = evaluate(network.graph, [point[None]])
        np.testing.assert_allclose(output[0].detach().numpy(), module(point).detach().numpy(), atol=1e-6)
        output.square().sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
        optimiser.step()


def small_classifier(kind: str) -> tuple[Any, Network]:
    torch.manual_seed(3)
    maker = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
    module = Classifier(maker(2, 4, batch_first=True), 4).eval()
    return module, load(module, torch.rand(1, 4, 2))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("method", ["ibp", "crown", "crown-ibp", "forward", "alpha-crown"])
def test_bounds_contain_sampled_outputs(kind: str, method: str) -> None:
    module, network = small_classifier(kind)
    centre = np.random.default_rng(1).normal(size=(5, 8)).astype(F)
    for radius in (0.0, 0.1, 1.0) if method != "alpha-crown" else (0.3,):
        lower, upper = bounds(network, centre, radius, method)
        noise = torch.empty((200, 5, 8)).uniform_(-radius, radius)
        noise[:50] = torch.sign(noise[:50]) * radius
        with torch.no_grad():
            samples = module((torch.from_numpy(centre) + noise).reshape(-1, 4, 2)).reshape(200, 5, 3).numpy()
        assert (lower - 1e-5 <= samples.min(axis=0)).all()
        assert (samples.max(axis=0) <= upper + 1e-5).all()
        if radius == 0.0 and method in ("ibp", "crown"):
            assert (upper - lower < 1e-3).all()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_verify_decides_a_classifier(kind: str) -> None:
    module, network = small_classifier(kind)
    centre = np.random.default_rng(2).normal(size=8)
    with torch.no_grad():
        label = int(module(torch.from_numpy(centre.astype(F)).reshape(1, 4, 2)).argmax())
    small = robustness_property(centre, label, 0.01, 3, clip=None)
    assert verify(network, small, timeout=20).verdict is Verdict.UNSAT
    wrong = robustness_property(centre, (label + 1) % 3, 0.01, 3, clip=None)
    result = verify(network, wrong, timeout=20)
    assert result.verdict is Verdict.SAT
    assert result.witness is not None
    ((_, found),) = result.witness.inputs
    assert np.abs(found.reshape(-1) - centre).max() <= 0.01 + 1e-6
