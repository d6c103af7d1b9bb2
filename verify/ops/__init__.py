"""The operator table: the only place that knows what an operator means."""

from .rule import Interval, LinearRule, Lines, OpRule
from .table import OPERATORS, rule

__all__ = ["OPERATORS", "Interval", "LinearRule", "Lines", "OpRule", "rule"]
