"""A Bittensor chain as a `Chain`: over the SDK, with deadlines on its calls and without its types."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import bittensor as bt
from bittensor import settings as sdk
from bittensor import storage

from iota.chain.bittensor import operations
from iota.chain.bittensor.connection import Connection, Session
from iota.chain.bittensor.faults import SDK
from iota.chain.bittensor.neurons import read_commitment, read_subnet, read_weights
from iota.chain.bittensor.transport import BoundedSubstrate
from iota.chain.bittensor.view import RAO_PER_TAO, BlockView, block_time_of, hash_of
from iota.chain.bittensor.wallet import WriteKeys
from iota.chain.chain import (
    Block,
    Chain,
    ChainInfo,
    Commitment,
    EpochStatus,
    RegistrationTerms,
    Subnet,
    TxResult,
    WeightsRow,
)
from iota.chain.errors import BadInput, KeyUnavailable, Unavailable
from iota.chain.inputs import check_address, check_commitment, writer
from iota.chain.weight_rules import normalise
from iota.console.redaction import without_secrets
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role

if TYPE_CHECKING:
    from iota.identity.coldkey import Coldkey

READ_S: Final = 30.0
"""Default limit of a read: the first one connects, and fetches 2 MB of runtime metadata."""
WRITE_S: Final = 120.0
"""Default limit of a write, ten blocks: one or two until it is in one, two to four until that is final."""
_SILENT_BLOCKS: Final = 5
"""`wait_epoch` reconnects after this many block times without a finalized block."""
_PAUSE_S: Final = 1.0
T = TypeVar("T")
_log = logging.getLogger(__name__)


class BittensorChain(Chain):
    """A connection to a Bittensor node; `hotkey` signs the writes, and None only reads.

    Subnets are read at the newest finalized block, and a write returns when its block is final. The first
    call connects, and later ones reconnect after a loss. To be used in one event loop of one process, and
    once per hotkey.

    The SDK caches the runtime's metadata in `~/.bittensor/runtime-cache`, or the folder that
    `BITTENSOR_RUNTIME_CACHE_DIR` names; without write access there it has no cache.
    """

    def __init__(
        self,
        network: str,
        hotkey: Hotkey | None = None,
        *,
        coldkey: Coldkey | None = None,
        timeout_s: float = READ_S,
        write_timeout_s: float = WRITE_S,
        archives: Sequence[str] | None = None,
        make_substrate: Callable[[], Any] | None = None,
    ) -> None:
        """
        Args:
            network: a name that the SDK knows (finney, test, local, archive), or a ws:// or wss:// URL.
            coldkey: signs and pays a registration.
            timeout_s: seconds that a read may take, connecting included.
            write_timeout_s: seconds that a write may take until it is final.
            archives: nodes with the state that ordinary nodes drop; by default the SDK's for that network.
            make_substrate: makes a `bittensor.Substrate`; by default one over a websocket.

        Raises:
            BadInput: the SDK does not know the network, or a timeout is not above 0.
        """
        if timeout_s <= 0 or write_timeout_s <= 0:
            raise BadInput("timeouts are above 0")
        try:
            label, endpoint = sdk.resolve_endpoint(network)
        except ValueError:
            raise BadInput(
                f"there is no network {without_secrets(network)!r}: give one of"
                f" {', '.join(sorted(sdk.NETWORKS))}, the ws:// or wss:// URL of a node, or the http:// URL"
                " of an embedded ledger"
            ) from None
        if archives is None:
            archives = sdk.default_archive_endpoints(label)
        if make_substrate is None:
            make_substrate = partial(BoundedSubstrate, endpoint, tuple(archives))
        self._network = label if label in sdk.NETWORKS else without_secrets(endpoint)
        self._connection = Connection(make_substrate, network=network, endpoint=without_secrets(endpoint))
        self._hotkey = hotkey
        self._coldkey = coldkey
        self._timeout_s = timeout_s
        self._write_timeout_s = write_timeout_s
        self._writing = asyncio.Lock()

    # ---- reads ------------------------------------------------------------------------------------

    async def info(self) -> ChainInfo:
        async def read(session: Session) -> ChainInfo:
            view = await BlockView.finalized(session)
            added = await view.entries(storage.SubtensorModule.NetworksAdded)
            return ChainInfo(
                network=self._network,
                backend="bittensor",
                version=f"runtime {await session.substrate.spec_version()}, SDK {SDK}",
                genesis=await hash_of(session, 0),
                block_time_s=await block_time_of(session),
                netuids=tuple(sorted(int(netuid) for netuid, there in added if there)),
                hashes_trusted=False,
                finality="two thirds of the chain's authorities have voted for it (GRANDPA)",
                write_lifetime_blocks=operations.ERA_BLOCKS + operations.FINALITY_BLOCKS,
            )

        return await self._read(read)

    async def head(self) -> Block:
        return (await self._read(BlockView.head)).block

    async def finalized(self) -> Block:
        return (await self._read(BlockView.finalized)).block

    async def block_hash(self, number: int) -> str:
        async def read(session: Session) -> str:
            if not 0 <= number <= int(await session.substrate.block_number()):
                raise BadInput(f"block {number} has not come")
            return await hash_of(session, number)

        return await self._read(read)

    async def subnet(self, netuid: int) -> Subnet:
        return await self._read_final(lambda view: read_subnet(view, netuid))

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        check_address(hotkey)

        async def read(view: BlockView) -> int | None:
            await view.require_subnet(netuid)
            return await view.uid(netuid, hotkey)

        return await self._read_final(read)

    async def weights(self, netuid: int) -> tuple[WeightsRow, ...]:
        """The rows in force.

        The chain stores one date per validator: while a newer commit is hidden, `block` is that commit's.
        """
        return await self._read_final(lambda view: read_weights(view, netuid))

    async def commitment(self, netuid: int, hotkey: str, at_block: int | None = None) -> Commitment | None:
        """Reads at a finalized block; for one older than 256 blocks only archive nodes have the state."""
        check_address(hotkey)
        if at_block is not None and at_block < 0:
            raise BadInput(f"there is no block {at_block}")

        async def read(session: Session) -> Commitment | None:
            final = int(await session.substrate.finalized_block_number())
            number = final if at_block is None else min(at_block, final)
            return await read_commitment(await BlockView.at(session, number), netuid, hotkey)

        return await self._read(read)

    async def registration_terms(self, netuid: int) -> RegistrationTerms:
        async def read(session: Session) -> RegistrationTerms:
            return await operations.read_terms(await BlockView.head(session), session, netuid)

        return await self._read(read)

    async def balance(self, address: str) -> float:
        check_address(address)

        async def read(view: BlockView) -> float:
            account = await view.query(storage.System.Account, address)
            if not account:
                return 0.0
            held = account["data"]
            return max(0, int(held["free"]) - int(held.get("frozen") or 0)) / RAO_PER_TAO

        return await self._read_final(read)

    async def epoch_status(self, netuid: int) -> EpochStatus:
        """At the newest finalized block, so that an epoch has run when `subnet` shows its result."""
        return await self._read_final(lambda view: view.epoch(netuid))

    async def wait_epoch(
        self, netuid: int, *, after: int | None = None, timeout_s: float | None = None
    ) -> EpochStatus:
        """Follows the finalized blocks, and reconnects after a loss."""

        async def first_look(session: Session) -> tuple[EpochStatus, float]:
            view = await BlockView.finalized(session)
            return await view.epoch(netuid), await block_time_of(session)

        status, block_s = await self._read(first_look)
        target = status.index if after is None else after
        if timeout_s is None:
            timeout_s = 2 * status.tempo * block_s + self._timeout_s
        silence_s = max(self._timeout_s, _SILENT_BLOCKS * block_s)
        try:
            async with asyncio.timeout(timeout_s):
                while status.index <= target:
                    try:
                        await self._connection.run(partial(_next_final, status.block), silence_s)
                        status = await self.epoch_status(netuid)
                    except Unavailable as error:
                        _log.info("waiting for an epoch of subnet %d: %s", netuid, error)
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise Unavailable(f"subnet {netuid} ran no epoch after {target} in {timeout_s:g} s") from None
        return status

    # ---- writes -----------------------------------------------------------------------------------

    async def register(
        self, netuid: int, role: Role = Role.MINER, *, max_cost_tao: float | None = None
    ) -> TxResult:
        hotkey = writer(self._hotkey).ss58
        if max_cost_tao is not None and not (math.isfinite(max_cost_tao) and max_cost_tao >= 0):
            raise BadInput(f"the most that a registration may cost is an amount of TAO, not {max_cost_tao}")
        used: list[WriteKeys] = []

        async def checked(session: Session) -> TxResult:
            view = await BlockView.head(session)
            terms = await operations.read_terms(view, session, netuid)
            refusal = await operations.unregistrable(view, netuid, terms, hotkey)
            if refusal is not None:
                return refusal
            if self._coldkey is None:
                raise KeyUnavailable(
                    "a registration is paid and signed by the coldkey, which this connection does not have:"
                    " run `iota-miner register` or `iota-validator register` where the coldkey is, or"
                    f" `btcli subnets register --netuid {netuid}`"
                )
            used.append(WriteKeys.of_coldkey(hotkey, self._coldkey, shielded=terms.shielded))
            return await operations.register(session, netuid, terms, used[0], max_cost_tao)

        return await self._write(checked, used)

    async def serve(self, netuid: int, ip: str, port: int) -> TxResult:
        if not 0 <= port <= 65535:
            raise BadInput(f"{ip!r} port {port!r} is no address to serve at")
        return await self._write_registered(
            netuid, lambda session, view, keys: operations.serve(session, netuid, ip, port, keys)
        )

    async def commit(self, netuid: int, data: bytes) -> TxResult:
        check_commitment(data)
        return await self._write_registered(
            netuid, lambda session, view, keys: operations.commit(session, netuid, data, keys)
        )

    async def set_weights(self, netuid: int, weights: Mapping[int, float], version_key: int = 0) -> TxResult:
        """Set the weights at once, or time-locked where the subnet hides weights (`mode` says which).

        A time-locked commit can still fail silently at its reveal: check `weights` after the `reveal_round`.
        Weights above the subnet's limit for one uid are cut, with a warning in the log.
        """
        normal = normalise(weights)
        return await self._write_registered(
            netuid,
            lambda session, view, keys: operations.set_weights(
                session, view, netuid, normal, version_key, keys
            ),
        )

    # ---- the connection ---------------------------------------------------------------------------

    async def close(self) -> None:
        await self._connection.close()

    async def _read(self, read: Callable[[Session], Awaitable[T]]) -> T:
        return await self._connection.run(read, self._timeout_s)

    async def _read_final(self, read: Callable[[BlockView], Awaitable[T]]) -> T:
        async def at_final(session: Session) -> T:
            return await read(await BlockView.finalized(session))

        return await self._read(at_final)

    async def _write_registered(
        self, netuid: int, write: Callable[[Session, BlockView, WriteKeys], Awaitable[TxResult]]
    ) -> TxResult:
        """Run a write that the hotkey signs, or return the refusal for one without a uid."""
        hotkey = writer(self._hotkey)
        keys = WriteKeys.of_hotkey(hotkey)

        async def checked(session: Session) -> TxResult:
            view = await BlockView.head(session)
            refusal = await operations.unregistered(view, netuid, hotkey.ss58)
            return refusal or await write(session, view, keys)

        return await self._write(checked, [keys])

    async def _write(
        self, write: Callable[[Session], Awaitable[TxResult]], used: Sequence[WriteKeys]
    ) -> TxResult:
        """Run `write` alone, since two at once would use one nonce. `used` are the keys that sign it."""

        async def alone(session: Session) -> TxResult:
            async with self._writing:
                return await write(session)

        return await self._connection.run(
            alone, self._write_timeout_s, lambda: any(keys.signer.spent for keys in used)
        )


async def _next_final(number: int, session: Session) -> None:
    """Wait for a finalized block after `number`."""
    async with aclosing(session.substrate.blocks(finalized=True)) as blocks:
        async for block in blocks:
            if int(block["header"]["number"]) > number:
                return
    raise bt.RpcConnectionError("the stream of blocks ended")
