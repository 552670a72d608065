"""Table of boundary codecs. A new codec is a file of its own and an entry here."""

from __future__ import annotations

from iota.codec.boundary_codec import BoundaryCodec
from iota.codec.identity import Identity
from iota.codec.resbm import Resbm

_CODECS: dict[str, BoundaryCodec] = {}


def register_codec(codec: BoundaryCodec) -> None:
    """Add a codec under its name. Raises ValueError if the name is taken."""
    if codec.name in _CODECS:
        raise ValueError(f"a codec is called {codec.name!r} already: give another name")
    _CODECS[codec.name] = codec


def open_codec(name: str) -> BoundaryCodec:
    """The codec that a spec names. Raises ValueError for an unknown name, listing the known ones."""
    if name not in _CODECS:
        raise ValueError(f"no codec is called {name!r}: this build has {', '.join(_CODECS)}")
    return _CODECS[name]


def codec_names() -> list[str]:
    """Names of all registered codecs, for messages and options."""
    return list(_CODECS)


for _codec in (Identity(), Resbm(anchored=False), Resbm(anchored=True)):
    register_codec(_codec)
