"""Properties made by hand, for tests."""

from __future__ import annotations

import numpy as np
from boundsmith.specs.property import Clause, NetworkDeclaration, Property, TensorDeclaration


def query_of(inputs, outputs, clauses):
    """A property of one network from ``(Box, rows, offsets)`` triples."""
    return Property(
        tuple(
            Clause(box, np.asarray(rows, float), np.asarray(offsets, float), np.zeros(len(offsets), bool))
            for box, rows, offsets in clauses
        ),
        inputs,
        outputs,
        np.arange(inputs),
        (NetworkDeclaration("N"),),
        (TensorDeclaration("X", "N", "real", (1, inputs), inputs),),
        (TensorDeclaration("Y", "N", "real", (1, outputs), outputs),),
        version="2.0",
    )
