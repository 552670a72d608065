"""Decides on writes: all operations of one against the same state, and then all of them happen or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from iota.protocol.bridge import (
    RUN,
    Check,
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
from orchestrator.bridge.bounds import Put, beyond
from orchestrator.bridge.bridge import Bridge, Writer
from orchestrator.bridge.conflicts import conflict
from orchestrator.bridge.refusals import Forbidden, Refusal, Unfit
from orchestrator.bridge.rights import RIGHTS, Rights, rule_fault
from orchestrator.bridge.variable import Lease, Variable

MAX_MEMBER_TTL_S: Final = 86_400.0
"""Longest life of a member's variable after its last write: who is gone leaves nothing behind for long."""


def decide(bridge: Bridge, writer: Writer, request: WriteRequest, now: float) -> list[Put] | Refusal:
    """What the write with the next revision changes, or why it is refused. Changes nothing itself.

    `bridge` has nothing that expired before `now`. The request was not taken before.
    """
    puts: list[Put] = []
    for op in request.ops:
        found = bridge.variables.get(op.name)
        refusal = _forbidden(bridge, writer, op, found) or conflict(writer, op, found)
        if refusal is not None:
            return refusal
        if isinstance(op, Check):
            continue
        made = _made(writer, op, found, bridge.revision + 1, now)
        if isinstance(made, Refusal):
            return made
        puts.append(Put(op.name, made))
    return beyond(bridge, puts) or puts


def write(bridge: Bridge, writer: Writer, request: WriteRequest, now: float) -> int | Refusal:
    """Do a write; its revision, or why it is refused. One that is repeated gives the first one's revision."""
    bridge.expire(now)
    if (known := bridge.known(writer.hotkey, request.request)) is not None:
        return known
    puts = decide(bridge, writer, request, now)
    if isinstance(puts, Refusal):
        return puts
    revision = bridge.revision + 1
    for put in puts:
        bridge.put(revision, put.name, put.variable)
    bridge.note_done(writer.hotkey, request.request, now)
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
