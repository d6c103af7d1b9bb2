"""What of each ONNX operator is looked at: the inputs and attributes that its lowering knows.

Anything else that a file gives is refused by its name, so that nothing is passed over in silence: a lowering that knows
of an input or attribute must use it, refuse values of it that it does not cover, or have no use for it (the momentum of
batch normalisation, a dropout's seed).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from .builder import LoweringError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Form:
    """The names of an operator's inputs, in order, and of its attributes.

    A name with ``!`` is one that is refused where it is given; ``...`` stands for any number of further inputs.
    """

    inputs: tuple[str, ...]
    attributes: frozenset[str]

    def check(self, inputs: Sequence[str], attributes: Iterable[str]) -> None:
        """Raise `LoweringError` for one of the `inputs` (empty where left out) or attributes that is not looked at."""
        for position, given in enumerate(inputs):
            if self.inputs[-1:] == ("...",) and position >= len(self.inputs) - 1:
                # (Runtimes do not survive this.)
                if not given:
                    raise LoweringError(f"its input {position} is missing")
                continue
            if not given:
                continue
            name = self.inputs[position] if position < len(self.inputs) else f"!number {position}"
            if name.startswith("!"):
                raise LoweringError(f"its input {name[1:]} is not covered")
        unknown = sorted(set(attributes) - self.attributes)
        if unknown:
            raise LoweringError(f"its attribute {unknown[0]} is not covered")


def _form(inputs: str, attributes: str = "") -> Form:
    return Form(tuple(inputs.split()), frozenset(attributes.split()))


_ONE = _form("X")
_TWO = _form("A B")
_ANY = _form("...")
_ALPHA = _form("X", "alpha")
_ARG = _form("data", "axis keepdims select_last_index")
_REDUCE = _form("data axes", "axes keepdims noop_with_empty_axes")
_RECURRENT = "activation_alpha activation_beta activations clip direction hidden_size layout"
_POOL = "auto_pad ceil_mode dilations kernel_shape pads strides"
_CONV = "auto_pad dilations group kernel_shape pads strides"

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "HardSwish", "Softsign", "Mish"), _ONE),
        **dict.fromkeys(("Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Reciprocal"), _ONE),
        **dict.fromkeys(("Sin", "Cos", "Tan", "Atan", "IsNaN", "Not", "Identity", "Size"), _ONE),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _ONE),
        **dict.fromkeys(("LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Swish"), _ALPHA),
        **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "MatMul", "Equal", "Greater", "Less"), _TWO),
        **dict.fromkeys(("GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor"), _TWO),
        **dict.fromkeys(("Sum", "Mean", "Max", "Min"), _ANY),
        **dict.fromkeys(("ArgMax", "ArgMin"), _ARG),
        **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"), _REDUCE),
        **dict.fromkeys(("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"), _REDUCE),
        **dict.fromkeys(("Softmax", "LogSoftmax"), _form("input", "axis")),
        "PRelu": _form("X slope"),
        "Selu": _form("X", "alpha gamma"),
        "HardSigmoid": _form("X", "alpha beta"),
        "Gelu": _form("X", "approximate"),
        "InstanceNormalization": _form("input scale B", "epsilon"),
        "LayerNormalization": _form("X Scale B", "axis epsilon stash_type"),
        "GroupNormalization": _form("X scale bias", "epsilon num_groups stash_type"),
        "RMSNormalization": _form("X scale", "axis epsilon stash_type"),
        "LRN": _form("X", "alpha beta bias size"),
        "Mod": _form("A B", "fmod"),
        "Clip": _form("input min max", "min max"),
        "IsInf": _form("X", "detect_negative detect_positive"),
        "Where": _form("condition X Y"),
        # The last two are about types of eight bits.
        "Cast": _form("input", "to saturate round_mode"),
        "CastLike": _form("input target_type", "saturate round_mode"),
        "Attention": _form(
            "Q K V attn_mask !past_key !past_value !nonpad_kv_seqlen",
            "is_causal kv_num_heads left_window_size q_num_heads qk_matmul_output_mode right_window_size scale softcap "
            "softmax_precision",
        ),
        "Einsum": _form("...", "equation"),
        "Slice": _form("data starts ends axes steps", "axes ends starts"),
        "Gather": _form("data indices", "axis"),
        "GatherND": _form("data indices", "batch_dims"),
        "GatherElements": _form("data indices", "axis"),
        "ScatterND": _form("data indices updates", "reduction"),
        "ScatterElements": _form("data indices updates", "axis reduction"),
        "Compress": _form("input condition", "axis"),
        "ReverseSequence": _form("input sequence_lens", "batch_axis time_axis"),
        "TopK": _form("X K", "axis largest sorted"),
        "OneHot": _form("indices depth values", "axis"),
        "Gemm": _form("A B C", "alpha beta transA transB"),
        "Conv": _form("X W B", _CONV),
        "ConvTranspose": _form("X W B", f"{_CONV} output_padding output_shape"),
        "BatchNormalization": _form("X scale B mean var", "epsilon momentum spatial training_mode"),
        "MaxPool": _form("X", f"{_POOL} storage_order"),
        "AveragePool": _form("X", f"{_POOL} count_include_pad"),
        "Pad": _form("data pads constant_value axes", "mode pads value"),
        "Resize": _form(
            "X roi scales sizes",
            "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
            "keep_aspect_ratio_policy mode nearest_mode",
        ),
        "Upsample": _form("X scales", "mode scales"),
        "RNN": _form("X W R B sequence_lens initial_h", _RECURRENT),
        "GRU": _form("X W R B sequence_lens initial_h", f"{_RECURRENT} linear_before_reset"),
        "LSTM": _form("X W R B sequence_lens initial_h initial_c P", f"{_RECURRENT} input_forget"),
        "LpNormalization": _form("input", "axis p"),
        "CumSum": _form("x axis", "exclusive reverse"),
        "Dropout": _form("data ratio training_mode", "ratio seed"),
        "Flatten": _form("input", "axis"),
        "Reshape": _form("data shape", "allowzero"),
        "Squeeze": _form("data axes", "axes"),
        "Unsqueeze": _form("data axes", "axes"),
        "Transpose": _form("data", "perm"),
        "Concat": _form("...", "axis"),
        "Split": _form("input split", "axis num_outputs split"),
        "Expand": _form("input shape"),
        "Tile": _form("input repeats"),
        "DepthToSpace": _form("input", "blocksize mode"),
        "SpaceToDepth": _form("input", "blocksize mode"),
        "Trilu": _form("input k", "upper"),
        "Shape": _form("data", "end start"),
        "ConstantOfShape": _form("input", "value"),
        "Range": _form("start limit delta", "stash_type"),
        "EyeLike": _form("input", "dtype k"),
        "Constant": _form("", "value value_float value_floats value_int value_ints"),
        "DequantizeLinear": _form("x x_scale x_zero_point", "axis block_size output_dtype"),
    }
)
