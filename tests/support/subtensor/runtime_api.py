"""What a node computes on request: the runtime APIs that the SDK's reads call, decoded."""

from __future__ import annotations

from typing import Any, Final

from tests.support.subtensor import epochs, neurons
from tests.support.subtensor.execution import PALLET
from tests.support.subtensor.state import State

NO_AXON: Final = {
    "block": 0,
    "version": 0,
    "ip": 0,
    "port": 0,
    "ip_type": 0,
    "protocol": 0,
    "placeholder1": 0,
    "placeholder2": 0,
}
NO_PROMETHEUS: Final = {"block": 0, "version": 0, "ip": 0, "port": 0, "ip_type": 0}
KAPPA: Final = 32767
FIXED: Final = {
    "rho": 10,
    "kappa": KAPPA,
    "min_difficulty": 10_000_000,
    "max_difficulty": 4_611_686_018_427_387_903,
    "difficulty": 10_000_000,
    "adjustment_alpha": 0,
    "adjustment_interval": 100,
    "target_regs_per_interval": 2,
    "max_regs_per_block": 1,
    "bonds_moving_avg": 900_000,
    "liquid_alpha_enabled": False,
    "alpha_high": 58982,
    "alpha_low": 45875,
}
"""Hyperparameters that no rule of this model reads, at the chain's defaults."""


def call(api: str, method: str, params: list[Any], state: State, block: int) -> Any:
    """The answer at one block.

    Raises:
        NotImplementedError: this model has no such method.
    """
    match (api, method):
        case ("SubnetInfoRuntimeApi", "get_metagraph"):
            return _metagraph(state, int(params[0]), block)
        case ("SubnetInfoRuntimeApi", "get_next_epoch_start_block"):
            return epochs.next_epoch_block(state, int(params[0]))
        case ("SubnetInfoRuntimeApi", "get_subnet_hyperparams_v3"):
            return _hyperparameter_entries(state, int(params[0]))
        case ("NeuronInfoRuntimeApi", "get_neurons_lite"):
            return [_neuron(state, int(params[0]), uid) for uid in _uids(state, int(params[0]))]
        case ("NeuronInfoRuntimeApi", "get_neurons"):
            return [_full_neuron(state, int(params[0]), uid) for uid in _uids(state, int(params[0]))]
        case ("AccountNonceApi", "account_nonce"):
            account = state.get("System", "Account", params[0])
            return account["nonce"] if account else 0
    raise NotImplementedError(f"{api}.{method}")


def _uids(state: State, netuid: int) -> range:
    return range(neurons.count(state, netuid))


def _hyperparameters(state: State, netuid: int) -> dict[str, Any]:
    def value(item: str) -> Any:
        return state.get(PALLET, item, netuid)

    return {
        **FIXED,
        "immunity_period": value("ImmunityPeriod"),
        "min_allowed_weights": value("MinAllowedWeights"),
        "max_weights_limit": value("MaxWeightsLimit"),
        "tempo": value("Tempo"),
        "weights_version": value("WeightsVersionKey"),
        "weights_rate_limit": value("WeightsSetRateLimit"),
        "activity_cutoff": epochs.activity_cutoff(state, netuid),
        "registration_allowed": value("NetworkRegistrationAllowed"),
        "min_burn": value("MinBurn"),
        "max_burn": value("MaxBurn"),
        "serving_rate_limit": value("ServingRateLimit"),
        "max_validators": value("MaxAllowedValidators"),
        "commit_reveal_period": value("RevealPeriodEpochs"),
        "commit_reveal_weights_enabled": value("CommitRevealWeightsEnabled"),
    }


def _hyperparameter_entries(state: State, netuid: int) -> list[dict[str, Any]] | None:
    """Names with tagged values, as version 3 of the API words them."""
    if not state.get(PALLET, "NetworksAdded", netuid) or netuid == 0:
        return None
    values = _hyperparameters(state, netuid)
    values["burn_half_life"] = state.get(PALLET, "BurnHalfLife", netuid)
    entries: list[dict[str, Any]] = [
        {"name": name, "value": {"Bool" if isinstance(value, bool) else "U64": value}}
        for name, value in values.items()
    ]
    multiplier = state.get(PALLET, "BurnIncreaseMult", netuid)
    return [*entries, {"name": "burn_increase_mult", "value": {"U64F64": multiplier}}]


def _neuron(state: State, netuid: int, uid: int) -> dict[str, Any]:
    def vector(item: str) -> Any:
        return state.get(PALLET, item, netuid)[uid]

    hotkey = neurons.hotkey_of(state, netuid, uid)
    coldkey = state.get(PALLET, "Owner", hotkey)
    return {
        "hotkey": hotkey,
        "coldkey": coldkey,
        "uid": uid,
        "netuid": netuid,
        "active": vector("Active"),
        "axon_info": state.get(PALLET, "Axons", netuid, hotkey) or NO_AXON,
        "prometheus_info": NO_PROMETHEUS,
        "stake": [(coldkey, neurons.stake_of(state, netuid, hotkey))],
        "rank": 0,
        "emission": vector("Emission"),
        "incentive": vector("Incentive"),
        "consensus": vector("Consensus"),
        "trust": 0,
        "validator_trust": vector("ValidatorTrust"),
        "dividends": vector("Dividends"),
        "last_update": vector("LastUpdate"),
        "validator_permit": vector("ValidatorPermit"),
        "pruning_score": 65535,
    }


def _full_neuron(state: State, netuid: int, uid: int) -> dict[str, Any]:
    weights = state.get(PALLET, "Weights", netuid, uid) or []
    return {**_neuron(state, netuid, uid), "weights": weights, "bonds": []}


def _metagraph(state: State, netuid: int, block: int) -> dict[str, Any] | None:
    if not state.get(PALLET, "NetworksAdded", netuid) or netuid == 0:
        return None
    return {
        **_hyperparameters(state, netuid),
        **_subnet(state, netuid, block),
        **_columns(state, netuid),
    }


def _subnet(state: State, netuid: int, block: int) -> dict[str, Any]:
    def value(item: str) -> Any:
        return state.get(PALLET, item, netuid)

    pool = dict.fromkeys(("alpha_in", "alpha_out", "tao_in"), 1_000_000_000_000)
    flows = (
        "subnet_emission",
        "alpha_out_emission",
        "alpha_in_emission",
        "tao_in_emission",
        "pending_alpha_emission",
        "pending_root_emission",
        "subnet_volume",
    )
    return {
        **pool,
        **dict.fromkeys(flows, 0),
        "netuid": netuid,
        "name": list(b"iota"),
        "symbol": list(value("TokenSymbol").encode()),
        "identity": None,
        "network_registered_at": value("NetworkRegisteredAt"),
        "owner_hotkey": value("SubnetOwnerHotkey"),
        "owner_coldkey": value("SubnetOwner"),
        "block": block,
        "last_step": value("LastMechansimStepBlock"),
        "blocks_since_last_step": value("BlocksSinceLastStep"),
        "moving_price": {"bits": 2**32},
        "num_uids": neurons.count(state, netuid),
        "max_uids": value("MaxAllowedUids"),
        "burn": value("Burn"),
        "pow_registration_allowed": False,
    }


def _columns(state: State, netuid: int) -> dict[str, Any]:
    rows = [_neuron(state, netuid, uid) for uid in _uids(state, netuid)]
    stakes = [row["stake"][0][1] for row in rows]

    def column(name: str) -> list[Any]:
        return [row[name] for row in rows]

    zeros = [0] * len(rows)
    return {
        "hotkeys": column("hotkey"),
        "coldkeys": column("coldkey"),
        "identities": [None] * len(rows),
        "axons": column("axon_info"),
        "active": column("active"),
        "validator_permit": column("validator_permit"),
        "pruning_score": column("pruning_score"),
        "last_update": column("last_update"),
        "emission": column("emission"),
        "dividends": column("dividends"),
        "incentives": column("incentive"),
        "consensus": column("consensus"),
        "trust": zeros,
        "rank": zeros,
        "block_at_registration": [
            state.get(PALLET, "BlockAtRegistration", netuid, uid) for uid in _uids(state, netuid)
        ],
        "alpha_stake": stakes,
        "tao_stake": zeros,
        "total_stake": stakes,
        "tao_dividends_per_hotkey": [],
        "alpha_dividends_per_hotkey": [],
        "collateral_locked": zeros,
        "collateral_min": zeros,
        "collateral_earned": zeros,
    }
