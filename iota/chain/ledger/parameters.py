"""Parameters that are fixed when a ledger's database is created."""

from __future__ import annotations

from dataclasses import dataclass

from iota.chain.weight_rules import U16_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParameters:
    """The subnet's rules. Counts of time are in blocks unless they end in `_s`."""

    netuid: int = 9
    block_time_s: float = 12.0
    tempo: int = 360
    """Blocks from one epoch to the next."""
    max_uids: int = 256
    """A newcomer to a full subnet takes the place of the neuron that earns least."""
    immunity_blocks: int = 5000
    """Time after registration in which a neuron cannot lose its place."""
    max_validators: int = 64
    """Number of hotkeys, by stake, that may set weights."""
    weights_rate_limit: int = 100
    weights_version: int = 0
    reveal_blocks: int = 0
    """Time that weights stay hidden after they were set; 0 applies them at once."""
    activity_cutoff: int = 5000
    """Time for which a validator's weights count."""
    commit_rate_limit: int = 1
    """Blocks between two commitments of one hotkey."""
    faucet_stake: float = 1000.0
    """Stake given to whoever registers as a validator; 0 gives none, so that nobody can set weights."""

    def __post_init__(self) -> None:
        if not 0 < self.netuid <= U16_MAX:
            raise ValueError(f"netuid is 1 to {U16_MAX}, not {self.netuid}")
        if not 0.001 <= self.block_time_s <= 3600:
            raise ValueError(f"block_time_s is 0.001 to 3600 seconds, not {self.block_time_s}")
        if not 1 < self.max_uids <= 4096:
            raise ValueError(f"max_uids is 2 to 4096 (the owner has one), not {self.max_uids}")
        for name in ("tempo", "max_validators", "activity_cutoff", "commit_rate_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in (
            "immunity_blocks",
            "weights_rate_limit",
            "weights_version",
            "reveal_blocks",
            "faucet_stake",
        ):
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
