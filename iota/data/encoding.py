"""Tokenizes documents in blocks, by several processes. What comes out does not depend on how many."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Final

import numpy as np

from iota.data.documents import Cursor, Document, Source
from iota.data.heldout import Tokens, rank
from iota.data.manifest import DataError, TokenDtype
from iota.data.tokenizers import Tokenizer

BLOCK_DOCUMENTS: Final = 1024
BLOCK_CHARACTERS: Final = 1 << 20
"""A block ends at either bound."""

Skipped = dict[str, int]
Ids = tuple[list[bytes], list[int], Tokens]
"""Of a block: the ranks and sizes of its texts, and their tokens, one text after the other."""


@dataclass(frozen=True)
class Encoded:
    """A tokenized document, or part of one: see `Document`. `tokens` has shape (length,) and no EOS."""

    name: str
    part: int
    last: bool
    rank: bytes
    tokens: Tokens


@dataclass(frozen=True)
class Block:
    """Documents that are tokenized together. The rows skipped are counted since the source's beginning."""

    start: Cursor
    documents: list[Document]
    skipped_before: Skipped
    skipped: Skipped


@dataclass(frozen=True)
class EncodedBlock:
    """A tokenized block. A source that is read from `start` on gives it again."""

    start: Cursor
    documents: list[Encoded]
    skipped_before: Skipped
    skipped: Skipped


def blocks(source: Source, start: Cursor, skipped: Skipped) -> Iterator[Block]:
    """The documents from `start` on in blocks; the last may hold none, and what was skipped after all.

    `skipped` are the rows that were skipped before `start`.
    """
    counts = Counter(skipped)
    found: list[Document] = []
    before, characters = dict(counts), 0
    for document in source.read(start, counts):
        found.append(document)
        characters += len(document.text)
        if len(found) >= BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS:
            yield Block(start, found, before, dict(counts))
            start, found, before, characters = document.after, [], dict(counts), 0
    yield Block(start, found, before, dict(counts))


class Encoder:
    """Tokenizes blocks with `workers` processes, or in this process if it is one. A context manager.

    Raises:
        ValueError: if `workers` is below 1.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: TokenDtype, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers cannot tokenize: give at least 1")
        self._workers = workers
        self._encode: Callable[[list[str]], Ids] = lambda texts: _encode(tokenizer, dtype, texts)
        # Forking a process that has threads can deadlock, and reading data starts some.
        self._pool = (
            ProcessPoolExecutor(workers, get_context("spawn"), _begin, (tokenizer, dtype))
            if workers > 1
            else None
        )

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def encode(self, found: Iterable[Block]) -> Iterator[EncodedBlock]:
        """Tokenized blocks, in order. Reads a bounded number of blocks ahead.

        Raises:
            ValueError: if a block cannot be read, after all blocks before it have been given.
            DataError: if a worker process died.
        """
        source = iter(found)
        waiting: deque[tuple[EncodedBlock, list[tuple[str, int, bool]], Future[Ids]]] = deque()
        failed: ValueError | None = None
        ended = False
        while True:
            while not (ended or failed) and len(waiting) < self._window:
                try:
                    block = next(source)
                except StopIteration:
                    ended = True
                except ValueError as error:
                    failed = error
                else:
                    waiting.append(self._submit(block))
            if not waiting:
                if failed is not None:
                    raise failed
                return
            done, labels, future = waiting.popleft()
            with _alive():
                done.documents.extend(_unpacked(labels, future.result()))
            yield done

    @property
    def _window(self) -> int:
        return 1 if self._pool is None else self._workers + 2

    def _submit(self, block: Block) -> tuple[EncodedBlock, list[tuple[str, int, bool]], Future[Ids]]:
        labels = [(document.name, document.part, document.last) for document in block.documents]
        texts = [document.text for document in block.documents]
        future: Future[Ids]
        if self._pool is None:
            future = Future()
            future.set_result(self._encode(texts))
        else:
            with _alive():
                future = self._pool.submit(_work, texts)
        return EncodedBlock(block.start, [], block.skipped_before, block.skipped), labels, future


@contextmanager
def _alive() -> Iterator[None]:
    """Raises `DataError` for a worker process that died."""
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, perhaps for want of memory: run the same command again with fewer"
            " --workers; it continues where it stopped"
        ) from error


def _unpacked(labels: list[tuple[str, int, bool]], ids: Ids) -> Iterator[Encoded]:
    ranks, sizes, tokens = ids
    pieces = np.split(tokens, np.cumsum(sizes)[:-1]) if sizes else []
    for label, text_rank, piece in zip(labels, ranks, pieces, strict=True):
        yield Encoded(*label, text_rank, piece)


def _encode(tokenizer: Tokenizer, dtype: TokenDtype, texts: list[str]) -> Ids:
    found = [ids.astype(dtype.numpy) for ids in tokenizer.encode_batch(texts)]
    tokens = np.concatenate(found or [np.array([], dtype.numpy)])
    return [rank(text) for text in texts], [ids.size for ids in found], tokens


# ---- in a worker process ---------------------------------------------------------------------------

_worker: list[tuple[Tokenizer, TokenDtype]] = []


def _begin(tokenizer: Tokenizer, dtype: TokenDtype) -> None:
    # One thread a worker: the workers are as many as the cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C is the parent's, which shuts the workers down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker.append((tokenizer, dtype))


def _exit_with_parent() -> None:
    """End this process when its parent ends. A worker of a killed parent would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(texts: list[str]) -> Ids:
    return _encode(*_worker[0], texts)
