"""A torch module as it is called: its arguments, its outputs, its evaluation mode, and running it on points."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError
from .runtime import ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .onnx_import import TensorInfo

USER_CODE_ERRORS = (
    *(RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError, ArithmeticError),
    *(ImportError, OSError),
)
"""What a module's own code may raise, and torch where it cannot trace or run it."""

_ELEMENT_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")


def element_type(tensor: Any, what: str) -> np.dtype:
    """The numpy type of a dense tensor; `what` names it in the `LoadError` for types that are not supported."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _ELEMENT_TYPES:
        raise LoadError(f"{what} has element type {name}, which is not supported; convert the module with .float().")
    if str(tensor.layout) != "torch.strided":
        raise LoadError(f"{what} is not stored densely ({tensor.layout}); convert it with .to_dense().")
    return np.dtype(name)


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """The module in evaluation mode; afterwards every submodule is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def warn_of_training(module: Any) -> None:
    """Say that bounds are of evaluation mode where the module, as it is, would give something else."""
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.dropout import _DropoutNd

    acting = next((p for p in module.modules() if p.training and isinstance(p, _NormBase | _DropoutNd)), None)
    if acting is not None:
        warnings.warn(
            f"{type(module).__name__} is in training mode, where {type(acting).__name__} acts otherwise; the network "
            "that was loaded is the module in evaluation mode",
            stacklevel=5,
        )


class Arguments:
    """The arguments of a module: example tensors, and what is not a tensor and stays as it is.

    Tensors may lie in lists, tuples and dictionaries; the network's inputs are all of them, in order.
    """

    def __init__(self, example_input: Any, label: str) -> None:
        from torch.utils._pytree import tree_flatten

        given = tuple(example_input) if isinstance(example_input, tuple | list) else (example_input,)
        leaves, self._form = tree_flatten(given)
        # Torch takes one tensor given twice for one argument.
        self._leaves = [_as_tensor(leaf) for leaf in leaves]
        self.tensors = [leaf for leaf in self._leaves if hasattr(leaf, "dtype")]
        if not self.tensors:
            raise LoadError(
                f"{label}: the example input holds no tensor; give one, or a tuple of the module's arguments."
            )
        self.dtypes = [element_type(tensor, f"{label}: an example input") for tensor in self.tensors]

    @property
    def examples(self) -> tuple[Any, ...]:
        """The positional arguments, as given."""
        return self.filled(self.tensors)

    @property
    def leaves(self) -> Sequence[Any]:
        """All arguments in order, those that are not tensors included."""
        return self._leaves

    def filled(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """The positional arguments with other tensors."""
        from torch.utils._pytree import tree_unflatten

        given = iter(tensors)
        leaves = [next(given) if hasattr(leaf, "dtype") else leaf for leaf in self._leaves]
        return tuple(tree_unflatten(leaves, self._form))


def _as_tensor(leaf: Any) -> Any:
    import torch

    if isinstance(leaf, np.ndarray):
        return torch.tensor(leaf)
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def output_tensors(result: Any, label: str) -> list[Any]:
    """The tensors of what a module returns, in order; they may lie in lists, tuples and dictionaries beside None."""
    from torch.utils._pytree import tree_leaves

    leaves = [leaf for leaf in tree_leaves(result) if leaf is not None]
    for leaf in leaves:
        if not hasattr(leaf, "dtype"):
            raise LoadError(f"{label}: returns a value of type {type(leaf).__name__}; only tensors can be outputs.")
    if not leaves:
        raise LoadError(f"{label}: returns no tensor.")
    return leaves


class ModuleRuntime:
    """A torch module in evaluation mode as the reference that witnesses are replayed on."""

    def __init__(self, module: Any, inputs: tuple[TensorInfo, ...], arguments: Arguments, label: str) -> None:
        self._module = module
        self._inputs = inputs
        self._arguments = arguments
        self._label = label

    def exactly(self) -> None:
        """The module is run in one way only."""

    def run(self, *points: np.ndarray) -> tuple[np.ndarray, ...]:
        """The module's outputs at one point: one array a network input, of its size in any shape.

        Raises `ReplayError` where the module fails.
        """
        import torch

        device = next((p.device for p in self._module.parameters()), torch.device("cpu"))
        tensors = [
            torch.tensor(np.asarray(point, dtype=info.dtype).reshape(info.shape), device=device)
            for info, point in zip(self._inputs, points, strict=True)
        ]
        try:
            with torch.no_grad(), evaluating(self._module):
                result = self._module(*self._arguments.filled(tensors))
        except USER_CODE_ERRORS as error:
            raise ReplayError(
                f"{self._label}: the module fails at this input ({type(error).__name__}: {first_line(error)})."
            ) from None
        return tuple(output.detach().cpu().numpy() for output in output_tensors(result, self._label))


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [""])[0]
