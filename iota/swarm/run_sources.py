"""Where a run is read from: a folder of `iota up`, a journal and its store, or a running orchestrator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from iota.client.orchestrator import OrchestratorClient
from iota.console.redaction import without_secrets
from iota.exporting import (
    Facts,
    FolderObjects,
    Objects,
    OrchestratorFacts,
    RecordedFacts,
    UrlObjects,
)
from iota.http import Reach
from iota.settings import NodeSettings, OrchestratorSettings
from iota.store import ObjectStore, open_store
from iota.store.secret import load_secret
from iota.store.transfer import ObjectClient
from iota.swarm.run_dir import RunDir, no_run

RETRY_FOR_S: Final = 30.0
"""How long an orchestrator may be silent."""
URL_S: Final = 3600.0
"""Lifetime of a URL, which is used at once."""
Opened = tuple[Facts, Objects]
"""What is known of a run, and its objects."""


async def from_folder(root: Path, say: Callable[[str], None]) -> Opened:
    """The run of an `iota up`, which may go on meanwhile. Raises ValueError where there is none."""
    run = RunDir(root)
    if not run.journal.exists():
        raise no_run(root)
    return RecordedFacts(**_recorded(run.journal, say)), FolderObjects(run.store)


async def from_journal(
    settings: OrchestratorSettings, stack: AsyncExitStack, say: Callable[[str], None]
) -> Opened:
    """The run of `settings.journal`, whose objects are in `settings.store`; `stack` closes connections."""
    if settings.journal is None:
        raise ValueError("--store needs --journal FILE, the journal of the orchestrator")
    store = opened_store(settings)
    stack.push_async_callback(store.close)

    async def signed(key: str) -> str:
        return store.presign_get(key, URL_S)

    client = await stack.enter_async_context(ObjectClient())
    return RecordedFacts(**_recorded(settings.journal, say)), UrlObjects(signed, client)


async def from_orchestrator(
    settings: NodeSettings, stack: AsyncExitStack, say: Callable[[str], None]
) -> Opened:
    """The run of the orchestrator at `settings.orchestrator`; `stack` closes connections.

    Raises OrchestratorUnreachable.
    """
    url, reach = settings.orchestrator, Reach(anywhere=settings.allow_private_urls)
    client = await stack.enter_async_context(ObjectClient(reach))
    say(f"asking {without_secrets(url)}")
    asked = await stack.enter_async_context(
        OrchestratorClient(None, url, settings.orchestrator_hotkey, retry_for_s=RETRY_FOR_S, reach=reach)
    )

    async def asked_for(key: str) -> str:
        return (await asked.public_object(key)).url

    info = await asked.run()
    return OrchestratorFacts(info.spec, asked), UrlObjects(asked_for, client)


def opened_store(settings: OrchestratorSettings) -> ObjectStore:
    """The store of `settings`, with its secret."""
    secret = settings.store_secret_file
    return open_store(settings.store, load_secret(secret) if secret else None)


def _recorded(journal: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The arguments of RecordedFacts from a journal."""
    from orchestrator.journal import read_journal

    say(f"reading the journal {journal}")
    found = read_journal(journal)
    bases = {
        (epoch, stage): base
        for epoch in found.stored_epochs()
        for stage in range(found.spec.layout.stages)
        if (base := found.stored_base(epoch, stage)) is not None
    }
    return {"spec": found.spec, "bases": bases, "status": found.status()}
