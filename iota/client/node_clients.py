"""The clients with which a miner or a validator speaks to its orchestrator and to the object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from iota.client.known_orchestrator import KnownOrchestrator
from iota.client.orchestrator import OrchestratorClient
from iota.console.watch import Watch
from iota.http import Reach, UploadPace
from iota.identity.keys import Hotkey
from iota.settings import NodeSettings
from iota.store.transfer import ObjectClient


class NodeClients(NamedTuple):
    """The clients, the rule on addresses that they go by, and the pace at which they send objects."""

    orchestrator: OrchestratorClient
    objects: ObjectClient
    reach: Reach
    pace: UploadPace


@asynccontextmanager
async def open_clients(
    settings: NodeSettings, hotkey: Hotkey, watch: Watch, max_upload: float | None = None
) -> AsyncIterator[NodeClients]:
    """The clients of a node. Both go by one rule on where the orchestrator's URLs may lead.

    `max_upload`: bytes a second that objects may take of the uplink.
    """
    reach, pace = Reach(anywhere=settings.allow_private_urls), UploadPace(max_upload)
    async with (
        OrchestratorClient(
            hotkey,
            settings.orchestrator,
            settings.orchestrator_hotkey,
            known=KnownOrchestrator(settings.data_dir / "orchestrator"),
            watch=watch,
            reach=reach,
        ) as client,
        ObjectClient(reach, pace) as objects,
    ):
        yield NodeClients(client, objects, reach, pace)
