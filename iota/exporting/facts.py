"""What is known of a run for an export: its spec, its stored bases, its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from iota.client.orchestrator import OrchestratorClient
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec


class Facts(Protocol):
    """Facts about one run. Every method may raise the errors of `OrchestratorClient`."""

    spec: RunSpec

    async def epochs(self) -> list[int]:
        """The epochs whose base is stored by every stage, in order."""

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        """The record of a stored base, unverified."""

    async def manifest(self) -> bytes | None:
        """The data manifest, unverified; None where it is to be read from the store."""

    async def status(self) -> dict[str, Any]:
        """The public state, as `GET /v1/status` has it."""


class OrchestratorFacts:
    """Facts from the public calls of a running orchestrator."""

    def __init__(self, spec: RunSpec, client: OrchestratorClient) -> None:
        self.spec, self._client = spec, client

    async def epochs(self) -> list[int]:
        return await self._client.base_epochs()

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        return await self._client.base(epoch, stage)

    async def manifest(self) -> bytes | None:
        return await self._client.manifest()

    async def status(self) -> dict[str, Any]:
        return await self._client.status()


class RecordedFacts:
    """Facts that a journal holds, for an orchestrator that may be stopped."""

    def __init__(
        self, spec: RunSpec, bases: Mapping[tuple[int, int], BaseRecord], status: dict[str, Any]
    ) -> None:
        """`bases` has those of whole epochs, by (epoch, stage)."""
        self.spec, self._bases, self._status = spec, bases, status

    async def epochs(self) -> list[int]:
        return sorted({epoch for epoch, _ in self._bases})

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        return self._bases[epoch, stage]

    async def manifest(self) -> bytes | None:
        return None

    async def status(self) -> dict[str, Any]:
        return self._status
