"""Putting prepared data into an object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from iota.data.manifest import MANIFEST_NAME, Manifest, manifest_id
from iota.objects import manifest_folder
from iota.store import ObjectStore


async def publish(
    manifest: Manifest,
    out: Path,
    store: ObjectStore,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the data that `prepare` wrote below `out` into `store`, the manifest last.

    What is there already is not sent again, so the same call continues one that broke off. `progress`
    gets the number of shards done and of all.

    Raises:
        StoreError: if the store fails, or holds other bytes under one of the keys.
        OSError: if a shard cannot be read.
    """
    folder = manifest_folder(manifest_id(manifest))
    for done, shard in enumerate(manifest.shards):
        if progress is not None:
            progress(done, len(manifest.shards))
        # An object is there whole or not at all, under a key that only these bytes have.
        for name in (f"{shard.name}.idx", f"{shard.name}.bin"):
            key = f"{folder}/{name}"
            if not await store.exists(key):
                await store.put(key, await asyncio.to_thread((out / key).read_bytes))
    await store.put(f"{folder}/{MANIFEST_NAME}", manifest.canonical())
    if progress is not None:
        progress(len(manifest.shards), len(manifest.shards))
