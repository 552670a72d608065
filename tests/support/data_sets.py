"""Small data sets for the data tests, prepared by the real code from generated text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iota.data import Document, Manifest, manifest_id, open_tokenizer, prepare


@dataclass(frozen=True)
class MadeUp:
    """A source of `count` documents of different lengths; each begins with its own number."""

    count: int
    name: str = "made-up"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{self.count}"

    def documents(self, start: int = 0) -> Iterator[Document]:
        for index in range(start, self.count):
            yield Document(index, f"doc-{index}", made_up_text(index))


def made_up_text(index: int) -> str:
    return f"{index:06d} " + "abcdefghij" * (index * 7919 % 23)


def prepare_made_up(
    out: Path, count: int = 3000, shard_tokens: int = 100_000, heldout_tokens: int = 20_000
) -> Manifest:
    return prepare(MadeUp(count), open_tokenizer("bytes"), out, shard_tokens, heldout_tokens)


def data_folder(out: Path, manifest: Manifest) -> Path:
    return out / "data" / manifest_id(manifest)


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path
