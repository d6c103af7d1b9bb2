"""Robustness properties from data."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs import SpecError, parse_property, robustness_property, write_property
from spec_helpers import assert_same, property_holds

IMAGE = np.array([[0.0, 0.5], [0.95, 1.0]])


def test_any_other_class() -> None:
    prop = robustness_property(IMAGE, 1, 0.1, 3)
    assert len(prop.clauses) == 2
    assert prop.inputs[0].shape == (2, 2)
    box = prop.clauses[0].box
    assert all(clause.box is box for clause in prop.clauses)
    np.testing.assert_allclose(box.lower, [0, 0.4, 0.85, 0.9])
    np.testing.assert_allclose(box.upper, [0.1, 0.6, 1, 1])
    centre = IMAGE.reshape(-1)
    assert not property_holds(prop, centre, np.array([0, 1, 0]))
    assert property_holds(prop, centre, np.array([0, 1, 1]))
    assert property_holds(prop, centre, np.array([3, 1, 2]))
    assert not property_holds(prop, centre + 0.2, np.array([3, 1, 2]))


def test_target() -> None:
    prop = robustness_property(IMAGE, 1, 0.1, 3, target=2)
    assert len(prop.clauses) == 1
    centre = IMAGE.reshape(-1)
    assert property_holds(prop, centre, np.array([0, 1, 2]))
    assert not property_holds(prop, centre, np.array([3, 1, 2]))


def test_radius_for_each_element_and_no_range() -> None:
    prop = robustness_property(IMAGE, 0, np.array([0.1, 0.2]), 2, clip=None)
    np.testing.assert_allclose(prop.clauses[0].box.lower, [-0.1, 0.3, 0.85, 0.8])


@pytest.mark.parametrize("target", [None, 0])
def test_written_and_read(target: int | None) -> None:
    prop = robustness_property(IMAGE, 3, 0.1, 10, target=target)
    again = parse_property(write_property(prop))
    assert_same(again, parse_property(write_property(again)))
    rng = np.random.default_rng(0)
    for _ in range(50):
        y = rng.integers(0, 4, size=10).astype(float)
        assert property_holds(prop, IMAGE.reshape(-1), y) == property_holds(again, IMAGE.reshape(-1), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "2"}, "not supported as properties yet"),
        ({"norm": "1"}, "not supported as properties yet"),
        ({"norm": "max"}, "unknown norm 'max'"),
        ({"label": 3}, "label 3 is outside of the classes 0 to 2"),
        ({"target": -1}, "target -1 is outside"),
        ({"target": 1}, "the target 1 is the label itself"),
        ({"classes": 1}, "at least two classes"),
        ({"eps": -0.1}, "eps must be"),
        ({"eps": float("nan")}, "eps must be"),
        ({"eps": np.zeros(3)}, "does not broadcast"),
        ({"image": np.array([np.inf])}, "finite"),
        ({"image": np.array([0.5, 255.0])}, r"element \(1,\) of the image, 255.0, is farther"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        robustness_property(**({"image": IMAGE, "label": 1, "eps": 0.1, "classes": 3} | change))
