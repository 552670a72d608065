"""A model of a subtensor chain: one history, one transaction pool, one view of finality.

Synchronous, without I/O and without a clock: blocks come when the test makes them. The rules of the calls
begin in `pallets`, those of an epoch are in `epochs`; `runtime_api` answers what a node computes on request.
Whoever shows this chain to others (`memory`, `node`) checks signatures before an extrinsic gets here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.subtensor import accounts, epochs, inclusion, neurons, runtime_api
from tests.support.subtensor.blocks import (
    RAO,
    Call,
    ChainBlock,
    Event,
    Extrinsic,
    ModuleError,
    Params,
    PoolRefusal,
    blake,
)
from tests.support.subtensor.execution import PALLET, Execution
from tests.support.subtensor.genesis import Genesis, genesis_state
from tests.support.subtensor.pool import Pool, check_lifetime
from tests.support.subtensor.state import State

__all__ = [
    "RAO",
    "Call",
    "ChainBlock",
    "Event",
    "Extrinsic",
    "ModuleError",
    "Params",
    "PoolRefusal",
    "Subtensor",
]


@dataclass(frozen=True)
class _Record:
    block: ChainBlock
    state: State
    """After the block."""


class Subtensor:
    """One chain with one subnet.

    It begins with `finality_lag + 1` empty blocks, so that the finalized block is never the genesis block.
    Times come from `genesis_time_s` and the block time; the chain has no other clock.
    """

    def __init__(
        self,
        *,
        netuid: int = 9,
        tempo: int = 20,
        weights_rate_limit: int = 10,
        commit_reveal: bool = False,
        finality_lag: int = 2,
        block_time_s: float = 12.0,
        genesis_time_s: float = 1_700_000_000.0,
        pool_limit: int = 64,
        **settings: Any,
    ) -> None:
        """`settings` are the other fields of `genesis.Genesis`."""
        self.genesis = Genesis(
            netuid=netuid,
            tempo=tempo,
            weights_rate_limit=weights_rate_limit,
            commit_reveal=commit_reveal,
            block_time_s=block_time_s,
            **settings,
        )
        self.netuid = netuid
        self.finality_lag = finality_lag
        self.finality_stalled = False
        """While it is set, no further block becomes final."""
        self.pool = Pool(pool_limit)
        self.dropped: dict[str, PoolRefusal] = {}
        """Extrinsics that left the pool without getting into a block, by hash."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each new block and each reorganisation."""
        self._genesis_time_ms = round(genesis_time_s * 1000)
        self._block_time_ms = round(block_time_s * 1000)
        self._decrypted: list[Extrinsic] = []
        self._forks = 0
        first = ChainBlock(0, blake("genesis", self.genesis), "0x" + "00" * 32, self._genesis_time_ms, (), ())
        self._records = {first.hash: _Record(first, genesis_state(self.genesis))}
        self._canonical = [first.hash]
        self._finalized = 0
        self.make_block(finality_lag + 1)

    # Blocks

    @property
    def head(self) -> ChainBlock:
        """The newest block."""
        return self._records[self._canonical[-1]].block

    @property
    def finalized(self) -> ChainBlock:
        """The newest block that cannot be replaced."""
        return self._records[self._canonical[self._finalized]].block

    def block(self, at: int | str) -> ChainBlock | None:
        """The canonical block of a number, or any block by its hash, dead forks included."""
        if isinstance(at, int):
            if not 0 <= at < len(self._canonical):
                return None
            at = self._canonical[at]
        record = self._records.get(at)
        return record.block if record else None

    def find(self, extrinsic_hash: str) -> tuple[ChainBlock, int] | None:
        """The canonical block that holds an extrinsic, and its index there."""
        for block_hash in reversed(self._canonical):
            block = self._records[block_hash].block
            for index, extrinsic in enumerate(block.extrinsics):
                if extrinsic.hash == extrinsic_hash:
                    return block, index
        return None

    # State

    def value(self, module: str, item: str, params: Params = (), at: str | None = None) -> Any:
        """A decoded storage value after a block, the head by default; None where nothing is stored.

        Raises:
            KeyError: no such block.
        """
        return self._at(at).state.get(module, item, *params)

    def entries(
        self, module: str, item: str, prefix: Params = (), at: str | None = None
    ) -> list[tuple[Params, Any]]:
        """All stored under a prefix of the key, with full keys."""
        return self._at(at).state.entries(module, item, *prefix)

    def runtime_call(self, api: str, method: str, params: list[Any], at: str | None = None) -> Any:
        """What a runtime API answers, decoded.

        Raises:
            NotImplementedError: this model has no such method.
        """
        record = self._at(at)
        return runtime_api.call(api, method, params, record.state, record.block.number)

    def constant(self, module: str, name: str) -> Any:
        """A pallet's constant; None where there is none."""
        return self.genesis.constants().get((module, name))

    def fee(self, call: Call) -> int:
        """rao that a call costs to include."""
        return accounts.fee(call, self.genesis.hotkey_fees)

    # Set-up, and what root and the subnet's owner do. It is as if it had been so since the finalized block.

    def edit(self, module: str, item: str, params: Params, value: Any) -> None:
        """Stores a value."""
        self._edit(lambda state: state.put(module, item, params, value))

    def edit_subnet(self, item: str, value: Any) -> None:
        """Sets a hyperparameter of the subnet, by the name of its storage item."""
        self.edit(PALLET, item, (self.netuid,), value)

    def fund(self, address: str, tao: float) -> None:
        """Gives an account TAO out of nothing."""

        def add(state: State) -> None:
            balance = accounts.free_balance(state, address)
            accounts.set_free_balance(state, address, balance + round(tao * RAO))

        self._edit(add)

    def stake(self, hotkey: str, tao: float) -> None:
        """Sets the stake behind a hotkey on the subnet; a permit comes with the next epoch."""
        self.edit(PALLET, "TotalHotkeyAlpha", (hotkey, self.netuid), round(tao * RAO))

    def permit(self, hotkey: str, allowed: bool = True) -> None:
        """Grants or takes a validator permit until the next epoch decides by stake."""
        uid = self.uid(hotkey)
        if uid is None:
            raise KeyError(f"{hotkey} has no uid on subnet {self.netuid}")
        self._edit(lambda state: neurons.set_element(state, "ValidatorPermit", self.netuid, uid, allowed))

    def enroll(self, hotkey: str, coldkey: str, *, stake: float = 0.0, permit: bool = False) -> int:
        """Registers a hotkey without a call, since block 0: its first weights are not rate limited."""

        def add(state: State) -> None:
            neurons.own(state, hotkey, coldkey)
            neurons.append(state, self.netuid, hotkey, 0)

        self._edit(add)
        self.stake(hotkey, stake)
        self.permit(hotkey, permit)
        uid = self.uid(hotkey)
        assert uid is not None
        return uid

    def prune(self, uid: int, hotkey: str, coldkey: str) -> None:
        """Gives the uid of one neuron to another, now."""

        def replace(state: State) -> None:
            neurons.own(state, hotkey, coldkey)
            neurons.replace(state, self.netuid, uid, hotkey, self.head.number)

        self._edit(replace)

    def shield_key(self, key: bytes | None) -> None:
        """Offers a key for shielded extrinsics, or none any more."""
        self.edit("MevShield", "NextKey", (), None if key is None else "0x" + key.hex())

    def uid(self, hotkey: str) -> int | None:
        """At the head."""
        return neurons.uid_of(self._at(None).state, self.netuid, hotkey)

    # Writing

    def next_nonce(self, address: str) -> int:
        """The next nonce of an account, behind those in the pool."""
        return self.pool.next_nonce(address, accounts.next_nonce(self._at(None).state, address))

    def submit(self, extrinsic: Extrinsic) -> None:
        """Puts an extrinsic into the pool; a later block holds it.

        Raises:
            PoolRefusal: it is outdated, doubled, cannot pay, breaks a rule that the pool checks, or the
                pool is full.
        """
        state = self._at(None).state
        self.pool.check(extrinsic, accounts.next_nonce(state, extrinsic.signer), self.head.number)
        inclusion.check_validity(Execution(state, self.head.number + 1), extrinsic, self.genesis.hotkey_fees)
        self.pool.waiting.append(extrinsic)

    def include_decrypted(self, extrinsic: Extrinsic) -> None:
        """Takes the inner extrinsic of a `MevShield.submit_encrypted`, which never shows in the pool.

        It goes into the block of its carrier, behind it; it is dropped when its era passes before.
        """
        self._decrypted.append(extrinsic)

    def reveal(self, hotkey: str, weights: Mapping[int, int], version_key: int = 0) -> int:
        """The beacon's part: opens the time-locked commits of a hotkey, which held these u16 weights.

        Nobody can open them here, so the test says what was in them. They are applied, or silently dropped,
        by the chain's rules in the first block of the epoch whose turn it is; not before. Returns how many
        were opened.
        """
        opened = {"dests": list(weights), "weights": list(weights.values()), "version_key": version_key}
        queues = self.entries(PALLET, "TimelockedWeightCommits", (self.netuid,))
        ciphertexts = [commit[2] for _, queue in queues for commit in queue if commit[0] == hotkey]
        closed = [c for c in ciphertexts if self.value("Beacon", "Opened", (c,)) is None]
        for ciphertext in closed:
            self.edit("Beacon", "Opened", (ciphertext,), opened)
        return len(closed)

    def make_block(self, count: int = 1, *, empty: bool = False) -> ChainBlock:
        """Makes blocks out of what the pool holds, or past it if `empty`, and moves finality on."""
        for _ in range(count):
            self._append([] if empty else self.pool.waiting + self._decrypted)
            if not self.finality_stalled:
                self._finalized = max(self._finalized, self.head.number - self.finality_lag)
            self._tell()
        return self.head

    def make_epoch(self) -> ChainBlock:
        """Makes blocks up to and including the next one that runs an epoch."""
        due = epochs.next_epoch_block(self._at(None).state, self.netuid)
        if due is None:
            raise ValueError("a subnet of tempo 0 has no epochs")
        return self.make_block(max(1, due - self.head.number))

    def reorganise(self, depth: int, *, lose: bool = False) -> tuple[Extrinsic, ...]:
        """Replaces the last `depth` blocks by as many empty ones, with other hashes.

        What they held goes back into the pool where it is still valid, or nowhere if `lose`. Returns what
        is gone for good.

        Raises:
            ValueError: a finalized block would be replaced.
        """
        if not 0 < depth <= self.head.number - self._finalized:
            raise ValueError(
                f"only the {self.head.number - self._finalized} unfinalized blocks can be replaced"
            )
        removed = [self._records[block_hash].block for block_hash in self._canonical[-depth:]]
        del self._canonical[-depth:]
        self._forks += 1
        for _ in range(depth):
            self._append([])
        gone = []
        for extrinsic in (e for block in removed for e in block.extrinsics if e.signer):
            try:
                if lose:
                    raise PoolRefusal(1010, "Invalid Transaction", "lost in a reorganisation")
                self.submit(extrinsic)
            except PoolRefusal as refusal:
                self.dropped[extrinsic.hash] = refusal
                gone.append(extrinsic)
        self._tell()
        return tuple(gone)

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    def _at(self, block_hash: str | None) -> _Record:
        return self._records[self._canonical[-1] if block_hash is None else block_hash]

    def _edit(self, change: Callable[[State], None]) -> None:
        for block_hash in self._canonical[self._finalized :]:
            change(self._records[block_hash].state)

    def _append(self, candidates: list[Extrinsic]) -> None:
        """Makes one block out of those candidates that fit."""
        parent = self._at(None)
        number = parent.block.number + 1
        time_ms = self._genesis_time_ms + number * self._block_time_ms
        x = Execution(parent.state.fork(), number)
        x.state.put("System", "Number", (), number)
        x.state.put("Timestamp", "Now", (), time_ms)
        epochs.on_initialize(x, self.netuid)
        included = [_timestamp(time_ms)]
        inclusion.succeed(x, 0, "No")
        for extrinsic in sorted(candidates, key=lambda e: e.nonce):
            if self._apply(x, extrinsic, len(included)):
                included.append(extrinsic)
        x.state.put("System", "Events", (), x.events)
        block_hash = blake(parent.block.hash, number, self._forks, [e.hash for e in included])
        block = ChainBlock(number, block_hash, parent.block.hash, time_ms, tuple(included), tuple(x.events))
        self._records[block_hash] = _Record(block, x.state)
        self._canonical.append(block_hash)

    def _apply(self, x: Execution, extrinsic: Extrinsic, index: int) -> bool:
        """Includes an extrinsic, whether or not its call succeeds; False leaves it out of the block."""
        nonce = accounts.next_nonce(x.state, extrinsic.signer)
        try:
            check_lifetime(extrinsic, nonce, x.block - 1)
            if extrinsic.nonce > nonce:
                return False  # it waits for those before it
            inclusion.check_validity(x, extrinsic, self.genesis.hotkey_fees)
        except PoolRefusal as refusal:
            self.dropped[extrinsic.hash] = refusal
            self._forget(extrinsic)
            return False
        self._forget(extrinsic)
        inclusion.include(x, extrinsic, index, self.genesis.hotkey_fees)
        return True

    def _forget(self, extrinsic: Extrinsic) -> None:
        self.pool.remove(extrinsic)
        self._decrypted = [e for e in self._decrypted if e.hash != extrinsic.hash]


def _timestamp(time_ms: int) -> Extrinsic:
    return Extrinsic(Call("Timestamp", "set", {"now": time_ms}), "", 0, None, blake("timestamp", time_ms))
