"""Preparing data: documents in, tokenized shards with a manifest out.

Documents are taken in blocks. Each is tokenized, offered to the held-out set, and what is left is
written in an order keyed by the block's number, so that neighbouring shards are alike although the
source may be sorted. Everything follows from the source, the tokenizer and the sizes: a preparation
that was killed and continued ends with the same bytes as one that was not.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from iota.data.documents import Source
from iota.data.manifest import MANIFEST_NAME, DataError, Manifest, manifest_id, parse_manifest
from iota.data.packer import Job, Packer, Progress
from iota.data.tokenizers import Tokenizer, tokenizer_info
from iota.files import FileLock
from iota.objects import manifest_folder

SHARD_TOKENS = 1 << 25
HELDOUT_TOKENS = 1 << 17


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    out: Path,
    shard_tokens: int = SHARD_TOKENS,
    heldout_tokens: int = HELDOUT_TOKENS,
    progress: Callable[[Progress], None] | None = None,
    *,
    max_tokens: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Manifest:
    """Write `out`/data/<manifest id>/ and return its manifest.

    Args:
        shard_tokens: tokens of a training shard; the last of them is shorter.
        heldout_tokens: least tokens of the held-out shard.
        max_tokens: stop reading the source after so many; None reads all of it.
        clock: seconds; decides only how often the state is saved.

    The same call again continues a killed one, and returns at once if one has ended.

    Raises:
        ValueError: on a source that is empty, unreadable or too small, or that is being prepared by
            another process.
    """
    job = Job(source, tokenizer, shard_tokens, heldout_tokens, max_tokens)
    record = out / f".prepared-{job.identity}"
    if (earlier := _earlier(out, record)) is not None:
        return earlier
    work = out / f".prepare-{job.identity}"
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(
        out / f".lock-{job.identity}",
        lambda: ValueError(f"another process prepares this data in {out}: wait for it"),
    ):
        work.mkdir(exist_ok=True)
        packer = Packer(job, work)
        try:
            packer.run(progress, clock)
            shards = packer.finish()
        finally:
            packer.close()
        manifest = Manifest(
            source=source.name, tokenizer=tokenizer_info(tokenizer), dtype=job.dtype, shards=shards
        )
        _move_in(manifest, work, out, record)
    return manifest


def _earlier(out: Path, record: Path) -> Manifest | None:
    """The manifest that this very job ended with, if its data is still there."""
    if not record.exists():
        return None
    identity = record.read_text().strip()
    path = out / manifest_folder(identity) / MANIFEST_NAME
    if not path.exists():
        return None
    try:
        return parse_manifest(path.read_bytes(), identity)
    except DataError as error:
        raise ValueError(f"{path} is damaged ({error}): delete {record} and {path.parent}") from error


def _move_in(manifest: Manifest, work: Path, out: Path, record: Path) -> None:
    """Give the finished work folder its name, at once and whole."""
    identity = manifest_id(manifest)
    kept = {MANIFEST_NAME} | {f"{s.name}{suffix}" for s in manifest.shards for suffix in (".bin", ".idx")}
    (work / MANIFEST_NAME).write_bytes(manifest.canonical())
    for path in work.iterdir():
        if path.name not in kept:
            path.unlink()
    target = out / manifest_folder(identity)
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        # Another source or an earlier job came to the same bytes.
        shutil.rmtree(work)
    else:
        os.rename(work, target)
    record.write_text(identity + "\n")
