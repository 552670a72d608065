"""Boundary codecs: what crosses a cut, its shapes and sizes, and its form on the wire.

`shapes` needs no torch; `boundary` and `wire_dtype` do.
"""
