"""Faults for tests: functions that answer NaN, run out of memory or raise, from some call on."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
from boundsmith.verify.bounding.plan import Plan
from boundsmith.verify.graph import Graph

FAULTS = {"nan": "nan", "memory": MemoryError(), "exception": RuntimeError("injected")}


class Faulty:
    """A function whose calls go wrong from number `first` on, `count` times; other calls pass."""

    def __init__(self, genuine, how, first=0, count=None):
        self.genuine, self.how, self.first = genuine, how, first
        self.last = np.inf if count is None else first + count
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if not self.first < self.calls <= self.last:
            return self.genuine(*args, **kwargs)
        if isinstance(self.how, BaseException):
            raise self.how
        value = self.genuine(*args, **kwargs)
        # A number among others is a time.
        return np.nan if isinstance(value, float) else _spoiled(value)


def _spoiled(value):
    """The value with NaN in all of its floating-point arrays."""
    if isinstance(value, np.ndarray):
        return np.full_like(value, np.nan) if value.dtype.kind == "f" else value
    if isinstance(value, Plan | Graph):
        return value
    if isinstance(value, list):
        return [_spoiled(part) for part in value]
    if isinstance(value, dict):
        return {key: _spoiled(part) for key, part in value.items()}
    if is_dataclass(value):
        return replace(value, **{field.name: _spoiled(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, tuple):
        parts = [_spoiled(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def method_of(module, name, faulty):
    """A replacement that is bound to its object where the original is a method."""
    return (lambda self, *args, **kwargs: faulty(self, *args, **kwargs)) if isinstance(module, type) else faulty
