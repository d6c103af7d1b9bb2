"""Specifications: what is asked of a network. Pure data and parsing; knows no network code."""
