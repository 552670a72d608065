"""How a chain begins: the settings of its one subnet, and the storage of block 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.support.subtensor import neurons
from tests.support.subtensor.accounts import EXISTENTIAL_DEPOSIT
from tests.support.subtensor.blocks import RAO
from tests.support.subtensor.execution import PALLET
from tests.support.subtensor.state import State

ALICE: Final = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
"""The subnet owner's coldkey: the development key `//Alice`."""
BOB: Final = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
"""The subnet owner's hotkey, with uid 0: the development key `//Bob`."""
START_CALL_DELAY: Final = 7200


@dataclass(frozen=True)
class Genesis:
    """A subnet as its owner set it up. Amounts in TAO, times in blocks."""

    netuid: int = 9
    tempo: int = 20
    weights_rate_limit: int = 10
    commit_reveal: bool = False
    block_time_s: float = 12.0
    reveal_period: int = 1
    """Epochs from a commit to its reveal."""
    weights_version: int = 0
    min_allowed_weights: int = 1
    max_weights_limit: int = 65535
    activity_cutoff_milli: int = 13889
    """Thousandths of a tempo after which a validator without new weights no longer counts."""
    max_uids: int = 256
    max_validators: int = 64
    min_non_immune_uids: int = 0
    """As many neurons out of immunity are never pruned. 10 on the public chain."""
    immunity_period: int = 4096
    registration_allowed: bool = True
    burn_tao: float = 0.1
    min_burn_tao: float = 0.0005
    max_burn_tao: float = 100.0
    burn_half_life: int = 360
    burn_increase: float = 1.26
    serving_rate_limit: int = 50
    stake_threshold_tao: float = 0.0
    """Stake that a hotkey needs to set weights."""
    hotkey_fees: bool = False
    """Whether the coldkey pays for weights, commitments and serving; some runtimes take nothing."""

    def constants(self) -> dict[tuple[str, str], Any]:
        """The pallets' constants by module and name."""
        return {
            ("Aura", "SlotDuration"): round(self.block_time_s * 1000),
            ("Balances", "ExistentialDeposit"): EXISTENTIAL_DEPOSIT,
            ("System", "SS58Prefix"): 42,
            (PALLET, "InitialStartCallDelay"): START_CALL_DELAY,
        }


def genesis_state(genesis: Genesis) -> State:
    """The storage of block 0: the subnet with its owner as uid 0."""
    state = State()
    for item, value in _hyperparameters(genesis).items():
        state.put(PALLET, item, (genesis.netuid,), value)
    for netuid in (0, genesis.netuid):
        state.put(PALLET, "NetworksAdded", (netuid,), True)
    state.put(PALLET, "TotalNetworks", (), 2)
    state.put(PALLET, "StakeThreshold", (), round(genesis.stake_threshold_tao * RAO))
    state.put("Commitments", "MaxSpace", (), 3100)
    state.put("Drand", "LastStoredRound", (), 0)
    state.put("System", "Number", (), 0)
    state.put("System", "Events", (), [])
    neurons.own(state, BOB, ALICE)
    neurons.append(state, genesis.netuid, BOB, 0)
    return state


def _hyperparameters(genesis: Genesis) -> dict[str, Any]:
    """Storage items with the netuid as their only key."""
    return {
        "Tempo": genesis.tempo,
        "LastEpochBlock": 0,
        "PendingEpochAt": 0,
        "SubnetEpochIndex": 0,
        "BlocksSinceLastStep": 0,
        "LastMechansimStepBlock": 0,  # the chain's own spelling
        "SubnetEpochConsensus": "Yuma",
        "MechanismCountCurrent": 1,
        "WeightsSetRateLimit": genesis.weights_rate_limit,
        "WeightsVersionKey": genesis.weights_version,
        "MinAllowedWeights": genesis.min_allowed_weights,
        "MaxWeightsLimit": genesis.max_weights_limit,
        "CommitRevealWeightsEnabled": genesis.commit_reveal,
        "RevealPeriodEpochs": genesis.reveal_period,
        "ActivityCutoffFactorMilli": genesis.activity_cutoff_milli,
        "MaxAllowedUids": genesis.max_uids,
        "MaxAllowedValidators": genesis.max_validators,
        "MinNonImmuneUids": genesis.min_non_immune_uids,
        "ImmunityPeriod": genesis.immunity_period,
        "NetworkRegistrationAllowed": genesis.registration_allowed,
        "NetworkRegisteredAt": 0,
        "Burn": round(genesis.burn_tao * RAO),
        "MinBurn": round(genesis.min_burn_tao * RAO),
        "MaxBurn": round(genesis.max_burn_tao * RAO),
        "BurnHalfLife": genesis.burn_half_life,
        "BurnIncreaseMult": {"bits": round(genesis.burn_increase * 2**64)},
        "CollateralLockShare": 0,
        "RegistrationsThisBlock": 0,
        "ServingRateLimit": genesis.serving_rate_limit,
        "SubnetOwner": ALICE,
        "SubnetOwnerHotkey": BOB,
        "SubtokenEnabled": True,
        "TokenSymbol": "ι",
    }
