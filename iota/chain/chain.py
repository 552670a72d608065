"""The chain interface: IOTA's reads from a chain and writes to it. No SDK type passes through.

A write that the chain refuses comes back as a `TxResult` that is not ok, with a code to branch on;
`TxResult.check` turns it into the matching error. Everything else is raised (`iota.chain.errors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol, Self

from iota.chain.errors import NotRegistered, RateLimited, Rejected
from iota.protocol.messages import Role

MAX_COMMITMENT_BYTES: Final = 128


class TxCode(StrEnum):
    """Outcome of a write; the refusals are those of the SDK's `ErrorCode` that concern us."""

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
    """Acts at once."""
    COMMIT = "commit"
    """Hidden first, and acts when it is revealed; it can still fail then, silently."""


@dataclass(frozen=True, slots=True)
class TxResult:
    """The outcome of one write."""

    ok: bool
    code: TxCode
    chain_error: str | None
    """The chain's own name of the refusal, such as `SettingWeightsTooFast`."""
    message: str
    block: int | None
    """The block that holds it; on the embedded ledger the one after the head at that moment."""
    mode: TxMode = TxMode.PLAIN
    reveal_round: int | None = None
    """When a commit is revealed: a beacon round on Bittensor, a block number on the ledger."""
    fee_tao: float = 0.0

    @classmethod
    def refusal(cls, code: TxCode, chain_error: str, message: str) -> TxResult:
        """A write that is not taken, by the chain's own name of the reason."""
        return cls(ok=False, code=code, chain_error=chain_error, message=message, block=None)

    def check(self) -> TxResult:
        """Itself if ok.

        Raises:
            RateLimited, NotRegistered, Rejected: by code.
        """
        if self.ok:
            return self
        text = f"{self.chain_error or self.code}: {self.message}"
        if self.code is TxCode.RATE_LIMITED:
            raise RateLimited(text)
        if self.code is TxCode.NOT_REGISTERED:
            raise NotRegistered(text)
        raise Rejected(text)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the chain."""

    number: int
    hash: str
    """32 bytes in hex, `0x` first."""
    time: float
    """Its start, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A neuron's own claim of its address: untrusted, to be checked before it is dialled."""

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
    """Block of its last accepted weights; that of its registration before any."""
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
    """By uid, without gaps."""
    max_uids: int
    weights_rate_limit: int
    """Blocks between two weight settings of one validator."""
    commit_reveal: bool
    weights_version: int
    """Weights with a lower version key are refused."""
    activity_cutoff: int
    """Blocks after which a validator that set no weights no longer counts."""
    reveal_tempos: int = 1
    """Tempos from a hidden commit to its reveal; the beacon may take longer."""

    def neuron(self, hotkey: str) -> Neuron | None:
        """The neuron of a hotkey."""
        return next((n for n in self.neurons if n.hotkey == hotkey), None)


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """One validator's weights as they stand."""

    uid: int
    hotkey: str
    block: int
    """Block in which they were set or, for a commit, in which it was made."""
    weights: Mapping[int, int]
    """Weight by uid, u16, the greatest 65535; zeros are left out."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """Bytes that a hotkey put on the chain."""

    block: int
    """The block that holds them. Its hash was not public when they were made."""
    data: bytes


@dataclass(frozen=True, slots=True)
class EpochStatus:
    """A subnet's position between two epochs. Never derive this from block numbers by modulo."""

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
    """Properties of a chain that hold for a whole connection."""

    network: str
    backend: str
    version: str
    genesis: str
    """The hash of block 0, by which two chains are told apart."""
    block_time_s: float
    netuids: tuple[int, ...]
    hashes_trusted: bool
    """True where one party could have chosen the block hashes: do not stake anything on them."""
    finality: str
    """The meaning of `finalized` on this chain, in words."""
    write_lifetime_blocks: int
    """A write that is in no finalized block this many blocks after the head at its sending never will be."""


@dataclass(frozen=True, slots=True)
class RegistrationTerms:
    """Conditions of a registration on a subnet at this moment."""

    open: bool
    """False where the subnet's owner lets nobody in."""
    cost_tao: float
    """Taken from the coldkey for good; it moves with every registration."""
    shielded: bool
    """True where a registration stays hidden until it is in a block, so that nobody can outbid it."""
    needs_coldkey: bool
    """True where the coldkey signs it. Only the embedded ledger registers by the hotkey alone."""


class Chain(Protocol):
    """A connection to one chain, with at most one hotkey that writes.

    Every call ends within the backend's timeout, by `Unavailable` if need be. An unknown `netuid`
    is `BadInput`. Writes without a key raise `KeyUnavailable`. `async with` closes it.
    """

    async def info(self) -> ChainInfo:
        """Network, backend, versions and block time."""
        ...

    async def head(self) -> Block:
        """The newest block; on Bittensor it may yet be reorganised away."""
        ...

    async def finalized(self) -> Block:
        """The newest block that cannot vanish any more."""
        ...

    async def block_hash(self, number: int) -> str:
        """The hash of a block that has come; `BadInput` for one that has not."""
        ...

    async def subnet(self, netuid: int) -> Subnet:
        """The metagraph, all at one finalized block."""
        ...

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        """The hotkey's uid on the subnet; None where it is not registered."""
        ...

    async def registration_terms(self, netuid: int) -> RegistrationTerms:
        """Price and conditions of a registration now."""
        ...

    async def balance(self, address: str) -> float:
        """The TAO that an account can spend; 0 for an account that the chain has never seen."""
        ...

    async def register(
        self, netuid: int, role: Role = Role.MINER, *, max_cost_tao: float | None = None
    ) -> TxResult:
        """Register this hotkey, paid and signed by the coldkey that the connection was opened with.

        A cost above `max_cost_tao` at the moment of sending is `BadInput`, and nothing is sent. Only the
        embedded ledger heeds `role`: its faucet stakes validators.
        """
        ...

    async def serve(self, netuid: int, ip: str, port: int) -> TxResult:
        """Publish the address at which this hotkey can be reached."""
        ...

    async def commit(self, netuid: int, data: bytes) -> TxResult:
        """Put 1 to 128 bytes on the chain under this hotkey, in the place of earlier ones."""
        ...

    async def commitment(self, netuid: int, hotkey: str, at_block: int | None = None) -> Commitment | None:
        """The latest commitment of a hotkey, or the latest of block `at_block` or before.

        With `at_block` it proves that a commitment preceded a block, though newer ones followed.
        """
        ...

    async def set_weights(self, netuid: int, weights: Mapping[int, float], version_key: int = 0) -> TxResult:
        """Set this validator's weights by uid; they are relative, and normalised to u16 by maximum."""
        ...

    async def weights(self, netuid: int) -> tuple[WeightsRow, ...]:
        """All validators' weights that are in force, by uid."""
        ...

    async def epoch_status(self, netuid: int) -> EpochStatus:
        """The subnet's position between two epochs."""
        ...

    async def wait_epoch(
        self, netuid: int, *, after: int | None = None, timeout_s: float | None = None
    ) -> EpochStatus:
        """Wait until more than `after` epochs have run (default: one more than now).

        Without `timeout_s` it waits for two tempos of blocks at most. `Unavailable` when it passes.
        """
        ...

    async def close(self) -> None:
        """Close the connection; a later call opens it anew."""
        ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
