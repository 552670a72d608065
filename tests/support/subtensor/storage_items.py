"""Which storage items a runtime has that an SDK asks for, their keys, and what they read as when empty.

Only what goes without metadata needs this: `memory`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.support.subtensor.accounts import NO_FLAGS

INT, ACCOUNT = "int", "account"


@dataclass(frozen=True)
class StorageItem:
    keys: tuple[str, ...] = ()
    default: Any = None
    """Read where nothing is stored; None for an item that is optional."""


def _subnet(default: Any = None) -> StorageItem:
    return StorageItem((INT,), default)


_NOBODY: Final = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"
"""The account of 32 zero bytes."""
_EMPTY_ACCOUNT: Final = {
    "nonce": 0,
    "consumers": 0,
    "providers": 0,
    "sufficients": 0,
    "data": {"free": 0, "reserved": 0, "frozen": 0, "flags": NO_FLAGS},
}

_SUBTENSOR: Final = {
    "Owner": StorageItem((ACCOUNT,), _NOBODY),
    "OwnedHotkeys": StorageItem((ACCOUNT,), []),
    "TotalHotkeyAlpha": StorageItem((ACCOUNT, INT), 0),
    "IsNetworkMember": StorageItem((ACCOUNT, INT), False),
    "Uids": StorageItem((INT, ACCOUNT)),
    "Keys": StorageItem((INT, INT), _NOBODY),
    "Axons": StorageItem((INT, ACCOUNT)),
    "BlockAtRegistration": StorageItem((INT, INT), 0),
    "Weights": StorageItem((INT, INT), []),
    "Bonds": StorageItem((INT, INT), []),
    "TimelockedWeightCommits": StorageItem((INT, INT), []),
    "StakeThreshold": StorageItem((), 0),
    "TotalNetworks": StorageItem((), 0),
    "Active": _subnet([]),
    "Consensus": _subnet([]),
    "Dividends": _subnet([]),
    "Emission": _subnet([]),
    "Incentive": _subnet([]),
    "LastUpdate": _subnet([]),
    "ValidatorPermit": _subnet([]),
    "ValidatorTrust": _subnet([]),
    "ActivityCutoffFactorMilli": _subnet(13889),
    "BlocksSinceLastStep": _subnet(0),
    "Burn": _subnet(100_000_000),
    "BurnHalfLife": _subnet(360),
    "BurnIncreaseMult": _subnet({"bits": 23_242_897_532_874_035_200}),
    "CollateralLockShare": _subnet(0),
    "CommitRevealWeightsEnabled": _subnet(True),
    "ImmunityPeriod": _subnet(4096),
    "LastEpochBlock": _subnet(0),
    "LastMechansimStepBlock": _subnet(0),
    "MaxAllowedUids": _subnet(256),
    "MaxAllowedValidators": _subnet(128),
    "MaxBurn": _subnet(100_000_000_000),
    "MaxWeightsLimit": _subnet(65535),
    "MechanismCountCurrent": _subnet(1),
    "MinAllowedWeights": _subnet(1024),
    "MinBurn": _subnet(500_000),
    "NetworkRegisteredAt": _subnet(0),
    "NetworkRegistrationAllowed": _subnet(True),
    "NetworksAdded": _subnet(False),
    "PendingEpochAt": _subnet(0),
    "RevealPeriodEpochs": _subnet(1),
    "ServingRateLimit": _subnet(50),
    "SubnetEpochConsensus": _subnet("Yuma"),
    "SubnetEpochIndex": _subnet(0),
    "SubnetIdentitiesV3": _subnet(),
    "SubnetOwner": _subnet(_NOBODY),
    "SubnetOwnerHotkey": _subnet(_NOBODY),
    "SubnetworkN": _subnet(0),
    "SubtokenEnabled": _subnet(False),
    "Tempo": _subnet(10),
    "TokenSymbol": _subnet("𝜏"),
    "WeightsSetRateLimit": _subnet(100),
    "WeightsVersionKey": _subnet(0),
}

STORAGE_ITEMS: Final[dict[tuple[str, str], StorageItem]] = {
    ("System", "Account"): StorageItem((ACCOUNT,), _EMPTY_ACCOUNT),
    ("System", "Events"): StorageItem((), []),
    ("System", "Number"): StorageItem((), 0),
    ("Timestamp", "Now"): StorageItem((), 0),
    ("MevShield", "NextKey"): StorageItem(),
    ("Drand", "LastStoredRound"): StorageItem((), 0),
    ("Commitments", "CommitmentOf"): StorageItem((INT, ACCOUNT)),
    ("Commitments", "LastCommitment"): StorageItem((INT, ACCOUNT)),
    ("Commitments", "RevealedCommitments"): StorageItem((INT, ACCOUNT)),
    ("Commitments", "UsedSpaceOf"): StorageItem((INT, ACCOUNT)),
    ("Commitments", "MaxSpace"): StorageItem((), 3100),
    **{("SubtensorModule", name): item for name, item in _SUBTENSOR.items()},
}
