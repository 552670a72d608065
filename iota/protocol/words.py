"""What a miner signs when it says that its op on a microbatch gives NaN or Inf. Pure."""

from __future__ import annotations

from typing import Final

WORD_DOMAIN: Final = "word/1"
"""The form of the signed bytes."""


def signed_word(run: str, epoch: int, step: int, microbatch: int) -> bytes:
    """The bytes that the miner's signature on a word covers, besides the domain."""
    return f"{run}\n{epoch} {step} {microbatch}".encode()
