"""The canonical form of a value: the bytes that digests, ids and signatures are made over."""

from __future__ import annotations

import json
from typing import Any

from blake3 import blake3
from pydantic import BaseModel, ConfigDict


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Frozen(BaseModel):
    """A value that crosses an edge: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    def content_digest(self) -> str:
        """BLAKE3 of the canonical JSON, hex."""
        return blake3(self.canonical()).hexdigest()
