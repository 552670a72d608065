"""The clients with which a miner or a validator speaks to its orchestrator and to the object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from iota.client.known_orchestrator import KnownOrchestrator
from iota.client.orchestrator import OrchestratorClient
from iota.console.watch import Watch
from iota.http import Reach
from iota.identity.keys import Hotkey
from iota.settings import NodeSettings
from iota.store.transfer import ObjectClient


class NodeClients(NamedTuple):
    """The clients, and the rule on addresses that they go by."""

    orchestrator: OrchestratorClient
    objects: ObjectClient
    reach: Reach


@asynccontextmanager
async def open_clients(settings: NodeSettings, hotkey: Hotkey, watch: Watch) -> AsyncIterator[NodeClients]:
    """The clients of a node. Both go by one rule on where the orchestrator's URLs may lead."""
    reach = Reach(anywhere=settings.allow_private_urls)
    async with (
        OrchestratorClient(
            hotkey,
            settings.orchestrator,
            settings.orchestrator_hotkey,
            known=KnownOrchestrator(settings.data_dir / "orchestrator"),
            watch=watch,
            reach=reach,
        ) as client,
        ObjectClient(reach) as objects,
    ):
        yield NodeClients(client, objects, reach)
