"""The chain interface: IOTA's reads from a chain and writes to it, without types of an SDK.

A write that the chain refuses returns a `TxResult` that is not ok, with a code to branch on; `TxResult.check`
turns it into the matching error. All other failures are raised (`iota.chain.errors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, Self

from iota.chain.errors import NotRegistered, RateLimited, Rejected
from iota.protocol.messages import Role
from iota.spec import MAX_INTEGER

MAX_COMMITMENT_BYTES: Final = 128
"""Largest raw field of Bittensor's commitments pallet."""


class TxCode(StrEnum):
    """Outcome of a write; the refusals are members of the SDK's `ErrorCode`."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    NOT_REGISTERED = "not_registered"
    NOT_AUTHORIZED = "not_authorized"
    ALREADY_EXISTS = "already_exists"
    SUBNET_NOT_EXISTS = "subnet_not_exists"
    INVALID_ARGUMENT = "invalid_argument"
    LIMIT_EXCEEDED = "limit_exceeded"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    DISABLED = "disabled"
    UNKNOWN = "unknown"


class TxMode(StrEnum):
    """When a write takes effect."""

    PLAIN = "plain"
    """At once."""
    COMMIT = "commit"
    """When it is revealed; until then it is hidden, and at the reveal it can still fail silently."""


@dataclass(frozen=True, slots=True)
class TxResult:
    """The outcome of one write."""

    ok: bool
    code: TxCode
    chain_error: str | None
    """The chain's name of the error, such as `SettingWeightsTooFast`."""
    message: str
    block: int | None
    """The block that holds the write; on the embedded ledger the one after the head."""
    mode: TxMode = TxMode.PLAIN
    reveal_round: int | None = None
    """Time of a commit's reveal: a drand beacon round on Bittensor, a block number on the ledger."""
    fee_tao: float = 0.0

    @classmethod
    def refusal(cls, code: TxCode, chain_error: str, message: str) -> TxResult:
        """A refused write; `chain_error` is the chain's name of the reason."""
        return cls(ok=False, code=code, chain_error=chain_error, message=message, block=None)

    def check(self) -> TxResult:
        """Returns itself if ok.

        Raises:
            RateLimited, NotRegistered, Rejected: the refusal, by its code.
        """
        if self.ok:
            return self
        text = f"{self.chain_error or self.code}: {self.message}"
        errors = {TxCode.RATE_LIMITED: RateLimited, TxCode.NOT_REGISTERED: NotRegistered}
        raise errors.get(self.code, Rejected)(text)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the chain. Raises ValueError for a number that a journal entry cannot hold."""

    number: int
    hash: str
    """32 bytes in hex, with the prefix `0x`."""
    time: float
    """Start of the block, Unix seconds."""

    def __post_init__(self) -> None:
        if not 0 <= self.number <= MAX_INTEGER:
            raise ValueError(f"no chain has a block {self.number}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address that a neuron claims; untrusted, so check it before connecting to it."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Neuron:
    """One registered hotkey of a subnet."""

    uid: int
    hotkey: str
    coldkey: str
    stake: float
    validator_permit: bool
    incentive: float
    """Share of the subnet's miner reward after the last epoch, 0 to 1."""
    dividends: float
    """Share of the subnet's validator reward after the last epoch, 0 to 1."""
    last_update: int
    """Block of its last accepted weights; before the first, block of its registration."""
    registered_at: int
    axon: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet at one finalized block."""

    netuid: int
    block: Block
    tempo: int
    """Blocks from one epoch to the next."""
    owner_uid: int | None
    neurons: tuple[Neuron, ...]
    """Ordered by uid, without gaps."""
    max_uids: int
    weights_rate_limit: int
    """Least blocks between two weight settings of one validator."""
    commit_reveal: bool
    weights_version: int
    """Weights with a lower version key are refused."""
    activity_cutoff: int
    """Blocks after which a validator that sets no weights is inactive."""
    reveal_tempos: int = 1
    """Tempos from a hidden commit to its reveal, at least."""

    def neuron(self, hotkey: str) -> Neuron | None:
        """The neuron of a hotkey; None where it is not registered."""
        return next((n for n in self.neurons if n.hotkey == hotkey), None)


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """One validator's weights in force."""

    uid: int
    hotkey: str
    block: int
    """Block in which they were set, or committed if they were hidden at first."""
    weights: Mapping[int, int]
    """Weight by uid, u16, the greatest 65535, without zeros."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """Bytes that a hotkey put on the chain."""

    block: int
    """The block that holds them; its hash was not known when they were sent."""
    data: bytes


@dataclass(frozen=True, slots=True)
class EpochStatus:
    """A subnet's position between two epochs. A block number modulo the tempo does not give it."""

    netuid: int
    block: int
    tempo: int
    index: int
    """Number of epochs that have run."""
    last_epoch_block: int
    next_epoch_block: int
    seconds_remaining: float


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """Properties of a chain that do not change during a connection."""

    network: str
    backend: str
    version: str
    genesis: str
    """The hash of block 0, which identifies the chain."""
    block_time_s: float
    netuids: tuple[int, ...]
    hashes_trusted: bool
    """True where one party could have chosen the block hashes, so that they are not random."""
    finality: str
    """The meaning of `finalized` on this chain, for messages."""
    write_lifetime_blocks: int
    """A write is in a finalized block at most this many blocks after the head at its sending, or never."""


@dataclass(frozen=True, slots=True)
class RegistrationTerms:
    """Current conditions of a registration on a subnet."""

    open: bool
    """False where the subnet's owner has closed registration."""
    cost_tao: float
    """Price, taken from the coldkey and not returned; it changes with every registration."""
    shielded: bool
    """True where a registration is encrypted until it is in a block, so that no one can front-run it."""
    needs_coldkey: bool
    """True where the coldkey signs it; only the embedded ledger registers with the hotkey alone."""


class Chain(Protocol):
    """A connection to one chain, with at most one hotkey that writes; `async with` closes it.

    Every call ends within the backend's timeout, else it raises `Unavailable`. An unknown `netuid` raises
    `BadInput`, a write without a hotkey `KeyUnavailable`.
    """

    async def info(self) -> ChainInfo:
        """Network, backend, versions and block time."""

    async def head(self) -> Block:
        """The newest block; on Bittensor a reorganisation may still replace it."""

    async def finalized(self) -> Block:
        """The newest finalized block, which cannot be replaced."""

    async def block_hash(self, number: int) -> str:
        """The hash of a block; raises `BadInput` for a number above the head's."""

    async def subnet(self, netuid: int) -> Subnet:
        """The metagraph at the newest finalized block."""

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        """The hotkey's uid on the subnet; None where it is not registered."""

    async def registration_terms(self, netuid: int) -> RegistrationTerms:
        """Current price and conditions of a registration."""

    async def balance(self, address: str) -> float:
        """The TAO that an account can spend; 0 for an unknown account."""

    async def register(
        self, netuid: int, role: Role = Role.MINER, *, max_cost_tao: float | None = None
    ) -> TxResult:
        """Register this hotkey; the connection's coldkey signs and pays.

        Raises `BadInput` and sends nothing if it costs more than `max_cost_tao` when it is sent. Only the
        embedded ledger uses `role`: it gives validators a stake.
        """

    async def serve(self, netuid: int, ip: str, port: int) -> TxResult:
        """Publish the address of this hotkey's node."""

    async def commit(self, netuid: int, data: bytes) -> TxResult:
        """Put 1 to 128 bytes on the chain as this hotkey's commitment, which replaces the previous one."""

    async def commitment(self, netuid: int, hotkey: str, at_block: int | None = None) -> Commitment | None:
        """The latest commitment of a hotkey, in block `at_block` or before if given.

        With `at_block` it proves that a commitment preceded a block, even if newer ones followed.
        """

    async def set_weights(self, netuid: int, weights: Mapping[int, float], version_key: int = 0) -> TxResult:
        """Set this validator's weights by uid, scaled so that the greatest is 65535."""

    async def weights(self, netuid: int) -> tuple[WeightsRow, ...]:
        """The weights in force, ordered by validator uid."""

    async def epoch_status(self, netuid: int) -> EpochStatus:
        """The subnet's position between two epochs."""

    async def wait_epoch(
        self, netuid: int, *, after: int | None = None, timeout_s: float | None = None
    ) -> EpochStatus:
        """Wait until more than `after` epochs have run; by default until the next one has.

        Raises `Unavailable` after `timeout_s` seconds; by default after about two tempos.
        """

    async def close(self) -> None:
        """Close the connection; a later call reopens it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
