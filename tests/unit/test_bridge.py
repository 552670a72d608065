"""The Bridge's rules, write by write."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from pydantic import ValidationError

from iota.protocol.bridge import (
    BEST_HELDOUT,
    KNOWN_S,
    LR_FACTOR,
    MAX_NESTED,
    MAX_PAGE,
    MAX_VALUE_BYTES,
    PAUSED,
    Check,
    Delete,
    Lock,
    Op,
    Renew,
    Set,
    Unlock,
    ValueKind,
    VariableView,
    WriteRequest,
    WriteRule,
)
from iota.simulate.names import fake_hotkey
from orchestrator.bridge import Bridge, Conflict, Forbidden, Unfit, Writer, changes_after, page, write
from orchestrator.bridge.bounds import MAX_MEMBER_VARIABLES
from orchestrator.bridge.bridge import MAX_CHANGES, MAX_VOID
from orchestrator.bridge.writing import MAX_MEMBER_TTL_S

OPERATOR = Writer(fake_hotkey(8), operator=True, member=False)
ANN, BEN = (Writer(fake_hotkey(n), operator=False, member=True) for n in range(2))
STRANGER = Writer(fake_hotkey(9), operator=False, member=False)
_NUMBERS = itertools.count()


def request(*ops: Op) -> WriteRequest:
    return WriteRequest(request=f"{next(_NUMBERS):032x}", ops=ops)


def written(bridge: Bridge, writer: Writer, *ops: Op, now: float = 0.0) -> int:
    revision = write(bridge, writer, request(*ops), now)
    assert isinstance(revision, int), revision
    return revision


def refused(bridge: Bridge, writer: Writer, *ops: Op, now: float = 0.0) -> Any:
    before = bridge.revision
    found = write(bridge, writer, request(*ops), now)
    assert not isinstance(found, int)
    assert bridge.revision == before
    return found


def names(bridge: Bridge, prefix: str = "", *, trusted: bool = True) -> list[str]:
    return [v.name for v in page(bridge, prefix, trusted=trusted).variables]


def test_the_last_write_wins_and_versions_grow() -> None:
    bridge = Bridge()
    first = written(bridge, OPERATOR, Set(name="a", value=1))
    second = written(bridge, OPERATOR, Set(name="a", value=2))
    assert (first, second, bridge.variables["a"].version, bridge.value("a")) == (1, 2, 2, "2")


def test_a_cas_write_names_the_version_that_it_saw() -> None:
    bridge = Bridge()
    assert isinstance(refused(bridge, OPERATOR, Set(name="a", value=1, rule=WriteRule.CAS)), Unfit)
    made = written(bridge, OPERATOR, Set(name="a", value=1, rule=WriteRule.CAS, expected=0))
    assert isinstance(refused(bridge, OPERATOR, Set(name="a", value=2)), Unfit)
    written(bridge, OPERATOR, Set(name="a", value=2, expected=made))
    stale = refused(bridge, OPERATOR, Set(name="a", value=3, expected=made))
    assert isinstance(stale, Conflict)
    assert stale.current == bridge.variables["a"]


def test_a_variable_that_was_made_again_has_another_version() -> None:
    bridge = Bridge()
    made = written(bridge, OPERATOR, Set(name="a", value=1, rule=WriteRule.CAS, expected=0))
    written(bridge, OPERATOR, Delete(name="a", expected=made))
    written(bridge, OPERATOR, Set(name="a", value=1, rule=WriteRule.CAS, expected=0))
    assert isinstance(refused(bridge, OPERATOR, Set(name="a", value=2, expected=made)), Conflict)


def test_an_earlier_lease_writes_nothing_once_another_was_taken() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="rights/job", value={"write": "members"}))
    first = written(bridge, ANN, Lock(name="job", lease_s=10))
    written(bridge, ANN, Set(name="job", value="ann", lease=first))
    assert isinstance(refused(bridge, BEN, Lock(name="job", lease_s=10), now=9.0), Conflict)
    assert isinstance(refused(bridge, BEN, Set(name="job", value="ben", lease=first)), Conflict)
    second = written(bridge, BEN, Lock(name="job", lease_s=10), now=10.0)
    assert second > first
    late = refused(bridge, ANN, Set(name="job", value="ann again", lease=first), now=10.0)
    assert isinstance(late, Conflict)
    assert late.current is not None
    assert late.current.lease is not None
    assert late.current.lease.number == second
    assert bridge.value("job") == '"ann"'


def test_a_lease_is_renewed_and_given_back_by_its_holder_alone() -> None:
    bridge = Bridge()
    lease = written(bridge, OPERATOR, Lock(name="job", lease_s=10))
    written(bridge, OPERATOR, Renew(name="job", lease=lease, lease_s=10), now=9.0)
    bridge.expire(18.0)
    assert bridge.variables["job"].lease is not None
    assert isinstance(refused(bridge, OPERATOR, Unlock(name="job", lease=lease + 7), now=18.0), Conflict)
    written(bridge, OPERATOR, Unlock(name="job", lease=lease), now=18.0)
    assert isinstance(
        refused(bridge, OPERATOR, Renew(name="job", lease=lease, lease_s=1), now=18.0), Conflict
    )
    assert isinstance(refused(bridge, OPERATOR, Set(name="job", value=1), now=18.0), Conflict)


def test_a_write_of_several_variables_happens_as_a_whole_or_not() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="a", value=1), Set(name="b", value=1))
    refused(bridge, OPERATOR, Set(name="a", value=2), Check(name="b", expected=7))
    assert bridge.value("a") == "1"
    revision = written(
        bridge, OPERATOR, Set(name="a", value=2), Delete(name="b"), Check(name="c", expected=0)
    )
    assert (bridge.value("a"), bridge.value("b")) == ("2", None)
    assert {change.revision for change in list(bridge.changes)[-2:]} == {revision}


def test_a_repeated_request_changes_nothing_again() -> None:
    bridge, first = Bridge(), request(Set(name="a", value=1))
    assert write(bridge, OPERATOR, first, 0.0) == 1
    written(bridge, OPERATOR, Set(name="a", value=2))
    assert write(bridge, OPERATOR, first, 0.0) == 1
    assert bridge.value("a") == "2"
    assert isinstance(write(bridge, STRANGER, first, 0.0), Forbidden)  # another writer's request
    for number in range(1000):
        written(bridge, OPERATOR, Set(name="b", value=2), now=KNOWN_S * number / 1000)
    assert write(bridge, OPERATOR, first, KNOWN_S) == 1
    written(bridge, OPERATOR, Set(name="b", value=2), now=1.5 * KNOWN_S)
    assert len(bridge.done) == 501


def test_writes_that_are_known_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.bridge.bridge.MAX_DONE", 7)
    bridge = Bridge()
    for _ in range(20):
        written(bridge, OPERATOR, Set(name="b", value=2))
    assert len(bridge.done) == 7


def test_a_variable_keeps_its_type_and_its_rule() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="a", value=1))
    assert bridge.variables["a"].kind is ValueKind.INT
    for op in (
        Set(name="a", value="one"),
        Set(name="a", value=1.5),
        Set(name="a", value=True),
        Set(name="a", value=1, kind=ValueKind.FLOAT),
        Set(name="a", value=1, rule=WriteRule.CAS, expected=1),
        Set(name="a", value=1, lease=1),
        Lock(name="a", lease_s=1),
    ):
        assert isinstance(refused(bridge, OPERATOR, op), Unfit)
    written(bridge, OPERATOR, Set(name="b", value=1, kind=ValueKind.FLOAT))
    written(bridge, OPERATOR, Set(name="b", value=1.5))


@pytest.mark.parametrize("writer", [ANN, STRANGER], ids=["member", "stranger"])
@pytest.mark.parametrize(
    "name", ["run/paused", "rights/a", "node", "node/x/y", f"node/{BEN.hotkey}/a", "other/a"]
)
def test_only_the_operator_writes_where_no_rule_says_otherwise(writer: Writer, name: str) -> None:
    bridge = Bridge()
    assert isinstance(refused(bridge, writer, Set(name=name, value=1)), Forbidden)
    assert isinstance(refused(bridge, writer, Lock(name=name, lease_s=1)), Forbidden)


def test_a_member_writes_its_own_node_names_and_the_operator_may_clear_them_away() -> None:
    bridge = Bridge()
    written(bridge, ANN, Set(name=f"node/{ANN.hotkey}/address", value="x", rule=WriteRule.CAS, expected=0))
    assert isinstance(refused(bridge, BEN, Delete(name=f"node/{ANN.hotkey}/address", expected=1)), Forbidden)
    written(bridge, OPERATOR, Delete(name=f"node/{ANN.hotkey}/address"))
    assert not bridge.variables
    assert not bridge.owned
    assert bridge.members_size == 0


def test_the_longest_prefix_with_a_rule_decides() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="rights/a", value={"write": "members", "read": "anyone"}))
    written(bridge, OPERATOR, Set(name="rights/a/b", value={"write": [BEN.hotkey]}))
    written(bridge, ANN, Set(name="a/x", value=1))
    assert isinstance(refused(bridge, ANN, Set(name="a/b/x", value=1)), Forbidden)
    written(bridge, BEN, Set(name="a/b/x", value=1))
    assert names(bridge, "a", trusted=False) == ["a/x"]
    written(bridge, OPERATOR, Delete(name="rights/a/b"))
    written(bridge, ANN, Set(name="a/b/x", value=2))
    assert isinstance(refused(bridge, OPERATOR, Set(name="rights/a", value={"write": "all"})), Unfit)
    assert isinstance(refused(bridge, OPERATOR, Set(name="rights/run/a", value={})), Unfit)
    assert isinstance(refused(bridge, OPERATOR, Set(name="rights", value={})), Unfit)


def test_by_the_rule_owner_who_made_a_variable_writes_it() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="rights/board", value={"write": "owner"}))
    written(bridge, ANN, Set(name="board/1", value="ann"))
    assert isinstance(refused(bridge, BEN, Set(name="board/1", value="ben")), Forbidden)
    written(bridge, BEN, Set(name="board/2", value="ben"))


def test_a_members_variables_are_bounded_in_number_size_and_time() -> None:
    bridge, own = Bridge(), f"node/{ANN.hotkey}"
    assert isinstance(refused(bridge, ANN, Set(name=f"{own}/a", value=1, ttl_s=MAX_MEMBER_TTL_S + 1)), Unfit)
    for number in range(MAX_MEMBER_VARIABLES):
        written(bridge, ANN, Set(name=f"{own}/{number}", value=1))
    assert isinstance(refused(bridge, ANN, Set(name=f"{own}/more", value=1)), Unfit)
    written(bridge, ANN, Delete(name=f"{own}/0"), Set(name=f"{own}/more", value=1))
    big = "x" * (MAX_VALUE_BYTES - 2)
    swap: list[Op] = [Delete(name=f"{own}/{number}") for number in (1, 2)]
    swap += [Set(name=f"{own}/big{number}", value=big) for number in (1, 2)]
    assert isinstance(refused(bridge, ANN, *swap), Unfit)
    bridge.expire(MAX_MEMBER_TTL_S)
    assert not bridge.variables


def test_a_variable_lives_as_long_as_its_last_write_says() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="a", value=1, ttl_s=10))
    written(bridge, OPERATOR, Set(name="a", value=2, ttl_s=10), now=5.0)
    assert bridge.next_due() == 10.0
    bridge.expire(14.0)
    assert bridge.value("a") == "2"
    bridge.expire(15.0)
    assert bridge.value("a") is None
    assert bridge.changes[-1].kind == "expired"
    written(bridge, OPERATOR, Set(name="a", value=1, ttl_s=10), now=20.0)
    written(bridge, OPERATOR, Set(name="a", value=1), now=20.0)
    bridge.expire(1e9)
    assert bridge.value("a") == "1"


def test_times_that_have_become_void_are_dropped() -> None:
    bridge = Bridge()
    for number in range(3 * MAX_VOID):
        written(bridge, OPERATOR, Set(name="a", value=1, ttl_s=10 + number))
    assert len(bridge.due) <= MAX_VOID + 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/../b",
        ".",
        "..",
        "a/.b",
        "a b",
        "a\n",
        "ä",
        "a" * 65,
        "/".join("a" * 9),
    ],
    ids=range(14),
)
def test_other_names_than_paths_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Set(name=name, value=1)


@pytest.mark.parametrize(
    "value",
    ["x" * (MAX_VALUE_BYTES - 1), float("nan"), float("inf"), 2**53, "\ud800", {"a": "x" * MAX_VALUE_BYTES}],
    ids=["long", "nan", "inf", "large", "surrogate", "object"],
)
def test_values_beyond_the_bounds_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        Set(name="a", value=value)


def test_values_of_bounded_depth_alone_are_taken() -> None:
    deep: Any = 1
    for _ in range(MAX_NESTED):
        deep = [deep]
    Set(name="a", value=deep)
    with pytest.raises(ValidationError):
        Set(name="a", value=[deep])
    with pytest.raises(ValidationError):
        Set.model_validate_json('{"op":"set","name":"a","value":' + "[" * 5000 + "]" * 5000 + "}")


def test_a_write_that_only_checks_or_names_a_variable_twice_is_malformed() -> None:
    with pytest.raises(ValidationError):
        request(Check(name="a", expected=0))
    with pytest.raises(ValidationError):
        request(Set(name="a", value=1), Check(name="a", expected=0))


def test_a_watcher_that_is_too_far_behind_gets_a_snapshot_that_says_so() -> None:
    bridge = Bridge()
    for number in range(MAX_CHANGES + 10):
        written(bridge, OPERATOR, Set(name="a", value=number))
    found = changes_after(bridge, "", 9, trusted=True)
    assert found.snapshot
    assert [change.name for change in found.changes] == ["a"]
    assert not changes_after(bridge, "", 10, trusted=True).snapshot
    assert changes_after(bridge, "", bridge.revision + 1, trusted=True).snapshot
    assert changes_after(bridge, "", None, trusted=True).snapshot


def test_a_watcher_gets_a_writes_changes_together() -> None:
    bridge = Bridge()
    for number in range(MAX_PAGE - 1):
        written(bridge, OPERATOR, Set(name="a", value=number))
    written(bridge, OPERATOR, Set(name="a", value=0), Set(name="b", value=0), Set(name="c", value=0))
    written(bridge, OPERATOR, Set(name="a", value=1))
    first = changes_after(bridge, "", 0, trusted=True)
    assert (len(first.changes), first.more, first.revision) == (MAX_PAGE + 2, True, MAX_PAGE)
    rest = changes_after(bridge, "", first.revision, trusted=True)
    assert [change.revision for change in rest.changes] == [MAX_PAGE + 1]


def test_a_prefix_is_whole_parts_of_names() -> None:
    bridge = Bridge()
    for name in ("run/a", "run-b", "runs/a", "run", "run/a/b", "run.c"):
        written(bridge, OPERATOR, Set(name=name, value=1))
    assert names(bridge, "run") == ["run", "run/a", "run/a/b"]
    assert names(bridge, "run/a") == ["run/a", "run/a/b"]
    assert names(bridge) == sorted(bridge.variables)
    first = page(bridge, "run", after="run/a", trusted=True)
    assert [v.name for v in first.variables] == ["run/a/b"]


def test_a_listing_has_pages() -> None:
    bridge = Bridge()
    for number in range(MAX_PAGE + 3):
        written(bridge, OPERATOR, Set(name=f"a/{number:04}", value=1))
    first = page(bridge, "a", trusted=True)
    rest = page(bridge, "a", first.variables[-1].name, trusted=True)
    assert (len(first.variables), first.more, len(rest.variables), rest.more) == (MAX_PAGE, True, 3, False)


def test_readers_get_a_variable_in_the_documented_form() -> None:
    bridge = Bridge()
    written(bridge, OPERATOR, Set(name="a", value={"b": ["é", 1.5]}, ttl_s=5))
    written(bridge, OPERATOR, Lock(name="l", lease_s=5))
    for change in bridge.changes:
        assert change.variable is not None
        view = VariableView.model_validate_json(change.variable.json)
        assert view.value == json.loads(change.variable.text)


def test_the_runs_own_variables_have_their_types_and_bounds() -> None:
    bridge = Bridge()
    for op in (
        Set(name=PAUSED, value=1),
        Set(name=PAUSED, value=True, rule=WriteRule.LOCK),
        Set(name=LR_FACTOR, value="1"),
        Set(name=LR_FACTOR, value=1.01),
        Set(name=LR_FACTOR, value=-0.1),
        Set(name=LR_FACTOR, value=True),
    ):
        assert isinstance(refused(bridge, OPERATOR, op), Unfit)
    assert isinstance(refused(bridge, OPERATOR, Set(name=BEST_HELDOUT, value=1)), Forbidden)
    written(bridge, OPERATOR, Set(name=PAUSED, value=True), Set(name=LR_FACTOR, value=1))
    written(bridge, OPERATOR, Set(name=LR_FACTOR, value=0.5))
