"""The canonical form of a value: the bytes that digests, ids and signatures are made over."""

from __future__ import annotations

from typing import Any

import rfc8785
from blake3 import blake3
from pydantic import BaseModel, ConfigDict


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value, by RFC 8785 (JSON Canonicalization Scheme).

    Every digest, id and signature over JSON is made of these bytes and of no others, so a faster
    serializer can take the library's place here, as long as its bytes are equal.

    Raises:
        ValueError: NaN or infinity, an integer beyond `MAX_INTEGER`, or a lone surrogate in a string.
    """
    return rfc8785.dumps(value)


def json_digest(value: Any) -> str:
    """BLAKE3 of the canonical form of a JSON value, hex.

    Raises:
        ValueError: as `canonical_json`.
    """
    return blake3(canonical_json(value)).hexdigest()


class Frozen(BaseModel):
    """A value that crosses an edge: immutable, and without unknown fields.

    Integers are bounded by `MAX_INTEGER`, so that every value has a canonical form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """The value's canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    def content_digest(self) -> str:
        """BLAKE3 of the canonical JSON, hex."""
        return json_digest(self.model_dump(mode="json"))
