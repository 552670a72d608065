"""The seam between a miner and the ways in which its frames travel."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """Carries whole frames. `send` returns when the far side has *stored* the frame."""

    async def send(self, address: str, frame: bytes, deadline_s: float) -> None: ...

    async def receive(self, address: str, size: int, deadline_s: float) -> bytes: ...
