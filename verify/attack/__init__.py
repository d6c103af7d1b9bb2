"""Falsification: sampling, projected gradients, and replay on onnxruntime."""
