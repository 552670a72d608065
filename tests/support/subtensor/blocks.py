"""What a chain is made of: calls, extrinsics, events, blocks, and the two ways to be refused."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

Params = tuple[Hashable, ...]
"""Parameters of a storage key, decoded: int, ss58 str, ..."""

RAO = 1_000_000_000
"""rao per TAO; the chain counts in rao."""


@dataclass(frozen=True)
class Call:
    """A call, its arguments as the SDK's codec decodes them."""

    module: str
    function: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Extrinsic:
    """A call in a block. An inherent, which nobody signed, has an empty signer."""

    call: Call
    signer: str
    """ss58."""
    nonce: int
    era: tuple[int, int] | None
    """First and last-but-one block where it is valid: birth <= block < death. None is immortal."""
    hash: str
    data: bytes = b""
    """As it came over the wire; empty where there was no wire."""


@dataclass(frozen=True)
class ModuleError:
    """A refusal by a pallet, by the names in the metadata. The `dispatch_error` of an `ExtrinsicFailed`."""

    module: str
    name: str


@dataclass(frozen=True)
class Event:
    module: str
    name: str
    attributes: Mapping[str, Any] | tuple[Any, ...]
    extrinsic_index: int | None
    """Into `ChainBlock.extrinsics`; None for what no extrinsic caused."""


@dataclass(frozen=True)
class ChainBlock:
    number: int
    hash: str
    parent: str
    time_ms: int
    """Unix time of its slot, milliseconds."""
    extrinsics: tuple[Extrinsic, ...]
    """The first is the inherent `Timestamp.set`, except in the genesis block, which has none."""
    events: tuple[Event, ...]


class PoolRefusal(Exception):
    """A node does not take an extrinsic into its pool; the JSON-RPC error it answers with."""

    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(f"{message}: {data}")
        self.code = code
        self.message = message
        self.data = data


class DispatchFailure(Exception):
    """A pallet refuses a call: its storage changes are undone, its fee and nonce are spent."""

    def __init__(self, name: str, module: str = "SubtensorModule") -> None:
        super().__init__(f"{module}.{name}")
        self.error = ModuleError(module, name)


def blake(*parts: object) -> str:
    """A hash of the parts' text: 32 bytes in hex, `0x` first."""
    return "0x" + hashlib.blake2b(repr(parts).encode(), digest_size=32).hexdigest()
