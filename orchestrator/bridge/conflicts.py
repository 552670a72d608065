"""Whether a variable is as an operation says: its version, its rule, its lease."""

from __future__ import annotations

from iota.protocol.bridge import Check, Delete, Lock, Op, Renew, Set, Unlock, WriteRule
from orchestrator.bridge import run_variables
from orchestrator.bridge.bridge import Writer
from orchestrator.bridge.refusals import Conflict, Refusal, Unfit
from orchestrator.bridge.rights import RIGHTS
from orchestrator.bridge.variable import Variable


def conflict(writer: Writer, op: Op, found: Variable | None) -> Refusal | None:
    """Why the variable is not as the operation says."""
    match op:
        case Check():
            return _other_version(op.name, op.expected, found)
        case Set():
            return _set_conflict(writer, op, found)
        case Delete():
            return _delete_conflict(writer, op, found)
        case Lock():
            return _lock_conflict(op, found)
        case Renew() | Unlock():
            if found is None or found.rule is not WriteRule.LOCK:
                return Conflict(f"{op.name} is no variable with rule lock", op.name, found)
            return _lease_conflict(writer, op.name, op.lease, found)


def _set_conflict(writer: Writer, op: Set, found: Variable | None) -> Refusal | None:
    rule = found.rule if found is not None else op.rule or WriteRule.LWW
    if rule is WriteRule.CAS and op.expected is None:
        return Unfit(f"{op.name} has rule cas: name the version that you saw, 0 for none")
    if op.expected is not None and (refusal := _other_version(op.name, op.expected, found)):
        return refusal
    if found is None:
        return None if op.lease is None else Conflict(f"{op.name} is not there", op.name, None)
    if op.rule not in (None, found.rule):
        return Unfit(f"{op.name} has rule {found.rule}: delete it first, to make it anew with another")
    return _held_back(writer, op.name, op.lease, found)


def _delete_conflict(writer: Writer, op: Delete, found: Variable | None) -> Refusal | None:
    if found is None:
        return Conflict(f"{op.name} is not there", op.name, None)
    if op.expected is not None and (refusal := _other_version(op.name, op.expected, found)):
        return refusal
    if writer.operator:
        return None  # it can clear away what somebody holds
    if found.rule is WriteRule.CAS and op.expected is None:
        return Unfit(f"{op.name} has rule cas: name the version that you saw")
    return _held_back(writer, op.name, op.lease, found)


def _lock_conflict(op: Lock, found: Variable | None) -> Refusal | None:
    if found is None:
        typed = run_variables.is_typed(op.name) or op.name.partition("/")[0] == RIGHTS
        return Unfit(f"{op.name} has no lease") if typed else None
    if found.rule is not WriteRule.LOCK:
        return Unfit(f"{op.name} has rule {found.rule}, and no lease")
    if found.lease is not None:
        return Conflict(f"{op.name} is held by {found.lease.holder}", op.name, found)
    return None


def _held_back(writer: Writer, name: str, lease: int | None, found: Variable) -> Refusal | None:
    """A lease is needed where the rule is `lock`, and wrong where it is not."""
    if found.rule is not WriteRule.LOCK:
        return None if lease is None else Unfit(f"{name} has rule {found.rule}, and no lease")
    return _lease_conflict(writer, name, lease, found)


def _lease_conflict(writer: Writer, name: str, lease: int | None, found: Variable) -> Conflict | None:
    held = found.lease
    if held is not None and (held.holder, held.number) == (writer.hotkey, lease):
        return None
    whose = "nobody" if held is None else f"{held.holder} by lease {held.number}"
    given = "no lease is given" if lease is None else f"not by lease {lease}"
    return Conflict(f"{name} is held by {whose}: {given}", name, found)


def _other_version(name: str, expected: int, found: Variable | None) -> Conflict | None:
    version = 0 if found is None else found.version
    if version == expected:
        return None
    return Conflict(f"{name} has version {version}, not {expected}", name, found)
