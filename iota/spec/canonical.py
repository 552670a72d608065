"""The canonical form of a value: the bytes that digests, ids and signatures cover."""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Any

import rfc8785
from blake3 import blake3
from pydantic import BaseModel, ConfigDict

from iota.spec.fields import MAX_INTEGER


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value, by RFC 8785 (JSON Canonicalization Scheme).

    Every digest, id and signature over JSON uses this function. Raises ValueError for NaN or infinity, an
    integer beyond `MAX_INTEGER`, a lone surrogate in a string, or a value that JSON does not have.
    """
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _write(value: Any, parts: list[str]) -> None:
    """Append the canonical text of `value`.

    The common cases are written here because the library, in pure Python, calls a function for each escaped
    character: a batch of receipts full of quotes took the server a second.
    """
    kind = type(value)
    if kind is str:
        parts.append(encode_basestring(value))
    elif kind is int and -MAX_INTEGER <= value <= MAX_INTEGER:
        parts.append(str(value))
    elif kind is float and 1e-4 <= abs(value) < 1e16:  # where Python writes no exponent, as ECMAScript
        parts.append(repr(value).removesuffix(".0"))
    elif kind is list or kind is tuple:
        separator = "["
        for item in value:
            parts.append(separator)
            _write(item, parts)
            separator = ","
        parts.append("]" if value else "[]")
    elif kind is dict:
        separator = "{"
        for name in sorted(value, key=_utf16):
            parts += (separator, encode_basestring(name), ":")
            _write(value[name], parts)
            separator = ","
        parts.append("}" if value else "{}")
    else:
        parts.append(rfc8785.dumps(value).decode())


def _utf16(name: Any) -> bytes:
    """The sort key of an object's name: its UTF-16 code units."""
    if type(name) is not str:
        raise ValueError(f"{name!r} cannot name a field of a JSON object")
    return name.encode("utf-16-be")


def json_digest(value: Any) -> str:
    """BLAKE3 (hex) of the canonical form of a JSON value. Raises ValueError as `canonical_json` does."""
    return blake3(canonical_json(value)).hexdigest()


class Frozen(BaseModel):
    """Base of all documents and messages: immutable, and unknown fields are refused.

    Integer fields must be bounded by `MAX_INTEGER`, so that every value has a canonical form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """The canonical JSON of the value."""
        return canonical_json(self.model_dump(mode="json"))

    def content_digest(self) -> str:
        """BLAKE3 (hex) of the canonical JSON."""
        return json_digest(self.model_dump(mode="json"))
