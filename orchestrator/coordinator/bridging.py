"""The run and its shared variables: who may write, what the run acts on, and what it writes itself."""

from __future__ import annotations

from typing import Final

from iota.protocol.bridge import BEST_HELDOUT
from iota.protocol.heldout import BaseLoss
from orchestrator.bridge import Refusal, Writer, write
from orchestrator.bridge.run_variables import is_of_run, is_paused, lr_factor
from orchestrator.coordinator.entries import Bridged
from orchestrator.coordinator.state import RunState

_UNDONE: Final = Refusal("the orchestrator could not do it: report this to its operator")


def take_write(run: RunState, entry: Bridged) -> None:
    """Do a write, or refuse it: `Bridge.outcome` says which."""
    run.bridge.outcome = _UNDONE  # a bug must not answer with what came of another write
    writer = Writer(entry.hotkey, entry.operator, is_member(run, entry.hotkey))
    run.bridge.outcome = write(run.bridge, writer, entry.write, run.now)
    run.dirty = run.dirty or any(is_of_run(op.name) for op in entry.write.ops)


def expire(run: RunState) -> None:
    """Delete the variables whose time has passed."""
    run.dirty = any(map(is_of_run, run.bridge.expire(run.now))) or run.dirty


def is_member(run: RunState, hotkey: str) -> bool:
    """Whether a hotkey has joined the run, has not left it, and is not revoked."""
    member = run.members.get(hotkey)
    return member is not None and not (member.left or run.owners.is_revoked(member.owner, hotkey))


def note_loss(run: RunState, epoch: int, found: BaseLoss) -> None:
    """Set the lowest held-out loss, if that of the base of `epoch` is the lowest so far."""
    if found.loss > min(known.loss for known in run.totals.heldout.values()):
        return
    value = {
        "epoch": epoch,
        "loss": found.loss,
        "standard_error": found.standard_error,
        "tokens": found.tokens,
    }
    run.bridge.set_own(BEST_HELDOUT, value)


def may_plan(run: RunState) -> bool:
    """Whether further steps may be planned: not while the operator has paused the run."""
    return not is_paused(run.bridge)


def learning_rate(run: RunState, step: int) -> float:
    """The rate of a step that is planned now: the spec's, times the operator's factor."""
    return run.spec.learning_rate(run.epoch, step) * lr_factor(run.bridge)
