"""Outages of the server and of the object store: nobody is late because of them, so deadlines begin again."""

from __future__ import annotations

from typing import Final

from orchestrator.coordinator import evidence, membership
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.state import RunState

RETURN_S: Final = 12.5
"""The longest pause of a member between two tries (10 s, times its jitter): for so long it may not hear of
the outage's end. Its pauses double, so that none is longer than twice what it has waited before."""


def store_went_away(run: RunState) -> None:
    """The object store does not answer the server: until it is back no deadline passes."""
    if run.store_away_since is None:
        run.store_away_since = run.now
        run.incidents.named.append("the object store does not answer the orchestrator")


def store_came_back(run: RunState) -> None:
    """The object store answers again."""
    if run.store_away_since is not None:
        restart_deadlines(run, run.now - run.store_away_since)
        run.store_away_since = None


def restart_deadlines(run: RunState, away_s: float) -> None:
    """Restart every running deadline: members could not report, or store, for `away_s` seconds at most.

    They may have been restarted with the orchestrator, and then repeat their epoch. Nobody is late before all
    have heard that the outage is over.
    """
    pause_s = min(2 * away_s, RETURN_S)
    run.heard_by = run.now + pause_s
    for member in run.members.values():
        member.last_progress = run.now
        member.replay_s, member.replayed = max(pause_s, membership.replay_s(run, member)), 0.0
        member.pending = dict.fromkeys(member.pending, run.now)
        run.clocks.arm(member, again=True)
    for step in run.current.open_steps():
        step.heldout_since = None if step.heldout_since is None else (run.heard_by, run.heard_by)
    for epoch in run.awaiting():
        _restart_merge(run, epoch)
    for sealed in (each for each in run.epochs.values() if each.seal is not None):
        sealed.sealed_at = run.now
    for waiting in (run.bases.disputed, run.bases.unstored):
        waiting.restart(run.heard_by)
    if run.gathering_since is not None:
        run.gathering_since = run.now
    evidence.postpone(run, away_s + pause_s)


def _restart_merge(run: RunState, epoch: EpochState) -> None:
    epoch.merging_since = run.now if epoch.merging_since else 0.0
    epoch.merged_at = run.heard_by if epoch.merged_at else 0.0
    epoch.uploads_since = None
    for merge in epoch.merges:
        merge.since = run.now
    epoch.unagreed.restart(run.heard_by)
