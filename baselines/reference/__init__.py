"""Slow, literal, per-image NumPy forms of the six methods, written from their descriptions: what the tests compare with."""
