"""Bounds of a graph over batches of boxes: interval, forward linear and backward (CROWN)."""
