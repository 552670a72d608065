"""The main loop of a preparation: tokenizes documents block by block into shards, with checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from iota.data.checkpoint import load_heldout, load_state, save_state
from iota.data.documents import Document, Source
from iota.data.heldout import HeldOut, Tokens
from iota.data.manifest import Shard, TokenDtype
from iota.data.shard_writer import ShardWriter
from iota.data.tokenizers import Tokenizer
from iota.spec import json_digest

BLOCK_DOCUMENTS = 1024
BLOCK_CHARACTERS = 16 << 20
"""A block ends at either bound. Documents are shuffled within a block, so both decide the shards' bytes."""
CHECKPOINT_S = 5.0
"""Seconds of work that a killed preparation loses at most, and one block."""


@dataclass(frozen=True)
class Job:
    """The inputs of a preparation. With the documents they decide every byte of its output.

    Raises `ValueError` for sizes that are not positive.
    """

    source: Source
    tokenizer: Tokenizer
    shard_tokens: int
    heldout_tokens: int
    max_tokens: int | None

    def __post_init__(self) -> None:
        if self.shard_tokens < 2 or self.heldout_tokens < 1 or (self.max_tokens or 1) < 1:
            raise ValueError("the numbers of tokens must be positive, and a shard's at least 2")

    @property
    def dtype(self) -> TokenDtype:
        """Dtype of the shards: the narrowest that holds the vocabulary."""
        return TokenDtype.holding(self.tokenizer.vocab_size)

    @property
    def identity(self) -> str:
        """Digest of the inputs, in 16 hex digits. It names the work folder: the same job resumes there."""
        parts = [
            self.source.fingerprint,
            self.tokenizer.digest,
            self.shard_tokens,
            self.heldout_tokens,
            self.max_tokens,
        ]
        return json_digest(parts)[:16]


@dataclass(frozen=True)
class PackProgress:
    """PackProgress of a preparation: the next document's number, tokens read, and complete shards."""

    documents: int
    tokens: int
    shards: int


class Packer:
    """Runs a job in the folder `work`, from its last checkpoint if there is one.

    Raises:
        ValueError: if the folder holds a damaged checkpoint.
    """

    def __init__(self, job: Job, work: Path) -> None:
        self._job, self._work = job, work
        state = load_state(work)
        self._next = state.next_document if state else 0
        self._block = state.block if state else 0
        self._tokens = state.tokens if state else 0
        target = job.heldout_tokens
        self._heldout = load_heldout(work, state, target) if state else HeldOut(target)
        self._writer = ShardWriter(work, job.dtype.numpy, job.shard_tokens, state)

    def run(self, progress: Callable[[PackProgress], None] | None, clock: Callable[[], float]) -> None:
        """Pack documents until the source ends or `max_tokens` are read.

        `clock` (seconds) decides when checkpoints are saved, and nothing else.
        """
        saved = clock()
        for block in _blocks(self._job.source.documents(self._next)):
            if self._complete:
                return
            self._pack(block)
            if clock() - saved >= CHECKPOINT_S:
                self._save()
                saved = clock()
            if progress is not None:
                progress(PackProgress(self._next, self._tokens, self._writer.whole_shards))

    def finish(self) -> tuple[Shard, ...]:
        """Write the held-out shard and return all shards. Raises `ValueError` if the source was too small."""
        name = self._job.source.name
        if self._tokens == 0:
            raise ValueError(f"{name} holds no text: choose another source")
        if not self._heldout.full or self._heldout.tokens * 2 > self._tokens:
            raise ValueError(
                f"{name} gave {self._tokens} tokens, too few (or in too few documents) to hold out"
                f" {self._job.heldout_tokens}: choose a larger source or fewer held-out tokens"
            )
        self._writer.append_shard(np.concatenate(self._heldout.documents()))
        return self._writer.flush().shards

    def close(self) -> None:
        """Close the open shard's file."""
        self._writer.close()

    @property
    def _complete(self) -> bool:
        return self._job.max_tokens is not None and self._tokens >= self._job.max_tokens

    def _pack(self, block: list[Document]) -> None:
        training: list[tuple[int, Tokens]] = []
        encoded = self._job.tokenizer.encode_batch([document.text for document in block])
        for document, ids in zip(block, encoded, strict=True):
            if self._complete:
                break
            tokens = np.append(ids, np.uint32(self._job.tokenizer.eos_id)).astype(self._job.dtype.numpy)
            training += self._heldout.offer(document.index, document.name, tokens)
            self._tokens += tokens.size
            self._next = document.index + 1
        for _, tokens in sorted(training, key=lambda item: self._shuffle_key(item[0])):
            self._writer.append(tokens)
        self._block += 1

    def _shuffle_key(self, number: int) -> bytes:
        return blake3(f"iota/shuffle/1/{self._block}/{number}".encode()).digest()

    def _save(self) -> None:
        save_state(
            self._work,
            self._writer.flush(),
            self._heldout,
            next_document=self._next,
            block=self._block,
            tokens=self._tokens,
        )


def _blocks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents by number and size alone, so that a resumed preparation forms the same groups."""
    block: list[Document] = []
    characters = 0
    for document in documents:
        block.append(document)
        characters += len(document.text)
        if len(block) >= BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block
