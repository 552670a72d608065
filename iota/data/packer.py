"""The main loop of a preparation: packs tokenized documents group by group into shards, with checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from blake3 import blake3

from iota.console.counts import counted
from iota.data.checkpoint import OpenDocument, load_heldout, load_state, save_state
from iota.data.encoding import Encoded, Encoder
from iota.data.heldout import HeldOut, Tokens
from iota.data.job import Job
from iota.data.manifest import Shard
from iota.data.mixture import Feed, FeedState, mix
from iota.data.shard_writer import ShardWriter

GROUP_DOCUMENTS: Final = 1024
GROUP_TOKENS: Final = 4 << 20
"""A group ends at either bound. Documents are shuffled within a group, so both decide the shards' bytes."""
CHECKPOINT_S: Final = 5.0
"""Seconds of work that a killed preparation loses at most, and one group."""


@dataclass(frozen=True)
class PackProgress:
    """Progress of a preparation: documents and tokens read, complete shards, and the share that is done.

    `fraction` is None if the sources do not know their size.
    """

    documents: int
    tokens: int
    shards: int
    fraction: float | None


@dataclass(frozen=True)
class Packed:
    """What was packed: the shards, the last of them held out, and what was taken from each source."""

    shards: tuple[Shard, ...]
    feeds: tuple[FeedState, ...]
    duplicates: int


@dataclass(frozen=True)
class _Item:
    """A text to train on, at its place in the group. `document` is None for one that was displaced."""

    order: tuple[int, bytes, int]
    tokens: Tokens
    document: tuple[int, str] | None
    part: int
    last: bool


class Packer:
    """Runs a job in the folder `work`, from its last checkpoint if there is one.

    Raises:
        ValueError: if the folder holds a damaged checkpoint.
    """

    def __init__(self, job: Job, work: Path, encoder: Encoder) -> None:
        self._job, self._work = job, work
        state = load_state(work)
        self._group = state.group if state else 0
        self._open: OpenDocument | None = state.open_document if state else None
        self._heldout = load_heldout(work, state, job.heldout) if state else HeldOut(job.heldout)
        self._writer = ShardWriter(work, job.dtype.numpy, job.shard_tokens, state)
        self._eos = np.array([job.tokenizer.eos_id], job.dtype.numpy)
        states = state.feeds if state else [FeedState()] * len(job.sources)
        self._feeds = [
            Feed(weighted.source, weighted.weight, encoder, taken)
            for weighted, taken in zip(job.sources, states, strict=True)
        ]

    def run(self, progress: Callable[[PackProgress], None] | None, clock: Callable[[], float]) -> Packed:
        """Pack documents until a source ends or `max_tokens` are read, then the held-out shard.

        `clock` (seconds) decides when checkpoints are saved, and nothing else.

        Raises:
            ValueError: if a source cannot be read, or all of them are too small.
        """
        saved = clock()
        documents = mix(self._feeds)
        while group := self._next_group(documents):
            self._pack(group)
            if clock() - saved >= CHECKPOINT_S:
                self._save()
                saved = clock()
            if progress is not None:
                progress(self._progress())
        return self._finish()

    def close(self) -> None:
        """Close the open shard's file."""
        self._writer.close()

    @property
    def _tokens(self) -> int:
        return sum(feed.tokens for feed in self._feeds)

    def _next_group(self, documents: Iterator[tuple[int, Encoded]]) -> list[tuple[int, Encoded]]:
        group: list[tuple[int, Encoded]] = []
        tokens, most = 0, self._job.max_tokens
        while len(group) < GROUP_DOCUMENTS and tokens < GROUP_TOKENS:
            if most is not None and self._tokens >= most:
                break
            if (found := next(documents, None)) is None:
                break
            group.append(found)
            tokens += found[1].tokens.size
        return group

    def _pack(self, group: list[tuple[int, Encoded]]) -> None:
        unfinished = {(number, text.name) for number, text in group if not text.last}
        unfinished -= {(number, text.name) for number, text in group if text.last}
        ordinals: dict[tuple[int, str], int] = {}
        items: list[_Item] = []
        for number, text in group:
            document = (number, text.name)
            ordinal = ordinals.setdefault(document, len(ordinals))
            ended = np.concatenate([text.tokens, self._eos])
            for rank, held in self._heldout.offer(text.rank, ended):
                if held.tokens is ended:
                    order = self._order(document, document in unfinished, ordinal, text.part)
                    items.append(_Item(order, text.tokens, document, text.part, text.last))
                else:
                    key = self._shuffle_key(rank.hex())
                    items += [_Item((1, key, 0), held.tokens, None, 0, True)] * held.copies
        for item in sorted(items, key=lambda item: item.order):
            self._write(item)
        self._group += 1

    def _order(
        self, document: tuple[int, str], unfinished: bool, ordinal: int, part: int
    ) -> tuple[int, bytes, int]:
        """First the parts of the open document, last those of documents that the next group goes on with."""
        is_open = self._open is not None and self._open[:2] == document
        return 0 if is_open else 2 if unfinished else 1, self._shuffle_key(str(ordinal)), part

    def _shuffle_key(self, name: str) -> bytes:
        return blake3(f"iota/shuffle/2/{self._group}/{name}".encode()).digest()

    def _write(self, item: _Item) -> None:
        """Append a text. An EOS follows a document's last part, and one whose next part is not next."""
        if self._open is not None and (item.document is None or self._open != (*item.document, item.part)):
            self._writer.append(self._eos)
        self._writer.append(item.tokens)
        self._open = None
        if item.document is not None:
            if item.last:
                self._writer.append(self._eos)
            else:
                self._open = (*item.document, item.part + 1)

    def _finish(self) -> Packed:
        """Write the held-out shard. Raises `ValueError` if the sources were too small."""
        name, total = self._job.name, self._tokens
        if total == 0:
            raise ValueError(f"{name} holds no text{self._skipped()}: choose another source")
        rest = self._heldout.trim(total)
        if self._heldout.tokens < self._job.heldout.least or self._heldout.tokens * 2 > total:
            raise ValueError(
                f"{name} gave {counted(total, 'token')}, too few to hold out {self._job.heldout.least}:"
                f" choose a larger source, or at most --heldout-tokens {max(1, total // 20)}"
            )
        if self._open is not None:
            self._writer.append(self._eos)
            self._open = None
        if rest is not None:
            self._writer.append(rest)
        self._writer.append_shard(np.concatenate(self._heldout.documents()))
        return Packed(
            self._writer.flush().shards, tuple(feed.state for feed in self._feeds), self._heldout.duplicates
        )

    def _skipped(self) -> str:
        counts = chain.from_iterable(feed.state.skipped.items() for feed in self._feeds)
        text = ", ".join(f"{count} skipped: {reason}" for reason, count in counts)
        return f" ({text})" if text else ""

    def _progress(self) -> PackProgress:
        most = self._job.max_tokens
        shares = [share for feed in self._feeds if (share := feed.fraction) is not None]
        if most is not None:
            shares.append(self._tokens / most)
        return PackProgress(
            sum(feed.documents for feed in self._feeds),
            self._tokens,
            self._writer.whole_shards,
            max(shares, default=None),
        )

    def _save(self) -> None:
        save_state(
            self._work,
            self._writer.flush(),
            self._heldout,
            feeds=tuple(feed.state for feed in self._feeds),
            group=self._group,
            open_document=self._open,
        )
