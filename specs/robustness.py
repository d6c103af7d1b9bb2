"""Robustness properties from data: no input near a given one changes the class."""

from __future__ import annotations

import numpy as np

from .errors import SpecError
from .property import Box, Clause, NetworkDeclaration, Property, TensorDeclaration


def robustness_property(
    image: np.ndarray,
    label: int,
    eps: float | np.ndarray,
    classes: int,
    *,
    norm: str = "inf",
    clip: tuple[float | np.ndarray, float | np.ndarray] | None = (0.0, 1.0),
    target: int | None = None,
    source: str = "robustness",
) -> Property:
    """The property "every input within `eps` of `image` is classified as `label`".

    The unsafe set has ties in it: ``Y_j >= Y_label`` is a violation. The input has the shape of `image`.

    Args:
        image: the centre, ``[*shape]``, in the units of the network's input.
        label: the class, in ``0 ... classes - 1``.
        eps: the radius, a number or an array that broadcasts to the image (such as ``0.1 / std`` per channel).
        classes: number of outputs.
        norm: "inf"; balls of the norms "2" and "1" are not boxes and not supported yet.
        clip: the range of valid inputs (numbers or arrays that broadcast), or None.
        target: if given, only inputs for which the network's largest output is `target` are violations: one clause
            of ``classes - 1`` rows. Else any other class is: one clause each.

    Raises:
        SpecError: if an argument is out of range or the norm is not supported.

    Example:
        >>> prop = robustness_property(np.array([0.5, 1.0]), label=0, eps=0.1, classes=3)
        >>> prop.clauses[0].box.upper, len(prop.clauses)
        (array([0.6, 1. ]), 2)
    """
    centre = np.asarray(image, dtype=np.float64)
    _require_supported(norm)
    _require_class("label", label, classes)
    if centre.size == 0 or not np.isfinite(centre).all():
        raise SpecError("the image must have at least one element, all of them finite numbers")
    radius = _broadcast("eps", eps, centre.shape)
    if not (np.isfinite(radius).all() and (radius >= 0).all()):
        raise SpecError(f"eps must be a finite number of at least 0, not {eps}")
    box = _ball(centre, radius, clip)
    others = np.array([index for index in range(classes) if index != label])
    if target is None:
        rows = [_prefer(np.array([other]), label, classes) for other in others.tolist()]
    else:
        _require_class("target", target, classes)
        if target == label:
            raise SpecError(f"the target {target} is the label itself")
        rows = [_prefer(target, np.array([index for index in range(classes) if index != target]), classes)]
    return Property(
        clauses=tuple(Clause(box, C, np.zeros(len(C)), np.zeros(len(C), dtype=np.bool_)) for C in rows),
        input_count=centre.size,
        output_count=classes,
        input_map=np.arange(centre.size),
        networks=(NetworkDeclaration("N"),),
        inputs=(TensorDeclaration("X", "N", "real", centre.shape, centre.size),),
        outputs=(TensorDeclaration("Y", "N", "real", None, classes),),
        version="2.0",
        source=source,
    )


def _prefer(winner: int | np.ndarray, loser: int | np.ndarray, classes: int) -> np.ndarray:
    """Rows C with ``C y <= 0`` iff ``y[winner] >= y[loser]``; float64 ``[S, classes]``, one per pair."""
    winners, losers = np.broadcast_arrays(winner, loser)
    C = np.zeros((winners.size, classes))
    C[np.arange(winners.size), losers] = 1.0
    C[np.arange(winners.size), winners] = -1.0
    return C


def _ball(centre: np.ndarray, radius: np.ndarray, clip: tuple[float | np.ndarray, float | np.ndarray] | None) -> Box:
    """The box around `centre`, within the valid range."""
    lower, upper = centre - radius, centre + radius
    if clip is not None:
        least, greatest = (_broadcast("clip", side, centre.shape) for side in clip)
        lower, upper = np.maximum(lower, least), np.minimum(upper, greatest)
    if (lower > upper).any():
        index = np.unravel_index(int(np.argmax(lower > upper)), centre.shape)
        raise SpecError(
            f"element {tuple(map(int, index))} of the image, {centre[index]}, is farther than eps from the "
            f"range {clip}; is the image in other units than the range?"
        )
    return Box(lower.reshape(-1), upper.reshape(-1))


def _broadcast(name: str, value: float | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), shape)
    except ValueError:
        raise SpecError(
            f"{name} has shape {np.shape(value)}, which does not broadcast to the image's {shape}"
        ) from None


def _require_supported(norm: str) -> None:
    if norm in ("1", "2"):
        raise SpecError(f"balls of the norm {norm} are not supported as properties yet; use norm inf")
    if norm != "inf":
        raise SpecError(f"unknown norm {norm!r}; known are inf, 2 and 1")


def _require_class(name: str, value: int, classes: int) -> None:
    if classes < 2:
        raise SpecError(f"robustness needs at least two classes, not {classes}")
    if not 0 <= value < classes:
        raise SpecError(f"{name} {value} is outside of the classes 0 to {classes - 1}")
