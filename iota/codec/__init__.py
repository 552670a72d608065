"""Boundary codecs, one file each, and wire dtypes: what crosses a cut, its sizes and its bytes.

Importing it loads no torch; encoding and decoding do.
"""

from iota.codec.registry import codec_names, open_codec, register_codec

__all__ = ["codec_names", "open_codec", "register_codec"]
