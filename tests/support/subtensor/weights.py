"""Weights: set in plain, or committed under a time lock and set when the beacon opens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.support.subtensor import neurons
from tests.support.subtensor.blocks import DispatchFailure, blake
from tests.support.subtensor.execution import Execution

U16_MAX: Final = 65535
MECHANISMS_APART: Final = 4096
"""Weights of mechanism `m` are stored under `m * 4096 + netuid`."""
COMMIT_VERSION: Final = 4
MAX_COMMITS: Final = 10
"""Commits of one hotkey in one epoch."""


def storage_index(x: Execution, params: Mapping[str, Any]) -> int:
    """Where the weights of a call's subnet and mechanism are stored."""
    netuid, mechanism = int(params["netuid"]), int(params.get("mecid", 0))
    if not x.get("NetworksAdded", netuid) or mechanism >= (x.get("MechanismCountCurrent", netuid) or 0):
        raise DispatchFailure("MechanismDoesNotExist")
    return mechanism * MECHANISMS_APART + netuid


def check_stake(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Refuses a hotkey with too little stake for weights, before dispatch."""
    if neurons.stake_of(x.state, int(params["netuid"]), hotkey) < x.get("StakeThreshold"):
        raise DispatchFailure("NotEnoughStakeToSetWeights")


def check_set(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """What is refused before plain weights are dispatched."""
    check_stake(x, hotkey, params)
    netuid = int(params["netuid"])
    if x.get("CommitRevealWeightsEnabled", netuid):
        return
    uid = neurons.uid_of(x.state, netuid, hotkey)
    if uid is not None and _too_fast(x, netuid, uid):
        raise DispatchFailure("SettingWeightsTooFast")


def check_commit(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """What is refused before a commit is dispatched."""
    check_stake(x, hotkey, params)
    if int(params["reveal_round"]) < x.state.get("Drand", "LastStoredRound"):
        raise DispatchFailure("InvalidRevealRound")


def set_weights(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Plain weights, which act at the next epoch."""
    storage_index(x, params)
    if x.get("CommitRevealWeightsEnabled", int(params["netuid"])):
        raise DispatchFailure("CommitRevealEnabled")
    apply_weights(x, hotkey, params)


def commit_timelocked_weights(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Keeps a ciphertext for the epoch that reveals it. Permit, version and uids are not looked at yet."""
    netuid, index = int(params["netuid"]), storage_index(x, params)
    if int(params["commit_reveal_version"]) != COMMIT_VERSION:
        raise DispatchFailure("IncorrectCommitRevealVersion")
    if not x.get("CommitRevealWeightsEnabled", netuid):
        raise DispatchFailure("CommitRevealDisabled")
    uid = neurons.uid_of(x.state, netuid, hotkey)
    if uid is None:
        raise DispatchFailure("HotKeyNotRegisteredInSubNet")
    if _too_fast(x, netuid, uid):
        raise DispatchFailure("CommittingWeightsTooFast")
    key = (index, x.get("SubnetEpochIndex", netuid))
    queue = list(x.get("TimelockedWeightCommits", *key) or [])
    if sum(committer == hotkey for committer, *_ in queue) >= MAX_COMMITS:
        raise DispatchFailure("TooManyUnrevealedCommits")
    ciphertext = (
        params["commit"] if isinstance(params["commit"], str) else "0x" + bytes(params["commit"]).hex()
    )
    commit = (hotkey, x.block, ciphertext, int(params["reveal_round"]))
    x.put("TimelockedWeightCommits", key, [*queue, commit])
    neurons.set_element(x.state, "LastUpdate", netuid, uid, x.block)
    digest = blake(ciphertext)
    x.emit(
        "SubtensorModule", "TimelockedWeightsCommitted", (hotkey, index, digest, int(params["reveal_round"]))
    )


def apply_weights(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Checks weights and stores them: when set, and again when a commit is revealed.

    Raises:
        DispatchFailure: in the order of the pallet's checks.
    """
    netuid, uids, values = int(params["netuid"]), list(params["dests"]), list(params["weights"])
    if len(uids) != len(values):
        raise DispatchFailure("WeightVecNotEqualSize")
    if len(uids) > neurons.count(x.state, netuid):
        raise DispatchFailure("UidsLengthExceedUidsInSubNet")
    own = neurons.uid_of(x.state, netuid, hotkey)
    if own is None:
        raise DispatchFailure("HotKeyNotRegisteredInSubNet")
    check_stake(x, hotkey, params)
    required = x.get("WeightsVersionKey", netuid)
    if required and int(params["version_key"]) < required:
        raise DispatchFailure("IncorrectWeightVersionKey")
    committed = x.get("CommitRevealWeightsEnabled", netuid)
    if not committed and _too_fast(x, netuid, own):
        raise DispatchFailure("SettingWeightsTooFast")
    is_owner = hotkey == x.get("SubnetOwnerHotkey", netuid)
    if uids != [own] and not is_owner and not x.get("ValidatorPermit", netuid)[own]:
        raise DispatchFailure("NeuronNoValidatorPermit")
    _check_row(x, netuid, own, uids, values)
    top = max(values, default=0)
    row = [(u, round(v * U16_MAX / top) if top else 0) for u, v in zip(uids, values, strict=True)]
    x.put("Weights", (storage_index(x, params), own), row)
    if not committed:
        neurons.set_element(x.state, "LastUpdate", netuid, own, x.block)
    x.emit("SubtensorModule", "WeightsSet", (storage_index(x, params), own))


def _check_row(x: Execution, netuid: int, own: int, uids: Sequence[int], values: Sequence[int]) -> None:
    if len(set(uids)) != len(uids):
        raise DispatchFailure("DuplicateUids")
    neuron_count = neurons.count(x.state, netuid)
    if any(uid >= neuron_count for uid in uids):
        raise DispatchFailure("UidVecContainInvalidOne")
    if uids == [own]:
        return  # a weight for oneself alone need not be one of many
    if len(uids) < min(neuron_count, x.get("MinAllowedWeights", netuid)):
        raise DispatchFailure("WeightVecLengthIsLow")
    limit = x.get("MaxWeightsLimit", netuid)
    if limit < U16_MAX and max(values, default=0) * U16_MAX > limit * sum(values):
        raise DispatchFailure("MaxWeightExceeded")


def _too_fast(x: Execution, netuid: int, uid: int) -> bool:
    last = x.get("LastUpdate", netuid)[uid]
    return bool(last) and x.block - last < x.get("WeightsSetRateLimit", netuid)
