"""The chain: membership, block hashes, commitments and weights, behind one interface.

`open_chain` opens the backend of a network, `chain` holds the interface, `weight_rules` the rules for weights
of all chains. The backends are `bittensor/`, over the SDK, and `ledger/`, the embedded chain.
"""

from iota.chain.chain import (
    Block,
    Chain,
    ChainInfo,
    EpochStatus,
    Neuron,
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
    "EpochStatus",
    "Incompatible",
    "KeyUnavailable",
    "Neuron",
    "NotRegistered",
    "RateLimited",
    "Rejected",
    "Subnet",
    "TxCode",
    "TxMode",
    "TxResult",
    "Unavailable",
    "WeightsRow",
    "open_chain",
]
