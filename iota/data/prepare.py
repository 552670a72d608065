"""Data preparation: tokenizes a source into shards and writes their manifest.

Documents are processed in blocks. Each document is tokenized and offered to the held-out set; the rest
is written in an order keyed by the block's number, since the source may be sorted. The output is a
function of the source, the tokenizer and the sizes, so that a preparation that was killed and resumed
writes the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from iota.data.documents import Source
from iota.data.exported_tokenizer import keep_definition
from iota.data.manifest import (
    MANIFEST_NAME,
    DataError,
    Manifest,
    TokenizerInfo,
    manifest_id,
    parse_manifest,
)
from iota.data.packer import Job, Packer, PackProgress
from iota.data.tokenizers import Tokenizer
from iota.files import FileLock
from iota.objects import manifest_folder

SHARD_TOKENS = 1 << 25
"""64 MiB of two-byte ids."""
HELDOUT_TOKENS = 1 << 17
"""128 sequences of 1024 tokens."""


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    out: Path,
    shard_tokens: int = SHARD_TOKENS,
    heldout_tokens: int = HELDOUT_TOKENS,
    progress: Callable[[PackProgress], None] | None = None,
    *,
    max_tokens: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Manifest:
    """Write the data to `out`/data/<manifest id>/ and return the manifest.

    Args:
        shard_tokens: tokens of a training shard; the last training shard is shorter.
        heldout_tokens: least tokens of the held-out shard.
        max_tokens: stop reading the source after this many; None reads all of it.
        clock: seconds; decides only how often a checkpoint is saved.

    Repeating a call resumes a killed one, and returns the manifest at once if the data is complete.

    Raises:
        ValueError: if the source is empty, unreadable or too small, or another process prepares the same
            data in `out`.
    """
    job = Job(source, tokenizer, shard_tokens, heldout_tokens, max_tokens)
    record = out / f".prepared-{job.identity}"
    if (earlier := _finished(out, record)) is not None:
        keep_definition(out, earlier, tokenizer.definition)
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
            source=source.name,
            tokenizer=TokenizerInfo.model_validate(tokenizer, from_attributes=True),
            dtype=job.dtype,
            shards=shards,
        )
        _install(manifest, work, out, record)
        keep_definition(out, manifest, tokenizer.definition)
    return manifest


def _finished(out: Path, record: Path) -> Manifest | None:
    """The manifest that `record` names, if this job ran before and its data still exists."""
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


def _install(manifest: Manifest, work: Path, out: Path, record: Path) -> None:
    """Rename the complete work folder to its final name, and note the manifest's id in `record`."""
    identity = manifest_id(manifest)
    kept = {MANIFEST_NAME} | {f"{s.name}{suffix}" for s in manifest.shards for suffix in (".bin", ".idx")}
    (work / MANIFEST_NAME).write_bytes(manifest.canonical())
    for path in work.iterdir():
        if path.name not in kept:
            path.unlink()
    target = out / manifest_folder(identity)
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        # Another job has produced the same bytes.
        shutil.rmtree(work)
    else:
        os.rename(work, target)
    record.write_text(identity + "\n")
