"""The Bridge under any writes, in any order: what holds for its state, its replay and its watchers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.bridge import Check, Delete, Lock, Op, Renew, Set, Unlock, WriteRequest, WriteRule
from iota.simulate.names import fake_hotkey
from orchestrator.bridge import Bridge, Writer, changes_after, page, write
from orchestrator.bridge.bridge import Owned
from orchestrator.coordinator import Bridged

OPERATOR = Writer(fake_hotkey(8), operator=True, member=False)
WRITERS = (OPERATOR, *(Writer(fake_hotkey(n), operator=False, member=n < 2) for n in range(3)))
NAMES = ("a", "a/x", "a/y", "b", "rights/a", "rights/b", f"node/{fake_hotkey(0)}/n", "node/x/y", "run/paused")
RULES: list[Any] = [{"write": "members", "read": "anyone"}, {"write": "owner"}, {}]
VALUES = st.one_of(
    st.integers(-3, 3), st.booleans(), st.floats(-2, 2), st.text(max_size=3), st.sampled_from(RULES)
)
NAME = st.sampled_from(NAMES)
SEEN = st.integers(0, 12)
MAYBE_SEEN = st.none() | SEEN
NUMBER = st.integers(1, 12)
TIMES = st.integers(1, 20).map(float)
OPS = st.one_of(
    st.builds(
        Set,
        name=NAME,
        value=VALUES,
        rule=st.sampled_from([None, *WriteRule]),
        expected=MAYBE_SEEN,
        lease=MAYBE_SEEN,
        ttl_s=st.none() | TIMES,
    ),
    st.builds(Delete, name=NAME, expected=st.none() | NUMBER, lease=MAYBE_SEEN),
    st.builds(Check, name=NAME, expected=SEEN),
    st.builds(Lock, name=NAME, lease_s=TIMES),
    st.builds(Renew, name=NAME, lease=NUMBER, lease_s=TIMES),
    st.builds(Unlock, name=NAME, lease=NUMBER),
)


def with_an_effect(ops: list[Op]) -> tuple[Op, ...]:
    """The operations; if all only check, the first sets instead."""
    if all(isinstance(op, Check) for op in ops):
        return (Set(name=ops[0].name, value=1), *ops[1:])
    return tuple(ops)


WRITES = st.tuples(
    st.sampled_from(WRITERS),
    st.lists(OPS, min_size=1, max_size=3, unique_by=lambda op: op.name).map(with_an_effect),
    st.integers(0, 4),
)
RUNS = st.lists(WRITES, max_size=25)


def requests(run: list[tuple[Writer, tuple[Op, ...], int]]) -> list[tuple[Writer, WriteRequest, float]]:
    made, now = [], 0.0
    for number, (writer, chosen, pause) in enumerate(run):
        now += pause
        made.append((writer, WriteRequest(request=f"{number:032x}", ops=chosen), now))
    return made


@given(RUNS)
def test_a_write_happens_as_a_whole_or_changes_nothing(run: list[Any]) -> None:
    bridge = Bridge()
    for writer, request, now in requests(run):
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


@given(RUNS)
def test_indexes_equal_a_scan(run: list[Any]) -> None:
    bridge = Bridge()
    for writer, request, now in requests(run):
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


@given(RUNS)
def test_a_replay_of_the_journal_gives_the_same_state(run: list[Any]) -> None:
    lived, replayed = Bridge(), Bridge()
    for writer, request, now in requests(run):
        entry = Bridged(at=now, hotkey=writer.hotkey, operator=writer.operator, write=request)
        stored = Bridged.model_validate_json(entry.canonical())
        found = write(lived, writer, entry.write, entry.at)
        assert write(replayed, writer, stored.write, stored.at) == found
    assert lived == replayed
    assert [c.json for c in lived.changes] == [c.json for c in replayed.changes]


@given(RUNS, st.sampled_from(["", "a", "rights", "b"]), st.booleans(), st.data())
def test_a_watcher_that_reconnects_misses_nothing(
    run: list[Any], prefix: str, trusted: bool, data: st.DataObject
) -> None:
    """It applies what it gets, after any breaks, and holds what a listing holds. Rules stay as they were."""
    bridge = Bridge()
    write(bridge, OPERATOR, WriteRequest(request="f" * 32, ops=(Set(name="rights/a", value=RULES[0]),)), 0.0)
    held: dict[str, Any] = {}
    at: int | None = None

    def catch_up() -> None:
        nonlocal at
        while True:
            found = changes_after(bridge, prefix, at, trusted=trusted)
            if found.snapshot:
                held.clear()
            for change in found.changes:
                assert at is None or found.snapshot or change.revision > at
                if change.variable is None:
                    held.pop(change.name, None)
                else:
                    held[change.name] = change.variable
            at = found.revision
            if not found.more:
                return

    for writer, request, now in requests(run):
        if trusted or not any(op.name.startswith("rights/") for op in request.ops):
            write(bridge, writer, request, now)
        if data.draw(st.booleans()):
            catch_up()
    catch_up()
    assert held == {v.name: v for v in page(bridge, prefix, trusted=trusted).variables}


@given(RUNS)
def test_the_number_of_a_lease_only_grows(run: list[Any]) -> None:
    bridge, highest = Bridge(), dict.fromkeys(NAMES, 0)
    for writer, request, now in requests(run):
        write(bridge, writer, request, now)
        for variable in bridge.variables.values():
            if variable.lease is not None:
                assert variable.lease.number >= highest[variable.name]
                highest[variable.name] = variable.lease.number
