"""One preparation's work: blocks of documents in, shards out, with checkpoints between blocks."""

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
CHECKPOINT_S = 5.0


@dataclass(frozen=True)
class Job:
    """What decides every byte of a preparation, besides the documents themselves."""

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
        return TokenDtype.holding(self.tokenizer.vocab_size)

    @property
    def identity(self) -> str:
        """Names the job's work folder."""
        parts = [
            self.source.fingerprint,
            self.tokenizer.digest,
            self.shard_tokens,
            self.heldout_tokens,
            self.max_tokens,
        ]
        return json_digest(parts)[:16]


@dataclass(frozen=True)
class Progress:
    """How far a preparation has come."""

    documents: int
    tokens: int
    shards: int


class Packer:
    """A job in its work folder, from its start or its last checkpoint on.

    Raises:
        ValueError: if the folder holds a damaged checkpoint.
    """

    def __init__(self, job: Job, work: Path) -> None:
        self._job, self._work = job, work
        state = load_state(work)
        self._next = state.next_document if state else 0
        self._block = state.block if state else 0
        self._tokens = state.tokens if state else 0
        self._heldout = (
            load_heldout(work, state, job.heldout_tokens) if state else HeldOut(job.heldout_tokens)
        )
        self._writer = ShardWriter(work, job.dtype.numpy, job.shard_tokens, state.written if state else None)

    def run(self, progress: Callable[[Progress], None] | None, clock: Callable[[], float]) -> None:
        """Pack the source's documents until it, or `max_tokens`, is at its end."""
        saved = clock()
        for block in _blocks(self._job.source.documents(self._next)):
            if self._enough:
                return
            self._pack(block)
            if clock() - saved >= CHECKPOINT_S:
                self._save()
                saved = clock()
            if progress is not None:
                progress(Progress(self._next, self._tokens, self._writer.whole_shards))

    def finish(self) -> tuple[Shard, ...]:
        """Write the held-out shard. Raises `ValueError` if the source was too small."""
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
        self._writer.close()

    @property
    def _enough(self) -> bool:
        return self._job.max_tokens is not None and self._tokens >= self._job.max_tokens

    def _pack(self, block: list[Document]) -> None:
        training: list[tuple[int, Tokens]] = []
        encoded = self._job.tokenizer.encode_batch([document.text for document in block])
        for document, ids in zip(block, encoded, strict=True):
            if self._enough:
                break
            tokens = np.append(ids, np.uint32(self._job.tokenizer.eos_id)).astype(self._job.dtype.numpy)
            training += self._heldout.offer(document.index, document.name, tokens)
            self._tokens += tokens.size
            self._next = document.index + 1
        for _, tokens in sorted(training, key=lambda item: self._rank(item[0])):
            self._writer.append(tokens)
        self._block += 1

    def _rank(self, number: int) -> bytes:
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
    """Documents in groups of bounded number and size, which depend on nothing but the documents."""
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
