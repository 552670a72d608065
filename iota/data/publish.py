"""Upload of prepared data to an object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from iota.data.manifest import MANIFEST_NAME, Manifest, manifest_id
from iota.objects import manifest_folder, tokenizer_key
from iota.store import ObjectStore


async def publish(
    manifest: Manifest,
    out: Path,
    store: ObjectStore,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the data that `prepare` wrote to `out` into `store`, the manifest last.

    Objects that exist are not sent again, so that repeating a call resumes it. `progress` is called with
    the number of shards uploaded and of all shards.

    Raises:
        StoreError: if the store fails, or has other bytes under one of the keys.
        OSError: if a shard cannot be read.
    """
    folder = manifest_folder(manifest_id(manifest))
    for done, shard in enumerate(manifest.shards):
        if progress is not None:
            progress(done, len(manifest.shards))
        # Objects are complete or absent, and the manifest's digest is in the key: existence is enough.
        for name in (f"{shard.name}.idx", f"{shard.name}.bin"):
            key = f"{folder}/{name}"
            if not await store.exists(key):
                await store.put(key, await asyncio.to_thread((out / key).read_bytes))
    key = tokenizer_key(manifest_id(manifest))
    await store.put(key, await asyncio.to_thread((out / key).read_bytes))
    await store.put(f"{folder}/{MANIFEST_NAME}", manifest.canonical())
    if progress is not None:
        progress(len(manifest.shards), len(manifest.shards))
