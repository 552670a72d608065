"""The metadata of the runtimes that the loopback node can run, made from a recorded one (see NOTICE)."""

from __future__ import annotations

import functools
import lzma
import struct
from enum import StrEnum
from pathlib import Path
from typing import Final

RECORDED_SPEC_VERSION: Final = 461
_RECORDED_TYPES: Final = 802
_U64_TYPE: Final = 7
_NETUID_TYPE: Final = 41
_IDENTITY_HASHER: Final = 6


class RuntimeKind(StrEnum):
    """How the runtime relates to the SDK under test."""

    FITTING = "fitting"
    ITEM_ABSENT = "item_absent"
    """Older than the SDK: `SubtensorModule.SubnetEpochConsensus` is not there."""
    CALL_CHANGED = "call_changed"
    """Newer than the SDK: the calls that write weights name an argument differently."""


@functools.cache
def runtime_metadata(kind: RuntimeKind, slot_ms: int) -> bytes:
    """Metadata version 15, from its `meta` magic on.

    Args:
        slot_ms: the constant `Aura.SlotDuration`, from which the SDK takes the block time.
    """
    metadata = lzma.decompress((Path(__file__).parent / "runtime-461.scale.xz").read_bytes())
    metadata = _with_slot_duration(metadata, slot_ms)
    if kind is RuntimeKind.ITEM_ABSENT:
        return metadata
    metadata = _with_epoch_consensus(metadata)
    if kind is RuntimeKind.CALL_CHANGED:
        # Of the same length: nothing else in the blob moves.
        old, new = (_vector(name.encode()) for name in ("version_key", "weights_key"))
        metadata = _replace(metadata, b"\x01" + old, b"\x01" + new, times=metadata.count(b"\x01" + old))
    return metadata


def _with_slot_duration(metadata: bytes, slot_ms: int) -> bytes:
    recorded = _vector(b"SlotDuration") + _compact(_U64_TYPE) + _vector(struct.pack("<Q", 250))
    changed = _vector(b"SlotDuration") + _compact(_U64_TYPE) + _vector(struct.pack("<Q", slot_ms))
    return _replace(metadata, recorded, changed)


def _with_epoch_consensus(metadata: bytes) -> bytes:
    """Adds the enum type at the end of the type registry, and the item at the start of its pallet."""
    variants = b"".join(
        _vector(name) + b"\x00" + bytes([i]) + b"\x00" for i, name in enumerate((b"Yuma", b"Null"))
    )
    path = _compact(2) + _vector(b"pallet_subtensor") + _vector(b"EpochConsensus")
    enum = _compact(_RECORDED_TYPES) + path + b"\x00" + b"\x01" + _compact(2) + variants + b"\x00"
    head = b"meta\x0f"
    metadata = _replace(metadata, head + _compact(_RECORDED_TYPES), head + _compact(_RECORDED_TYPES + 1))
    # The registry ends where the list of pallets begins: 28 of them, the first is System.
    pallets = _compact(28) + _vector(b"System") + b"\x01" + _vector(b"System")
    metadata = _replace(metadata, pallets, enum + pallets)

    map_of_netuid = (
        b"\x01" + _vector(bytes([_IDENTITY_HASHER])) + _compact(_NETUID_TYPE) + _compact(_RECORDED_TYPES)
    )
    item = _vector(b"SubnetEpochConsensus") + b"\x01" + map_of_netuid + _vector(b"\x00") + b"\x00"
    pallet = _vector(b"SubtensorModule") + b"\x01" + _vector(b"SubtensorModule")
    start = metadata.index(pallet) + len(pallet)
    count = struct.unpack_from("<H", metadata, start)[0] >> 2
    return metadata[:start] + _compact(count + 1) + item + metadata[start + 2 :]


def _replace(metadata: bytes, old: bytes, new: bytes, times: int = 1) -> bytes:
    if metadata.count(old) != times or not times:
        raise ValueError(f"the recorded metadata holds {old!r} {metadata.count(old)} times")
    return metadata.replace(old, new)


def _compact(number: int) -> bytes:
    """SCALE's compact integer, up to two bytes."""
    if number < 64:
        return bytes([number << 2])
    if number < 1 << 14:
        return struct.pack("<H", number << 2 | 1)
    raise ValueError(f"{number} needs more than two bytes")


def _vector(content: bytes) -> bytes:
    return _compact(len(content)) + content
