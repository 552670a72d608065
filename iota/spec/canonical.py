"""The canonical form of a value: the bytes that digests, ids and signatures cover."""

from __future__ import annotations

from typing import Any

import rfc8785
from blake3 import blake3
from pydantic import BaseModel, ConfigDict


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value, by RFC 8785 (JSON Canonicalization Scheme).

    Every digest, id and signature over JSON uses this function, so that a faster serializer could replace the
    library here. Raises ValueError for NaN or infinity, an integer beyond `MAX_INTEGER`, or a lone surrogate
    in a string.
    """
    return rfc8785.dumps(value)


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
