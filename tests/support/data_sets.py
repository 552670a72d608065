"""Small data sets for the data tests, prepared by the real code from generated text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iota.data import Document, Job, Manifest, Source, Target, Weighted, manifest_id, open_tokenizer, prepare
from iota.data.documents import Cursor
from iota.data.tokenizers import Tokenizer

EOS = 256
"""Of the tokenizer `bytes`."""


@dataclass(frozen=True)
class MadeUp:
    """A source of `count` documents of different lengths; each begins with its own number."""

    count: int
    name: str = "made-up"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{self.count}"

    @property
    def left_out(self) -> str:
        return ""

    @property
    def identity(self) -> str:
        return self.fingerprint

    def fraction(self, at: Cursor) -> float | None:
        return (at or 0) / self.count

    def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
        for index in range(start or 0, self.count):
            yield Document(f"doc-{index}", made_up_text(index), index + 1)


def made_up_text(index: int) -> str:
    return f"{index:06d} " + "abcdefghij" * (index * 7919 % 23)


def made_up_job(
    source: Source,
    shard_tokens: int = 100_000,
    heldout_tokens: int = 20_000,
    tokenizer: Tokenizer | None = None,
) -> Job:
    """A job on one source, with the tokenizer `bytes` unless another is given."""
    tokenizer = tokenizer or open_tokenizer("bytes")
    return Job([Weighted(source)], tokenizer, shard_tokens, Target.exactly(heldout_tokens))


def bytes_job(source: Source, **options: object) -> Job:
    """A job on one source with the tokenizer `bytes`."""
    return Job([Weighted(source)], open_tokenizer("bytes"), **options)  # type: ignore[arg-type]


def prepare_made_up(
    out: Path, count: int = 3000, shard_tokens: int = 100_000, heldout_tokens: int = 20_000
) -> Manifest:
    return prepare(made_up_job(MadeUp(count), shard_tokens, heldout_tokens), out)


def data_folder(out: Path, manifest: Manifest) -> Path:
    return out / "data" / manifest_id(manifest)


def tokens_of(out: Path, manifest: Manifest, number: int) -> np.ndarray:
    path = data_folder(out, manifest) / f"{manifest.shards[number].name}.bin"
    return np.frombuffer(path.read_bytes(), manifest.dtype.numpy)


def train_tokens(out: Path, manifest: Manifest) -> np.ndarray:
    return np.concatenate([tokens_of(out, manifest, i) for i in range(len(manifest.train))])


def text_of(tokens: np.ndarray) -> str:
    return tokens.astype(np.uint8).tobytes().decode()


def documents_in(tokens: np.ndarray) -> list[str]:
    """The documents in a stream of ids. An EOS ends each; the last may have been cut."""
    pieces = np.split(tokens, np.flatnonzero(tokens == EOS) + 1)
    return [text_of(piece[piece != EOS]) for piece in pieces if piece.size]


def data_files(out: Path) -> dict[str, bytes]:
    """All files below `out`/data."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "data").rglob("*") if p.is_file()}


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path
