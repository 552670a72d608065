"""The beginning of a block: prices fall, due commits are revealed, and an epoch pays for the weights."""

from __future__ import annotations

from typing import Any, Final

from iota.chain.ledger.yuma import yuma
from tests.support.subtensor import neurons, registration, weights
from tests.support.subtensor.blocks import RAO, DispatchFailure
from tests.support.subtensor.execution import Execution
from tests.support.subtensor.state import State

U16_MAX: Final = 65535
MINER_SHARE: Final = 0.41
"""Of an epoch's emission; validators get as much, the owner the rest."""
ALPHA_PER_BLOCK: Final = RAO


def on_initialize(x: Execution, netuid: int) -> None:
    """What the runtime does before the extrinsics of a block."""
    registration.lower_price(x, netuid)
    _reveal_commits(x, netuid)
    x.put("BlocksSinceLastStep", (netuid,), x.get("BlocksSinceLastStep", netuid) + 1)
    if not _due(x, netuid):
        return
    _run_epoch(x, netuid)
    x.put("BlocksSinceLastStep", (netuid,), 0)
    x.put("LastMechansimStepBlock", (netuid,), x.block)
    x.put("LastEpochBlock", (netuid,), x.block)
    x.put("PendingEpochAt", (netuid,), 0)
    x.put("SubnetEpochIndex", (netuid,), x.get("SubnetEpochIndex", netuid) + 1)


def next_epoch_block(state: State, netuid: int) -> int | None:
    """When the next epoch runs: a tempo after the last, or earlier if the owner asked for it."""
    tempo = state.get("SubtensorModule", "Tempo", netuid)
    if not tempo:
        return None
    automatic = int(state.get("SubtensorModule", "LastEpochBlock", netuid)) + int(tempo)
    pending = int(state.get("SubtensorModule", "PendingEpochAt", netuid) or 0)
    return min(automatic, pending) if pending else automatic


def activity_cutoff(state: State, netuid: int) -> int:
    """Blocks after which a validator without new weights no longer counts."""
    factor = state.get("SubtensorModule", "ActivityCutoffFactorMilli", netuid)
    return int(factor * state.get("SubtensorModule", "Tempo", netuid) // 1000)


def _due(x: Execution, netuid: int) -> bool:
    at = next_epoch_block(x.state, netuid)
    return at is not None and x.block >= at


def _reveal_commits(x: Execution, netuid: int) -> None:
    """Applies the opened commits of the epoch whose turn it is, and forgets those of earlier ones.

    A commit is open once its plain weights stand in the model's own item `Beacon.Opened`, where the test
    puts them: nobody here can decrypt. Weights that the rules refuse are dropped without a word.
    """
    epoch = x.get("SubnetEpochIndex", netuid) + (1 if _due(x, netuid) else 0)
    turn = epoch - x.get("RevealPeriodEpochs", netuid)
    for (index, committed), queue in x.state.entries("SubtensorModule", "TimelockedWeightCommits", netuid):
        if committed > turn:
            continue
        closed = []
        for commit in queue if committed == turn else []:
            opened = x.state.get("Beacon", "Opened", commit[2])
            if opened is None:
                closed.append(commit)
            else:
                _reveal(x, netuid, commit[0], opened)
        if closed:
            x.put("TimelockedWeightCommits", (index, committed), closed)
        else:
            x.state.remove("SubtensorModule", "TimelockedWeightCommits", index, committed)


def _reveal(x: Execution, netuid: int, hotkey: str, opened: dict[str, Any]) -> None:
    try:
        weights.apply_weights(x, hotkey, {"netuid": netuid, **opened})
    except DispatchFailure:
        return  # as the chain does: it only logs it
    x.emit("SubtensorModule", "TimelockedWeightsRevealed", (netuid, hotkey))


def _run_epoch(x: Execution, netuid: int) -> None:
    uids = tuple(range(neurons.count(x.state, netuid)))
    stakes = {uid: neurons.stake_of(x.state, netuid, neurons.hotkey_of(x.state, netuid, uid)) for uid in uids}
    last_update, permits = x.get("LastUpdate", netuid), x.get("ValidatorPermit", netuid)
    cutoff = activity_cutoff(x.state, netuid)
    active = [last_update[uid] + cutoff >= x.block for uid in uids]
    counting = {uid: stakes[uid] / RAO for uid in uids if active[uid] and permits[uid] and stakes[uid] > 0}
    rows = {uid: _row(x, netuid, uid, last_update[uid]) for uid in counting}
    result = yuma(counting, rows, uids)
    earned = [MINER_SHARE * (result.incentive[uid] + result.dividends[uid]) for uid in uids]
    tempo = x.get("Tempo", netuid)
    x.put("Active", (netuid,), active)
    x.put("Consensus", (netuid,), [int(result.consensus[uid] * U16_MAX) for uid in uids])
    x.put("Incentive", (netuid,), [int(result.incentive[uid] * U16_MAX) for uid in uids])
    x.put("Dividends", (netuid,), [int(result.dividends[uid] * U16_MAX) for uid in uids])
    x.put("Emission", (netuid,), [int(share * tempo * ALPHA_PER_BLOCK) for share in earned])
    x.put("ValidatorPermit", (netuid,), _permits(x, netuid, stakes))


def _row(x: Execution, netuid: int, uid: int, last_update: int) -> dict[int, float]:
    """A validator's weights without itself, and without those who came after it set them."""
    row = x.get("Weights", netuid, uid) or []
    return {
        target: float(weight)
        for target, weight in row
        if target != uid and x.get("BlockAtRegistration", netuid, target) <= last_update
    }


def _permits(x: Execution, netuid: int, stakes: dict[int, int]) -> list[bool]:
    """The greatest stakes above the threshold, as many as the subnet allows."""
    least = max(1, x.get("StakeThreshold"))
    ranked = sorted((uid for uid in stakes if stakes[uid] >= least), key=lambda uid: (-stakes[uid], uid))
    allowed = set(ranked[: x.get("MaxAllowedValidators", netuid)])
    return [uid in allowed for uid in stakes]
