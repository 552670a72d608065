"""The chain as IOTA sees it: one interface, and the backends behind it.

`open_chain` picks a backend by network; `chain` holds the interface, `weight_rules` the rules that every
chain has for weights; `bittensor/` is the SDK's, `ledger/` the embedded one.
"""

from iota.chain.chain import (
    Block,
    Chain,
    ChainInfo,
    Commitment,
    Endpoint,
    EpochStatus,
    Neuron,
    RegistrationTerms,
    Subnet,
    TxCode,
    TxMode,
    TxResult,
    WeightsRow,
)
from iota.chain.errors import (
    BadInput,
    ChainError,
    Incompatible,
    KeyUnavailable,
    NotRegistered,
    RateLimited,
    Rejected,
    Unavailable,
)
from iota.chain.open_chain import open_chain

__all__ = [
    "BadInput",
    "Block",
    "Chain",
    "ChainError",
    "ChainInfo",
    "Commitment",
    "Endpoint",
    "EpochStatus",
    "Incompatible",
    "KeyUnavailable",
    "Neuron",
    "NotRegistered",
    "RateLimited",
    "RegistrationTerms",
    "Rejected",
    "Subnet",
    "TxCode",
    "TxMode",
    "TxResult",
    "Unavailable",
    "WeightsRow",
    "open_chain",
]
