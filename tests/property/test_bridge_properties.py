"""The Bridge under any writes, in any order: what holds for its state, its replay and its watchers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.protocol.bridge import (
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
)
from iota.simulate.names import fake_hotkey
from orchestrator.bridge import Bridge, Writer, changes_after, page, write
from orchestrator.bridge.bridge import Owned
from orchestrator.coordinator import Bridged

OPERATOR = Writer(fake_hotkey(8), operator=True, member=False)
ANN, BEN = (Writer(fake_hotkey(n), operator=False, member=True) for n in range(2))
STRANGER = Writer(fake_hotkey(9), operator=False, member=False)
NAMES = ("a", "a/x", "a/y", "b", "rights/a", "rights/b", f"node/{ANN.hotkey}/n", "node/x/y", "run/paused")
RULES: list[Any] = [{"write": "members", "read": "anyone"}, {"write": "owner"}, {}]
VALUES = [0, 1, 1, 1.0, 2, 0.5, True, "x", None, *RULES]


class Run(NamedTuple):
    """Writes that follow from a seed and the states that they meet."""

    seed: int
    length: int


MANY = settings(max_examples=300)
RUNS = st.builds(Run, st.integers(0, 2**32), st.integers(1, 60))


def some_op(chance: random.Random, bridge: Bridge, name: str) -> Op:
    """An operation of somebody who knows the state, as a rule."""
    found = bridge.variables.get(name)
    held = None if found is None else found.lease
    knows = chance.random() < 0.8
    version = (0 if found is None else found.version) + (not knows)
    lease = (0 if held is None else held.number) + (not knows)
    locked = found is not None and found.rule is WriteRule.LOCK
    needs = found is not None and found.rule is WriteRule.CAS
    ttl_s = chance.choice([None, 2.0, 8.0, 30.0])
    match chance.choice(["set", "set", "set", "delete", "check", "lock", "renew", "unlock"]):
        case "set":
            rule = chance.choice([None, *WriteRule]) if found is None else None
            expects = needs or rule is WriteRule.CAS or chance.random() < 0.2
            return Set(
                name=name,
                value=chance.choice(RULES if name.startswith("rights/") and knows else VALUES),
                kind=None if found is None or knows else ValueKind.STR,
                rule=rule,
                expected=version if expects else None,
                lease=lease if locked and knows else None,
                ttl_s=ttl_s,
            )
        case "delete":
            return Delete(name=name, expected=version or None, lease=lease if locked else None)
        case "check":
            return Check(name=name, expected=version)
        case "renew":
            return Renew(name=name, lease=lease or 1, lease_s=ttl_s or 9.0)
        case "unlock":
            return Unlock(name=name, lease=lease or 1)
        case _:
            return Lock(name=name, lease_s=ttl_s or 9.0)


def opened() -> Bridge:
    """A Bridge whose operator lets members write under `a`, and what is theirs under `b`."""
    bridge = Bridge()
    ops = (Set(name="rights/a", value=RULES[0]), Set(name="rights/b", value=RULES[1]))
    assert write(bridge, OPERATOR, WriteRequest(request="f" * 32, ops=ops), 0.0) == 1
    return bridge


def requests(bridge: Bridge, run: Run) -> Iterator[tuple[Writer, WriteRequest, float]]:
    """The writes of a run, each made for the state that the Bridge has by then, and its time."""
    chance, now = random.Random(run.seed), 0.0
    for number in range(run.length):
        now += chance.choice([0.0, 0.5, 1.0])
        writer = chance.choice([OPERATOR, OPERATOR, OPERATOR, ANN, ANN, BEN, STRANGER])
        there = [name for name in NAMES if name in bridge.variables] or NAMES
        known = [chance.choice(there if chance.random() < 0.6 else NAMES) for _ in range(3)]
        names = dict.fromkeys(known[: chance.choice([1, 1, 2, 3])])
        ops = tuple(some_op(chance, bridge, name) for name in names)
        if all(isinstance(op, Check) for op in ops):
            ops = (Set(name=ops[0].name, value=1), *ops[1:])
        yield writer, WriteRequest(request=f"{number:032x}", ops=ops), now


@MANY
@given(RUNS)
def test_a_write_happens_as_a_whole_or_changes_nothing(run: Run) -> None:
    bridge = opened()
    for writer, request, now in requests(bridge, run):
        bridge.expire(now)
        before, revision = dict(bridge.variables), bridge.revision
        found = write(bridge, writer, request, now)
        changed = {
            name
            for name in {*before, *bridge.variables}
            if before.get(name) is not bridge.variables.get(name)
        }
        if isinstance(found, int):
            assert found == bridge.revision == revision + 1
            assert changed == {op.name for op in request.ops if not isinstance(op, Check)}
        else:
            assert (bridge.variables, bridge.revision) == (before, revision)
        again = write(bridge, writer, request, now)
        assert not isinstance(found, int) or again == found


@MANY
@given(RUNS)
def test_indexes_equal_a_scan(run: Run) -> None:
    bridge = opened()
    for writer, request, now in requests(bridge, run):
        write(bridge, writer, request, now)
        owned: dict[str, Owned] = {}
        for variable in bridge.variables.values():
            own = owned.setdefault(variable.owner, Owned())
            own.variables, own.size = own.variables + 1, own.size + variable.size
        assert bridge.owned == owned
        assert bridge.members_size == sum(own.size for owner, own in owned.items() if owner != "run")
        assert bridge.names == sorted(bridge.variables)
        assert bridge.public == [name for name in bridge.names if bridge.rights.is_public(name)]
        assert set(bridge.rights.rules) == {
            name.removeprefix("rights/") for name in bridge.variables if name.startswith("rights/")
        }
        ends = {(v.expires, v.name) for v in bridge.variables.values() if v.expires is not None}
        ends |= {(v.lease.until, v.name) for v in bridge.variables.values() if v.lease is not None}
        assert ends <= set(bridge.due)
        assert all(end > now for end, _ in ends)


@MANY
@given(RUNS)
def test_a_replay_of_the_journal_gives_the_same_state(run: Run) -> None:
    lived, replayed = opened(), opened()
    for writer, request, now in requests(lived, run):
        entry = Bridged(at=now, hotkey=writer.hotkey, operator=writer.operator, write=request)
        stored = Bridged.model_validate_json(entry.canonical())
        found = write(lived, writer, entry.write, entry.at)
        assert write(replayed, writer, stored.write, stored.at) == found
    assert lived == replayed
    assert [c.json for c in lived.changes] == [c.json for c in replayed.changes]


@MANY
@given(RUNS, st.sampled_from(["", "a", "rights", "b"]), st.booleans(), st.lists(st.booleans(), max_size=40))
def test_a_watcher_that_reconnects_misses_nothing(
    run: Run, prefix: str, trusted: bool, connected: list[bool]
) -> None:
    """It applies what it gets, after any breaks, and holds what a listing holds. Rules stay as they were."""
    bridge = opened()
    held: dict[str, Any] = {}
    at: int | None = None

    def catch_up() -> None:
        nonlocal at
        more = True
        while more:
            found = changes_after(bridge, prefix, at, trusted=trusted)
            if found.snapshot:
                held.clear()
            for change in found.changes:
                assert at is None or change.revision > at
                if change.variable is None:
                    held.pop(change.name, None)
                else:
                    held[change.name] = change.variable
            at, more = found.revision, found.more

    for number, (writer, request, now) in enumerate(requests(bridge, run)):
        if trusted or not any(op.name.startswith("rights/") for op in request.ops):
            write(bridge, writer, request, now)
        if number < len(connected) and connected[number]:
            catch_up()
    catch_up()
    assert held == {v.name: v for v in page(bridge, prefix, trusted=trusted).variables}


@MANY
@given(RUNS)
def test_the_number_of_a_lease_only_grows_and_its_holder_alone_writes(run: Run) -> None:
    bridge, highest = opened(), dict.fromkeys(NAMES, 0)
    for writer, request, now in requests(bridge, run):
        bridge.expire(now)
        before = dict(bridge.variables)
        done = write(bridge, writer, request, now)
        for variable in bridge.variables.values():
            if variable.lease is not None:
                assert variable.lease.number >= highest[variable.name]
                highest[variable.name] = variable.lease.number
        for op in request.ops if isinstance(done, int) else ():
            found = before.get(op.name)
            if isinstance(op, Set) and found is not None and found.rule is WriteRule.LOCK:
                assert found.lease is not None
                assert (found.lease.holder, found.lease.number) == (writer.hotkey, op.lease)
