"""Data preparation: tokenizes sources into shards and writes their manifest.

The output is a function of the sources, the tokenizer and the sizes: a preparation that was killed and
resumed, or that used other numbers of processes, writes the same bytes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from iota.data.encoding import Encoder
from iota.data.exported_tokenizer import keep_definition
from iota.data.job import Job
from iota.data.manifest import (
    MANIFEST_NAME,
    DataError,
    Manifest,
    SourceInfo,
    TokenizerInfo,
    manifest_id,
    parse_manifest,
)
from iota.data.packer import Packed, Packer, PackProgress
from iota.files import FileLock
from iota.objects import manifest_folder


def prepare(
    job: Job,
    out: Path,
    progress: Callable[[PackProgress], None] | None = None,
    *,
    workers: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Manifest:
    """Write the data to `out`/data/<manifest id>/ and return the manifest.

    Args:
        workers: processes that tokenize; 1 does it in this one.
        clock: seconds; decides only how often a checkpoint is saved.

    Repeating a call resumes a killed one, and returns the manifest at once if the data is complete and no
    source has changed.

    Raises:
        ValueError: if a source is empty, unreadable or too small, if one changed meanwhile, or if another
            process prepares the same data in `out`.
        DataError: if a worker process died.
    """
    identity = job.identity
    record = out / f".prepared-{identity}"
    if (earlier := _finished(out, record)) is not None:
        keep_definition(out, earlier, job.tokenizer.definition)
        return earlier
    work = out / f".prepare-{identity}"
    out.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(
            out / f".lock-{identity}",
            lambda: ValueError(f"another process prepares this data in {out}: wait for it"),
        ),
        Encoder(job.tokenizer, job.dtype, workers) as encoder,
    ):
        work.mkdir(exist_ok=True)
        packer = Packer(job, work, encoder)
        try:
            packed = packer.run(progress, clock)
        finally:
            packer.close()
        if job.identity != identity:
            raise ValueError(f"{job.name} changed while it was read: run the same command again")
        manifest = _manifest(job, packed)
        _install(manifest, work, out, record)
        keep_definition(out, manifest, job.tokenizer.definition)
    return manifest


def _manifest(job: Job, packed: Packed) -> Manifest:
    return Manifest(
        source=job.name,
        sources=tuple(
            SourceInfo(
                name=weighted.source.name,
                fingerprint=weighted.source.fingerprint,
                weight=weighted.weight,
                documents=taken.documents,
                tokens=taken.tokens,
                complete=taken.complete,
                skipped=taken.skipped,
            )
            for weighted, taken in zip(job.sources, packed.feeds, strict=True)
        ),
        duplicates=packed.duplicates,
        tokenizer=TokenizerInfo.model_validate(job.tokenizer, from_attributes=True),
        dtype=job.dtype,
        shards=packed.shards,
    )


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
