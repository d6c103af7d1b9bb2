"""Benchmarks' scripts as modules, for their tests."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@contextmanager
def scripts(folder: str, names: Sequence[str]) -> Iterator[SimpleNamespace]:
    """The modules of a benchmark, which are scripts of a folder and no package; afterwards they are forgotten, and
    torch has the threads that it had."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS / folder))
        modules = {name: importlib.import_module(name) for name in names}
    yield SimpleNamespace(**modules)
    for name in names:
        del sys.modules[name]
    torch.set_num_threads(threads)
