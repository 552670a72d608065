"""Parameters of a ledger, fixed when its file is created."""

from __future__ import annotations

from dataclasses import dataclass

from iota.chain.weight_rules import U16_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParameters:
    """The parameters of the one subnet; times are in blocks unless the name ends in `_s`."""

    netuid: int = 9
    block_time_s: float = 12.0
    tempo: int = 360
    """Blocks from one epoch to the next."""
    max_uids: int = 256
    """In a full subnet a registration replaces the neuron that earns least."""
    immunity_blocks: int = 5000
    """Time after its registration in which a neuron cannot be replaced."""
    max_validators: int = 64
    """How many hotkeys have a validator permit: those with the most stake."""
    weights_rate_limit: int = 100
    weights_version: int = 0
    reveal_blocks: int = 0
    """Time from setting weights to their reveal; 0 puts them in force at once."""
    activity_cutoff: int = 5000
    """Time after setting them in which a validator's weights count."""
    commit_rate_limit: int = 1
    """Blocks between two commitments of one hotkey."""
    faucet_stake: float = 1000.0
    """Stake that a registering validator gets; with 0 no hotkey can set weights."""

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
        bounded = (
            "immunity_blocks",
            "weights_rate_limit",
            "weights_version",
            "reveal_blocks",
            "faucet_stake",
        )
        for name in bounded:
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
