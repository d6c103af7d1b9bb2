"""The hot array kernels."""
