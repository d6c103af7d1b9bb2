"""Drawing a result: console, JSON, VNN-COMP."""
