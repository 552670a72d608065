"""A `Subtensor` behind the SDK's `Substrate` protocol: decoded values, no codec, no signatures, no network.

    chain = Subtensor()
    client = bt.Client("local", substrate=MemorySubstrate(chain))

The chain makes the blocks that a waiting caller needs at once, unless they are to be made by hand.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from bittensor._transport.errors import StorageFunctionNotFound
from bittensor.balance import Balance
from bittensor.result import ChainError, ConnectionNotReady, ExtrinsicResult, RpcConnectionError
from bittensor.sp_core import ss58_decode

from tests.support.subtensor import pallets
from tests.support.subtensor.blocks import Call, ChainBlock, Extrinsic, PoolRefusal, blake
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.decoded import (
    abandoned,
    decoded_block,
    decoded_events,
    decoded_header,
    outcome,
    refused,
)
from tests.support.subtensor.shield import Shield
from tests.support.subtensor.storage_items import ACCOUNT, STORAGE_ITEMS, StorageItem

SPEC_VERSION: Final = 461
MAX_BLOCKS: Final = 256
"""More than any era: no extrinsic in the pool waits longer."""


@dataclass(frozen=True)
class ComposedCall:
    """A call that is ready to be signed."""

    module: str
    function: str
    params: dict[str, Any]

    @property
    def data(self) -> bytes:
        return repr((self.module, self.function, self.params)).encode()

    @property
    def call_hash(self) -> bytes:
        return bytes.fromhex(blake(self.data)[2:])


class MemorySubstrate:
    """One client's connection to a chain. Several may share one chain.

    With `manual`, blocks come only by `chain.make_block()`, and who waits for one waits. With `shielded`,
    the chain offers a key and opens what is sealed for it.
    """

    def __init__(self, chain: Subtensor, *, manual: bool = False, shielded: bool = False) -> None:
        self.chain = chain
        self.manual = manual
        self.token_symbols: dict[int, str] = {}
        self.spec = SPEC_VERSION
        self.absent: set[tuple[str, str]] = set()
        """Storage items and runtime APIs that this runtime lacks: it has drifted from the SDK."""
        self.connected = False
        self.submitted: list[Extrinsic] = []
        """All that got into the pool from here."""
        self._sent = asyncio.Event()
        self._answering = asyncio.Event()
        self._answering.set()
        self._failures: list[Exception] = []
        self._lose_answer = False
        self._changed = asyncio.Event()
        self._signed: dict[bytes, Extrinsic] = {}
        self._shield = Shield() if shielded else None
        if self._shield is not None:
            chain.shield_key(self._shield.next_key())
        chain.listeners.append(self._on_change)

    async def wait_sent(self) -> Extrinsic:
        """The next extrinsic that gets into the pool from here, or one that did since the last call."""
        await self._sent.wait()
        self._sent.clear()
        return self.submitted[-1]

    # Faults

    def hang(self) -> None:
        """No call returns any more, until `release`."""
        self._answering.clear()

    def release(self) -> None:
        self._answering.set()

    def fail_next(self, *errors: Exception) -> None:
        """The next calls raise these and do nothing, one after the other."""
        self._failures += errors

    def lose_answer_next(self) -> None:
        """The next write gets into a block, but its sender gets an `RpcConnectionError`."""
        self._lose_answer = True

    # Connection

    async def connect(self) -> None:
        await self._turn(connected=True)
        self.connected = True

    async def close(self) -> None:
        self.connected = False

    def balance(self, rao: int, netuid: int = 0) -> Balance:
        return Balance(int(rao), netuid, self.token_symbols.get(netuid) if netuid else None)

    # Reads

    async def block_hash(self, block: int | None = None) -> str | None:
        await self._turn()
        found = self.chain.head if block is None else self.chain.block(block)
        return found.hash if found else None

    async def block_number(self) -> int:
        await self._turn()
        return self.chain.head.number

    async def finalized_block_number(self) -> int:
        await self._turn()
        return self.chain.finalized.number

    async def block_time(self) -> float:
        await self._turn()
        return int(self.chain.constant("Aura", "SlotDuration")) / 1000

    async def spec_version(self) -> int:
        await self._turn()
        return self.spec

    async def get_block(
        self, block_number: int | None = None, block_hash: str | None = None
    ) -> dict[str, Any] | None:
        await self._turn()
        at = block_hash if block_number is None else block_number
        block = self.chain.head if at is None else self.chain.block(at)
        return decoded_block(block) if block else None

    async def query(
        self,
        module: str,
        storage_function: str,
        params: list[Any] | None = None,
        block_hash: str | None = None,
    ) -> Any:
        await self._turn()
        return self._value(module, storage_function, params or [], block_hash)

    async def query_batch(
        self, module: str, storage_function: str, param_sets: list[list[Any]], block_hash: str | None = None
    ) -> list[Any]:
        await self._turn()
        return [self._value(module, storage_function, params, block_hash) for params in param_sets]

    async def query_map(
        self,
        module: str,
        storage_function: str,
        params: list[Any] | None = None,
        block_hash: str | None = None,
    ) -> list[tuple[Any, Any]]:
        await self._turn()
        prefix = tuple(params or ())
        self._check_keys(self._item(module, storage_function), prefix)
        entries = self.chain.entries(module, storage_function, prefix, self._known(block_hash).hash)
        free = [(key[len(prefix) :], value) for key, value in entries]
        return [(key[0] if len(key) == 1 else key, value) for key, value in free]

    async def map_has_entries(
        self, module: str, storage_function: str, params: list[Any], block_hash: str | None = None
    ) -> bool:
        return bool(await self.query_map(module, storage_function, params, block_hash))

    async def runtime_call(
        self, api: str, method: str, params: list[Any], block_hash: str | None = None
    ) -> Any:
        await self._turn()
        if (api, method) in self.absent:
            raise ValueError(f"Runtime API {api}.{method} not found in this runtime")
        return self.chain.runtime_call(api, method, params, self._known(block_hash).hash)

    async def constant(self, module: str, name: str) -> Any:
        await self._turn()
        return self.chain.constant(module, name)

    async def events(self, block_hash: str | None = None) -> list[dict[str, Any]]:
        await self._turn()
        return decoded_events(self._known(block_hash))

    async def blocks(self, *, finalized: bool = False) -> AsyncIterator[dict[str, Any]]:
        """The newest header, and then each that follows."""
        told = ""
        while True:
            changed = self._changed
            await self._turn()
            block = self.chain.finalized if finalized else self.chain.head
            if block.hash != told:
                told = block.hash
                yield {"header": decoded_header(block)}
            else:
                await changed.wait()

    # Calls

    async def compose(self, call: Any) -> ComposedCall:
        """Raises `ValueError` for what the runtime could not encode."""
        await self._turn()
        module, function, params = call
        if (module, function) not in pallets.CALLS or (module, function) in self.absent:
            raise ValueError(f"Call function {module}.{function} not found in this runtime")
        for field in params.get("info", {}).get("fields", []):
            if any(int(variant.removeprefix("Raw")) > 128 for variant in field):
                raise ValueError(f"{sorted(field)} is no variant of Data")
        return ComposedCall(module, function, dict(params))

    async def estimate_fee(self, call: ComposedCall, keypair: Any) -> Balance:
        await self._turn()
        return Balance.from_rao(self.chain.fee(Call(call.module, call.function, call.params)))

    async def account_next_index(self, address: str) -> int:
        await self._turn()
        return self.chain.next_nonce(address)

    # Writes

    async def mev_next_key(self) -> bytes | None:
        value = await self.query("MevShield", "NextKey")
        return bytes.fromhex(value.removeprefix("0x")) if value else None

    async def sign_extrinsic(
        self, call: ComposedCall, keypair: Any, *, nonce: int, period: int
    ) -> tuple[bytes, str]:
        await self._turn()
        extrinsic = self._extrinsic(call, keypair, nonce, period)
        data = extrinsic.hash.encode()
        self._signed[data] = extrinsic
        return data, extrinsic.hash

    async def find_extrinsic(self, extrinsic_hash: str, block_hash: str) -> ExtrinsicResult | None:
        await self._turn()
        block = self._known(block_hash)
        for index, extrinsic in enumerate(block.extrinsics):
            if extrinsic.hash == extrinsic_hash:
                return outcome(block, index)
        return None

    async def submit(
        self,
        call: ComposedCall,
        keypair: Any,
        *,
        nonce: int | None = None,
        period: int | None = 128,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        await self._turn()
        extrinsic = self._extrinsic(call, keypair, nonce, period)
        try:
            self.chain.submit(extrinsic)
        except PoolRefusal as refusal:
            return refused(refusal)
        self.submitted.append(extrinsic)
        self._sent.set()
        self._open_shielded(extrinsic)
        if self._lose_answer:
            self._lose_answer = False
            if not self.manual:
                self.chain.make_block()
            raise RpcConnectionError("the connection was lost after the extrinsic was sent")
        if not (wait_for_inclusion or wait_for_finalization):
            return ExtrinsicResult(success=True, message="Submitted (not waiting).")
        return await self._watch(extrinsic, wait_for_finalization)

    async def _watch(self, extrinsic: Extrinsic, to_finality: bool) -> ExtrinsicResult:
        """Follows an extrinsic as the SDK does: a lost block ends it, though the extrinsic may yet land."""
        seen: str | None = None
        for made in itertools.count():
            changed = self._changed
            found = self.chain.find(extrinsic.hash)
            if seen is not None and (found is None or found[0].hash != seen):
                return abandoned("retracted")
            if found is not None:
                seen = found[0].hash
                if not to_finality or found[0].number <= self.chain.finalized.number:
                    return outcome(*found)
            elif extrinsic.hash in self.chain.dropped:
                return abandoned("invalid")
            if self.manual or made == MAX_BLOCKS or (found is not None and self.chain.finality_stalled):
                await changed.wait()
            else:
                self.chain.make_block()
            await self._turn()
        raise AssertionError("unreachable")

    # Within

    async def _turn(self, *, connected: bool = False) -> None:
        """Where every call waits while the node hangs, and fails when it is to fail."""
        if not (self.connected or connected):
            raise ConnectionNotReady("the connection is not open")
        await self._answering.wait()
        if self._failures:
            raise self._failures.pop(0)

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _known(self, block_hash: str | None) -> ChainBlock:
        block = self.chain.head if block_hash is None else self.chain.block(block_hash)
        if block is None:
            raise ChainError(f"UnknownBlock: Header was not found in the database: {block_hash}")
        return block

    def _item(self, module: str, name: str) -> StorageItem:
        item = STORAGE_ITEMS.get((module, name))
        if item is None or (module, name) in self.absent:
            raise StorageFunctionNotFound(f"Storage function {module}.{name} not found")
        return item

    def _value(self, module: str, name: str, params: list[Any], block_hash: str | None) -> Any:
        item = self._item(module, name)
        if len(params) != len(item.keys):
            raise ValueError(f"Storage function requires {len(item.keys)} parameters, {len(params)} given")
        self._check_keys(item, tuple(params))
        block = self._known(block_hash)
        if (module, name) == ("System", "Events"):
            return decoded_events(block)
        value = self.chain.value(module, name, tuple(params), block.hash)
        return item.default if value is None else value

    def _check_keys(self, item: StorageItem, params: tuple[Any, ...]) -> None:
        for kind, value in zip(item.keys, params, strict=False):
            if kind is ACCOUNT:
                ss58_decode(value)

    def _extrinsic(
        self, call: ComposedCall, keypair: Any, nonce: int | None, period: int | None
    ) -> Extrinsic:
        signer = str(keypair.ss58_address)
        keypair.sign(call.data)  # nothing checks it here, but a key may count what it signs
        nonce = self.chain.next_nonce(signer) if nonce is None else nonce
        head = self.chain.head.number
        era = None if period is None else (head, head + period)
        digest = blake(call.data, signer, nonce, era)
        return Extrinsic(Call(call.module, call.function, call.params), signer, nonce, era, digest)

    def _open_shielded(self, carrier: Extrinsic) -> None:
        """The block author's part: what is sealed for the chain's key follows its carrier into the block."""
        if self._shield is None or carrier.call.function != "submit_encrypted":
            return
        data = self._shield.open(bytes(carrier.call.params["ciphertext"]))
        if data is not None:
            self.chain.include_decrypted(self._signed[data])
