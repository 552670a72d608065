"""Decides on writes: all operations of one against the same state, and then all of them happen or none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pydantic import ValidationError

from iota.protocol.bridge import (
    RUN,
    Check,
    Delete,
    Lock,
    Op,
    Renew,
    Set,
    Unlock,
    ValueKind,
    WriteRequest,
    WriteRule,
    value_text,
)
from orchestrator.bridge import run_variables
from orchestrator.bridge.bridge import Bridge, Owned, Writer
from orchestrator.bridge.refusals import Conflict, Forbidden, Refusal, Unfit
from orchestrator.bridge.rights import RIGHTS, Rights, rule_fault
from orchestrator.bridge.variable import Lease, Variable

MAX_OPERATOR_VARIABLES: Final = 8192
MAX_OPERATOR_BYTES: Final = 16 << 20
MAX_MEMBER_VARIABLES: Final = 16
"""Variables that one member may own."""
MAX_MEMBER_BYTES: Final = 8192
"""Names and values of these together."""
MAX_MEMBERS_BYTES: Final = 32 << 20
"""Names and values of all members' variables together."""
MAX_MEMBER_TTL_S: Final = 86_400.0
"""Longest life of a member's variable after its last write: who is gone leaves nothing behind for long."""


@dataclass(frozen=True)
class Put:
    """What a write makes of one variable: None removes it."""

    name: str
    variable: Variable | None


def decide(bridge: Bridge, writer: Writer, request: WriteRequest, now: float) -> list[Put] | Refusal:
    """What the write with the next revision changes, or why it is refused. Changes nothing itself.

    `bridge` has nothing that expired before `now`. The request was not taken before.
    """
    puts: list[Put] = []
    for op in request.ops:
        found = bridge.variables.get(op.name)
        refusal = _forbidden(bridge, writer, op, found) or _conflict(writer, op, found)
        if refusal is not None:
            return refusal
        if isinstance(op, Check):
            continue
        made = _made(writer, op, found, bridge.revision + 1, now)
        if isinstance(made, Refusal):
            return made
        puts.append(Put(op.name, made))
    return _beyond(bridge, puts) or puts


def write(bridge: Bridge, writer: Writer, request: WriteRequest, now: float) -> int | Refusal:
    """Do a write; its revision, or why it is refused. One that is repeated gives the first one's revision."""
    bridge.expire(now)
    known = bridge.done.get(writer.hotkey, {}).get(request.request)
    if known is not None:
        return known
    puts = decide(bridge, writer, request, now)
    if isinstance(puts, Refusal):
        return puts
    revision = bridge.revision + 1
    for put in puts:
        bridge.put(revision, put.name, put.variable)
    bridge.note_done(writer.hotkey, request.request, revision)
    return revision


def _forbidden(bridge: Bridge, writer: Writer, op: Op, found: Variable | None) -> Refusal | None:
    if op.name in run_variables.OWN and not isinstance(op, Check):
        return Forbidden(f"{op.name} is written by the run itself")
    if writer.operator:
        return None
    if not writer.member:
        return Forbidden("members of the run and its operator write: join first")
    if isinstance(op, Check):
        return None  # any member reads everything
    if bridge.rights.may_write(op.name, writer.hotkey, None if found is None else found.owner):
        return None
    return Forbidden(f"{op.name} is not yours to write: see the rules under {RIGHTS}/")


def _conflict(writer: Writer, op: Op, found: Variable | None) -> Refusal | None:
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


def _made(
    writer: Writer, op: Op, found: Variable | None, revision: int, now: float
) -> Variable | Refusal | None:
    """What a rightful operation makes of its variable."""
    match op:
        case Set():
            return _set(writer, op, found, revision, now)
        case Lock():
            lease = Lease(writer.hotkey, revision, now + op.lease_s)
            if found is None:
                expires = None if writer.operator else now + MAX_MEMBER_TTL_S
                name, rule = op.name, WriteRule.LOCK
                found = Variable(name, ValueKind.JSON, rule, "null", revision, writer.owner, expires)
            return _leased(found, lease)
        case Renew():
            assert found is not None
            return _leased(found, Lease(writer.hotkey, op.lease, now + op.lease_s))
        case Unlock():
            assert found is not None
            return replace(found, lease=None)
        case _:
            return None


def _leased(found: Variable, lease: Lease) -> Variable:
    """A variable with a lease, which it outlives."""
    expires = None if found.expires is None else max(found.expires, lease.until)
    return replace(found, lease=lease, expires=expires)


def _set(writer: Writer, op: Set, found: Variable | None, revision: int, now: float) -> Variable | Refusal:
    kind = run_variables.kind_of(op) if found is None else found.kind
    if op.kind not in (None, kind) or not kind.fits(op.value):
        return Unfit(f"{op.name} holds {kind}, and the value or its type is another")
    if (fault := run_variables.fault(op) or _rights_fault(op)) is not None:
        return Unfit(fault)
    owner = writer.owner if found is None else found.owner
    ttl_s = op.ttl_s
    if owner != RUN:
        ttl_s = MAX_MEMBER_TTL_S if ttl_s is None else ttl_s
        if ttl_s > MAX_MEMBER_TTL_S:
            return Unfit(f"a member's variable lives at most {MAX_MEMBER_TTL_S:g} s: write it again in time")
    rule = (op.rule or WriteRule.LWW) if found is None else found.rule
    expires = None if ttl_s is None else now + ttl_s
    made = Variable(op.name, kind, rule, value_text(op.value), revision, owner, expires)
    return made if found is None or found.lease is None else _leased(made, found.lease)


def _rights_fault(op: Set) -> str | None:
    """Why a variable under `rights/` is no rule, or None."""
    if op.name.partition("/")[0] != RIGHTS:
        return None
    if (fault := rule_fault(op.name)) is not None:
        return fault
    try:
        Rights.model_validate_json(value_text(op.value))
    except ValidationError:
        return f'{op.name} is no rule: it has the form {{"write": "members", "read": "anyone"}}'
    return None


def _beyond(bridge: Bridge, puts: list[Put]) -> Unfit | None:
    """The bound that the write would break, or None."""
    after: dict[str, Owned] = {}
    for put in puts:
        for variable, sign in ((bridge.variables.get(put.name), -1), (put.variable, 1)):
            if variable is None:
                continue
            if (owned := after.get(variable.owner)) is None:
                owned = after[variable.owner] = replace(bridge.owned.get(variable.owner, Owned()))
            owned.variables += sign
            owned.size += sign * variable.size
    for owner, owned in after.items():
        before = bridge.owned.get(owner, Owned())
        limits = MAX_OPERATOR_VARIABLES, MAX_OPERATOR_BYTES
        if owner != RUN:
            limits = MAX_MEMBER_VARIABLES, MAX_MEMBER_BYTES
        if owned.variables > max(limits[0], before.variables) or owned.size > max(limits[1], before.size):
            return Unfit(
                f"with this, {owner} would have {owned.variables} variables of {owned.size} bytes, and"
                f" {limits[0]} of {limits[1]} are the most: delete some first"
            )
    grown = sum(o.size - bridge.owned.get(w, Owned()).size for w, o in after.items() if w != RUN)
    if grown > 0 and bridge.members_size + grown > MAX_MEMBERS_BYTES:
        return Unfit(f"the variables of all members have {MAX_MEMBERS_BYTES} bytes already")
    return None
