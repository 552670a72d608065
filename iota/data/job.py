"""The inputs of a preparation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iota.data.heldout import DEFAULT_TARGET, Target
from iota.data.manifest import MAX_SOURCES, TokenDtype
from iota.data.sources import Weighted
from iota.data.tokenizers import Tokenizer
from iota.spec import json_digest

SHARD_TOKENS: Final = 1 << 25
"""64 MiB of two-byte ids."""
_FORMAT: Final = 2
"""Of the work folder and of the order of documents: raised when either changes."""


@dataclass(frozen=True)
class Job:
    """The inputs of a preparation. With the documents they decide every byte of its output.

    Raises `ValueError` for sizes that are not positive, and for no or too many sources.
    """

    sources: Sequence[Weighted]
    tokenizer: Tokenizer
    shard_tokens: int = SHARD_TOKENS
    """Tokens of a training shard; the last training shard is shorter."""
    heldout: Target = DEFAULT_TARGET
    max_tokens: int | None = None
    """Stop after so many tokens; None reads all."""

    def __post_init__(self) -> None:
        if self.shard_tokens < 2 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError("the numbers of tokens must be positive, and a shard's at least 2")
        if not 1 <= len(self.sources) <= MAX_SOURCES:
            raise ValueError(f"{len(self.sources)} sources cannot be mixed: give 1 to {MAX_SOURCES}")

    @property
    def name(self) -> str:
        """Name of the source, or weights and names of several."""
        if len(self.sources) == 1:
            return self.sources[0].source.name
        return " + ".join(f"{w.weight:.4g} {w.source.name}" for w in self.sources)

    @property
    def dtype(self) -> TokenDtype:
        """Dtype of the shards: the narrowest that holds the vocabulary."""
        return TokenDtype.holding(self.tokenizer.vocab_size)

    @property
    def identity(self) -> str:
        """Digest of the inputs, in 16 hex digits. It names the work folder: the same job resumes there."""
        parts = [
            _FORMAT,
            [[weighted.source.identity, weighted.weight] for weighted in self.sources],
            self.tokenizer.digest,
            self.shard_tokens,
            [self.heldout.least, self.heldout.most, self.heldout.share],
            self.max_tokens,
        ]
        return json_digest(parts)[:16]
