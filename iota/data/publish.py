"""Upload of prepared data to an object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from iota.console.watch import Watch
from iota.data.manifest import MANIFEST_NAME, Manifest, manifest_id
from iota.objects import manifest_folder, tokenizer_key
from iota.store import ObjectStore, StoreUnavailable


async def publish(
    manifest: Manifest,
    out: Path,
    store: ObjectStore,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
) -> None:
    """Copy the data that `prepare` wrote to `out` into `store`, the manifest last.

    Objects that exist are not sent again, so that repeating a call resumes it. A store that is away is
    outlasted by the rule of `Condition.STORE_AWAY`, which `watch` says. `progress` is called with the number
    of shards uploaded and of all shards.

    Raises:
        ConditionStands: the store was away until the condition's end.
        StoreError: if the store refuses a request, or has other bytes under one of the keys.
        OSError: if a shard cannot be read.
    """
    watch = watch or Watch("the upload")
    await watch.persevere(store.adapt, StoreUnavailable)

    async def send(key: str, data: bytes) -> None:
        await watch.persevere(lambda: store.put(key, data), StoreUnavailable)

    folder = manifest_folder(manifest_id(manifest))
    for done, shard in enumerate(manifest.shards):
        if progress is not None:
            progress(done, len(manifest.shards))
        # Objects are complete or absent, and the manifest's digest is in the key: existence is enough.
        for name in (f"{shard.name}.idx", f"{shard.name}.bin"):
            key = f"{folder}/{name}"
            if await watch.persevere(partial(store.size, key), StoreUnavailable) is None:
                await send(key, await asyncio.to_thread((out / key).read_bytes))
    key = tokenizer_key(manifest_id(manifest))
    await send(key, await asyncio.to_thread((out / key).read_bytes))
    await send(f"{folder}/{MANIFEST_NAME}", manifest.canonical())
    if progress is not None:
        progress(len(manifest.shards), len(manifest.shards))
