"""Verification of neural networks: loading, bounds, attack, search."""
