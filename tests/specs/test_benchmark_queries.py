"""Every query of the VNN-COMP data reads, and means what its text says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from boundsmith.specs import Property, parse_property, read_instances, read_property
from boundsmith.specs.read import read_bytes
from conftest import shared_dir
from spec_helpers import property_holds, text_holds

SETS = sorted(path.parent.name for path in (shared_dir() / "vnncomp").glob("*/instances.csv"))
SMALL = 60_000


def check(prop: Property) -> None:
    """The invariants that every reader of properties relies on."""
    boxes = {id(clause.box): clause.box for clause in prop.clauses}
    for box in boxes.values():
        assert box.lower.shape == box.upper.shape == (prop.free_count,)
        assert np.isfinite(box.lower).all()
        assert np.isfinite(box.upper).all()
        assert (box.lower <= box.upper).all()
    for clause in prop.clauses:
        rows = len(clause.offset)
        assert clause.output_rows.shape == (rows, prop.output_count)
        assert clause.strict.shape == (rows,)
        assert clause.input_rows is None or clause.input_rows.shape == (rows, prop.free_count)
        assert clause.monomial_rows is None or clause.monomial_rows.shape == (rows, len(prop.monomials))
    assert sum(tensor.size for tensor in prop.inputs) == prop.input_count == len(prop.input_map)
    assert sum(tensor.size for tensor in prop.outputs) == prop.output_count


def check_meaning(prop: Property, text: str) -> None:
    """The property agrees with its text (VNN-LIB 1.0) at random points."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([clause.offset for clause in prop.clauses]) if prop.clauses else np.zeros(1)
    for _ in range(20):
        box = prop.clauses[rng.integers(len(prop.clauses))].box
        x = box.lower + rng.integers(0, 5, size=prop.free_count) / 4 * (box.upper - box.lower)
        x = np.clip(x, box.lower, box.upper)[prop.input_map]
        y = rng.choice(np.abs(offsets), prop.output_count) * rng.choice([-1, -0.5, 0, 1, 2], prop.output_count)
        point = {f"X_{i}": Fraction(value) for i, value in enumerate(x.tolist())}
        point |= {f"Y_{i}": Fraction(value) for i, value in enumerate(y.tolist())}
        assert property_holds(prop, x, y) == text_holds_in_float64(text, point)


def text_holds_in_float64(text: str, point: dict[str, Fraction]) -> bool:
    """`text_holds`, with the text's decimals rounded to float64 as the reader rounds them."""

    class Rounding(dict):
        def __contains__(self, token: object) -> bool:
            return True

        def __missing__(self, token: str) -> Fraction:
            return Fraction(float(token))

    return text_holds(text, Rounding(point))


@pytest.mark.parametrize("name", SETS)
def test_every_query_reads(name: str) -> None:
    folder = shared_dir() / "vnncomp" / name
    instances = read_instances(folder)
    assert all(path.exists() for instance in instances for _, path in instance.networks)
    checked = 0
    for query in sorted({instance.query for instance in instances}):
        prop = read_property(query)
        check(prop)
        if prop.version == "1.0" and checked < 3 and Path(query).stat().st_size < SMALL // 10:
            text = read_bytes(query).decode()
            if len(text) < SMALL:
                check_meaning(prop, text)
                checked += 1


def test_two_networks_with_merged_inputs() -> None:
    folder = shared_dir() / "vnncomp"
    prop = read_property(folder / "vnnlib2_acasxu_pruned/vnnlib/instance_0.vnnlib")
    assert prop.input_map.tolist() == [0, 1, 2, 3, 4] * 2
    assert len(prop.clauses) == 1
    assert prop.clauses[0].output_rows.shape == (10, 10)
    monotonic = read_property(folder / "vnnlib2_acasxu_monotonic/vnnlib/instance_0.vnnlib")
    assert monotonic.free_count == 6
    assert monotonic.clauses[0].input_rows is not None
    assert len(monotonic.notes) == 1
    isomorphic = read_property(folder / "vnnlib2_acasxu_isomorphic/vnnlib/instance_0.vnnlib")
    assert isomorphic.clauses == ()


def test_large_disjunction_equals_the_general_reading() -> None:
    text = read_bytes(shared_dir() / "vnncomp/nn4sys/vnnlib/lindex_200.vnnlib").decode()
    fast, general = parse_property(text), parse_property(text, bulk=False)
    assert len(fast.clauses) == len(general.clauses) == 400
    for a, b in zip(fast.clauses, general.clauses, strict=True):
        assert a.box.lower.tolist() == b.box.lower.tolist()
        assert a.offset.tolist() == b.offset.tolist()
        assert a.output_rows.tolist() == b.output_rows.tolist()
    assert len({id(clause.box) for clause in fast.clauses}) == 200
