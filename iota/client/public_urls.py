"""URLs of a run's public objects, for readers that are no members."""

from __future__ import annotations

from dataclasses import dataclass

from iota.client.orchestrator import OrchestratorClient
from iota.protocol.messages import ObjectReply, ObjectRequest


@dataclass(frozen=True)
class PublicUrls:
    """The source of URLs for `RunObjects` without a hotkey: what is not public is refused."""

    client: OrchestratorClient

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        """A presigned URL for reading one public object. Raises Problem."""
        return await self.client.public_object(request.key)
