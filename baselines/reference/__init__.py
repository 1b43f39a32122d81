"""Slow, literal, per-image NumPy forms of the six methods: what the tests compare with.

Written from the methods' descriptions, not from the package.
"""
