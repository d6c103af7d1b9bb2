"""Specifications: what is asked of a network. Pure data and parsing; knows no network code."""

from .errors import BoundsmithError, SpecError
from .instances import Instance, read_instances
from .property import Box, Clause, NetworkDeclaration, Property, TensorDeclaration
from .read import parse_property, read_property
from .robustness import robustness_property
from .write import save_property, write_property

__all__ = [
    "BoundsmithError",
    "Box",
    "Clause",
    "Instance",
    "NetworkDeclaration",
    "Property",
    "SpecError",
    "TensorDeclaration",
    "parse_property",
    "read_instances",
    "read_property",
    "robustness_property",
    "save_property",
    "write_property",
]
