"""Boundary codecs, one file each, and wire dtypes: the values and bytes that cross a boundary.

Imports no torch. Functions that encode and decode import it.
"""

from iota.codec.registry import codec_names, open_codec, register_codec

__all__ = ["codec_names", "open_codec", "register_codec"]
