"""The manifest: a data set's tokenizer and shards, with their digests. A RunSpec names it by its id."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from iota.settings.sentences import sentence
from iota.spec import Count, Frozen, Hex32, Positive, Since, Versioned

MANIFEST_VERSION: Final = 2
MANIFEST_NAME = "manifest.json"
MAX_SHARDS = 100_000
"""`shard_name` has five digits."""


MAX_SOURCES = 64
"""Sources of a mixture."""


class DataError(Exception):
    """Data that does not have its digest, or cannot be read."""


class TokenDtype(StrEnum):
    """Number format of the token ids in a shard: unsigned, little endian."""

    UINT16 = "uint16"
    UINT32 = "uint32"

    @property
    def numpy(self) -> np.dtype[np.unsignedinteger]:
        """The numpy dtype, with its byte order."""
        return np.dtype("<u2" if self is TokenDtype.UINT16 else "<u4")

    @classmethod
    def holding(cls, vocab_size: int) -> TokenDtype:
        """The narrowest dtype that holds every id of the vocabulary."""
        return cls.UINT16 if vocab_size <= 1 << 16 else cls.UINT32


class TokenizerInfo(Frozen):
    """The tokenizer that made the ids; `digest` covers everything that decides them."""

    name: str = Field(min_length=1, max_length=200)
    digest: Hex32
    vocab_size: int = Field(gt=1, le=2**31)
    eos_id: Count


class Shard(Frozen):
    """One file of token ids, `<name>.bin`, and beside it `<name>.idx`."""

    name: str = Field(pattern=r"^shard-[0-9]{5}$")
    tokens: int = Field(gt=0, lt=2**48)
    digest: Hex32
    """BLAKE3 of the .bin file."""
    index_digest: Hex32
    """BLAKE3 of the .idx file: the 32-byte BLAKE3 digests of the .bin's 64 KiB blocks, in order."""


class SourceInfo(Frozen):
    """What was read from one source."""

    name: str = Field(min_length=1, max_length=500)
    fingerprint: str = Field(min_length=1, max_length=200)
    """The Hub's commit, or a digest of the files' names and sizes."""
    weight: float = Field(gt=0, le=1)
    """Share of the tokens of the mixture."""
    documents: Count
    tokens: Count
    """Tokens read, those held out and duplicates among them."""
    complete: bool
    """Whether it was read to its end. A mixture stops where its first source ends."""
    skipped: dict[str, Count]
    """Rows, and files, that were left out, by reason."""


class Manifest(Versioned):
    """A tokenized data set. All shards but the last are for training, the last is held out for evaluation."""

    version: Positive = MANIFEST_VERSION
    source: str = Field(min_length=1, max_length=MAX_SOURCES * 520)
    """Name of the source, or weights and names of several."""
    sources: Annotated[tuple[SourceInfo, ...], Since(2, before=())] = Field(max_length=MAX_SOURCES)
    duplicates: Annotated[Count, Since(2, before=0)]
    """Texts that were left out of training because an equal one is held out."""
    tokenizer: TokenizerInfo
    dtype: TokenDtype
    shards: tuple[Shard, ...] = Field(min_length=2, max_length=MAX_SHARDS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tokenizer.eos_id >= self.tokenizer.vocab_size:
            raise ValueError(f"EOS {self.tokenizer.eos_id} is outside the vocabulary")
        if self.dtype is not TokenDtype.holding(self.tokenizer.vocab_size):
            raise ValueError(f"{self.dtype} is not the dtype of a vocabulary of {self.tokenizer.vocab_size}")
        if [shard.name for shard in self.shards] != [shard_name(i) for i in range(len(self.shards))]:
            raise ValueError("shards are not numbered from 0 in order")
        return self

    @property
    def train(self) -> tuple[Shard, ...]:
        """Shards to train on."""
        return self.shards[:-1]

    @property
    def heldout(self) -> Shard:
        """The shard to evaluate on."""
        return self.shards[-1]

    @property
    def tokens(self) -> int:
        """Tokens to train on."""
        return sum(shard.tokens for shard in self.train)


def shard_name(number: int) -> str:
    """Name of a shard's files without their suffix."""
    return f"shard-{number:05d}"


def manifest_id(manifest: Manifest) -> str:
    """BLAKE3 (hex) of the canonical JSON, which is the content of `manifest.json`."""
    return manifest.content_digest()


def parse_manifest(raw: bytes, identity: str) -> Manifest:
    """Read the manifest with id `identity`. Raises `DataError` if `raw` is not that manifest."""
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise DataError(f"this is no data manifest: {sentence(error)}") from error
    if (found := manifest_id(manifest)) != identity:
        raise DataError(f"this manifest is {found}, not {identity}")
    return manifest
