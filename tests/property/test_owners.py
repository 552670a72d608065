"""Joins, revocations and restarts in any order: every worker has one owner, and what is revoked stays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.identity.certificates import revoke
from iota.identity.keys import Hotkey
from iota.protocol.messages import ExchangeRequest, JoinRequest, Method, ObjectRequest, Ready
from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Coordinator, Entry, Joined, Left, Lost, Revoked
from orchestrator.intake import Intake
from tests.support.coordinator_indexes import check_indexes
from tests.support.coordinators import LIMITS
from tests.support.orchestrators import join_request, make_spec
from tests.support.workers import OWNER, RIVAL, certificate, key

SPEC = make_spec()
PLACES = 2
OWNERS = (OWNER, RIVAL)
WORKERS = tuple(key(number) for number in range(4))
KEYS = (*OWNERS, *WORKERS)
CERTIFICATES = {
    (worker.ss58, owner.ss58): certificate(SPEC.id, worker, owner)
    for worker in KEYS
    for owner in OWNERS
    if worker is not owner
}
REVOCATIONS = {
    (owner.ss58, worker.ss58): revoke(owner, worker.ss58, SPEC.id) for owner in OWNERS for worker in KEYS
}


@dataclass(frozen=True)
class Act:
    """What somebody tries."""

    name: str
    key: Hotkey
    owner: Hotkey | None


ACTS = st.builds(
    Act,
    st.sampled_from(["join", "revoke", "leave", "lose", "say"]),
    st.sampled_from(KEYS),
    st.sampled_from([*OWNERS, None]),
)


class Door:
    """An intake and its coordinator; each entry is kept as a journal would."""

    def __init__(self) -> None:
        self.coordinator = Coordinator(SPEC, LIMITS)
        self.intake = Intake(self.coordinator, places=PLACES)
        self.journal: list[Entry] = []
        self.refused: list[Problem] = []

    def do(self, act: Act) -> Entry | None:
        try:
            entry = self._entry(act)
        except Problem as problem:
            self.refused.append(problem)
            return None
        if entry is not None:
            self.journal.append(entry)
            self.coordinator.apply(entry)
        return entry

    def _entry(self, act: Act) -> Entry | None:
        hotkey = act.key.ss58
        match act.name:
            case "join":
                given = None if act.owner is None else CERTIFICATES.get((hotkey, act.owner.ss58))
                request: JoinRequest = join_request(certificate=given)
                return self.intake.join(hotkey, request, 1.0)
            case "revoke":
                owner = (act.owner or OWNER).ss58
                return self.intake.revoke(owner, REVOCATIONS[owner, hotkey], 1.0)
            case "leave":
                return self.intake.leave(hotkey, 1.0)
            case "lose":
                return Lost(at=1.0, hotkey=hotkey)
            case _:
                said = Ready(epoch=0, digest="ab" * 32)
                return self.intake.exchange(hotkey, ExchangeRequest(cursor=0, reports=(said,)), 1.0)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTS, max_size=40))
def test_a_key_has_one_owner_and_a_revoked_one_never_comes_back(acts: list[Act]) -> None:
    door = Door()
    owners: dict[str, str] = {}
    revoked: set[tuple[str, str]] = set()
    for act in acts:
        entry = door.do(act)
        if isinstance(entry, Revoked):
            assert (entry.revocation.owner, entry.revocation.worker) not in revoked
            revoked.add((entry.revocation.owner, entry.revocation.worker))
        run = door.coordinator.state
        for hotkey, member in run.members.items():
            assert owners.setdefault(hotkey, member.owner) == member.owner
            out = (member.owner, hotkey) in revoked
            assert not (out and (member.live or (isinstance(entry, Joined) and entry.hotkey == hotkey)))
        for owner in OWNERS:
            mine = [h for h, m in run.members.items() if m.owner == owner.ss58 != h]
            assert run.owners.workers.get(owner.ss58, []) == mine
            assert len(run.owners.places(owner.ss58)) <= PLACES
            assert not run.owners.is_revoked(owner.ss58, owner.ss58)
        assert not run.incidents.internal
        check_indexes(run)
    again = Coordinator(SPEC, LIMITS)
    for entry in door.journal:
        again.apply(entry)
    assert again.state == door.coordinator.state


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTS, max_size=20))
def test_a_second_revocation_of_the_same_worker_gives_no_entry(acts: list[Act]) -> None:
    door = Door()
    for act in acts:
        door.do(act)
    for (owner, worker), revocation in REVOCATIONS.items():
        if door.coordinator.state.owners.is_revoked(owner, worker):
            assert door.intake.revoke(owner, revocation, 1.0) is None


def test_nothing_that_a_revoked_worker_asks_gives_an_entry() -> None:
    door = Door()
    worker = WORKERS[0]
    door.do(Act("join", worker, OWNER))
    door.do(Act("revoke", worker, OWNER))
    asked: list[Callable[[], object]] = [
        lambda: door.intake.exchange(worker.ss58, ExchangeRequest(cursor=0), 1.0),
        lambda: door.intake.returned(worker.ss58, 1.0),
        lambda: door.intake.leave(worker.ss58, 1.0),
        lambda: door.intake.access(worker.ss58, ObjectRequest(method=Method.GET, key=f"{SPEC.id}/x")),
        lambda: door.intake.join(worker.ss58, join_request(certificate=certificate(SPEC.id, worker)), 1.0),
    ]
    for ask in asked:
        with pytest.raises(Problem, match="has revoked its worker") as caught:
            ask()
        assert caught.value.type is ProblemType.NOT_A_MEMBER


def test_the_acts_of_the_property_reach_every_refusal() -> None:
    door = Door()
    first, second, third = WORKERS[:3]
    for act in (
        Act("join", first, OWNER),
        Act("join", first, RIVAL),
        Act("join", second, OWNER),
        Act("join", third, OWNER),
        Act("revoke", first, RIVAL),
        Act("revoke", first, OWNER),
        Act("join", first, OWNER),
        Act("join", third, OWNER),
        Act("say", second, None),
        Act("leave", second, None),
    ):
        door.do(act)
    kinds = [problem.type for problem in door.refused]
    assert kinds == [
        ProblemType.BAD_CERTIFICATE,
        ProblemType.REFUSED,
        ProblemType.FORBIDDEN,
        ProblemType.NOT_A_MEMBER,
    ]
    assert [type(entry) for entry in door.journal[2:4]] == [Revoked, Joined]
    assert isinstance(door.journal[-1], Left)
