"""Frames by the object store: a presigned PUT, an event to the receiver, a presigned GET."""

from __future__ import annotations

from iota.store.transfer import ObjectClient


class StoreTransport:
    """Addresses are presigned URLs."""

    def __init__(self, objects: ObjectClient) -> None:
        self._objects = objects

    async def send(self, address: str, frame: bytes, deadline_s: float) -> None:
        """Raises StoreError when the frame could not be stored in time."""
        await self._objects.put(address, frame, deadline_s)

    async def receive(self, address: str, size: int, deadline_s: float) -> bytes:
        """The frame of exactly `size` bytes. Raises StoreError."""
        return await self._objects.get(address, size, deadline_s)
