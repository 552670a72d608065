"""Contacts of members: each publishes its own, the newest counts, and nobody's harms another."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from iota.identity.contacts import contact_fault, sign_contact
from iota.identity.keys import Hotkey
from iota.protocol.contacts import (
    CONTACT_S,
    MAX_CONTACTS,
    Contact,
    ContactsReply,
    ContactsRequest,
    IrohContact,
    SignedContact,
)
from iota.protocol.echo import MAX_ECHO
from iota.protocol.problems import Problem, ProblemType
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator import Coordinator, Joined, Left
from orchestrator.http.contacts import Contacts
from orchestrator.http.middleware import Call
from orchestrator.intake import Intake
from tests.support.orchestrators import Running, join_request, make_spec, node, orchestrator, raw, signed

SPEC = make_spec()
A, B, STRANGER = (Hotkey.from_seed(seed * 32) for seed in (b"a", b"b", b"s"))


class Registry:
    """The contacts of a run with two members, at a time that the test sets."""

    def __init__(self) -> None:
        self.now, self.coordinator = 1000.0, Coordinator(SPEC)
        for member in (A, B):
            self.coordinator.apply(Joined(at=1.0, hotkey=member.ss58, request=join_request()))
        self.contacts = Contacts(self.coordinator, Intake(self.coordinator), clock=lambda: self.now)

    def made(self, key: Hotkey = A, **fields: Any) -> SignedContact:
        contact: dict[str, Any] = {
            "run": SPEC.id,
            "hotkey": key.ss58,
            "version": 1,
            "expires": self.now + 300,
            "direct": ("192.0.2.7:9000",),
            **fields,
        }
        return sign_contact(Contact(**contact), key)

    async def ask(
        self, caller: Hotkey, contact: SignedContact | None = None, *wanted: str
    ) -> tuple[SignedContact, ...]:
        body = ContactsRequest(contact=contact, wanted=wanted).model_dump_json().encode()
        return await self.post(caller, body)

    async def post(self, caller: Hotkey, body: bytes) -> tuple[SignedContact, ...]:
        answer = await self.contacts.contacts(Call(caller.ss58, body, None))  # type: ignore[arg-type]
        return ContactsReply.model_validate_json(answer).contacts

    async def refusal(self, caller: Hotkey, contact: SignedContact) -> ProblemType:
        with pytest.raises(Problem) as caught:
            await self.ask(caller, contact)
        return caught.value.type


@pytest.fixture
def registry() -> Registry:
    return Registry()


async def test_what_a_member_publishes_others_get_as_it_signed_it(registry: Registry) -> None:
    iroh = IrohContact(key="ab" * 32, relay="https://relay.example", addresses=("[2001:db8::7]:4433",))
    mine = registry.made(iroh=iroh)
    assert await registry.ask(A, mine) == ()
    [found] = await registry.ask(B, None, A.ss58, A.ss58, B.ss58, fake_hotkey(9))
    assert found == mine
    assert contact_fault(found, SPEC.id, registry.now) is None


async def test_the_newest_contact_of_a_member_stays_and_an_older_one_changes_nothing(
    registry: Registry,
) -> None:
    newest = registry.made(version=5)
    for contact in (registry.made(version=4), newest, registry.made(version=3), registry.made(version=5)):
        await registry.ask(A, contact)
    assert await registry.ask(B, None, A.ss58) == (newest,)


async def test_a_contact_is_not_given_once_it_has_expired_and_any_version_may_follow(
    registry: Registry,
) -> None:
    await registry.ask(A, registry.made(version=9))
    registry.now += 301
    assert await registry.ask(B, None, A.ss58) == ()
    await registry.ask(A, registry.made(version=2))
    assert len(await registry.ask(B, None, A.ss58)) == 1


async def test_a_contact_that_nobody_could_use_is_refused_and_the_one_before_stays(
    registry: Registry,
) -> None:
    good = registry.made()
    await registry.ask(A, good)
    newer = registry.made(version=2)
    forged = newer.model_copy(update={"signature": "00" * 64})
    changed = SignedContact(contact=registry.made(version=3, direct=()).contact, signature=newer.signature)
    other_run = registry.made(version=2, run="e" * 64)
    expired = registry.made(version=2, expires=registry.now - 1)
    eternal = registry.made(version=2, expires=registry.now + 10 * CONTACT_S)
    for bad in (forged, changed, other_run, expired, eternal):
        assert await registry.refusal(A, bad) is ProblemType.REFUSED
    assert await registry.refusal(B, registry.made(version=2)) is ProblemType.FORBIDDEN
    assert await registry.ask(B, None, A.ss58) == (good,)


async def test_a_malformed_contact_is_refused_and_harms_nobody(registry: Registry) -> None:
    await registry.ask(A, registry.made())
    request = json.loads(ContactsRequest(contact=registry.made(B)).model_dump_json())
    for field, value in {
        "direct": ["no address"],
        "version": -1,
        "expires": "soon",
        "iroh": {"key": "short"},
        "more": 1,
    }.items():
        body = json.loads(json.dumps(request))
        body["contact"]["contact"][field] = value
        with pytest.raises(Problem) as caught:
            await registry.post(B, json.dumps(body).encode())
        assert caught.value.type is ProblemType.MALFORMED_BODY
    assert len(await registry.ask(B, None, A.ss58, B.ss58)) == 1


async def test_a_call_wants_no_more_than_its_bound(registry: Registry) -> None:
    everyone = [A.ss58] * MAX_CONTACTS
    await registry.ask(A, registry.made())
    assert len(await registry.post(B, json.dumps({"wanted": everyone}).encode())) == 1
    with pytest.raises(Problem) as caught:
        await registry.post(B, json.dumps({"wanted": [*everyone, A.ss58]}).encode())
    assert caught.value.type is ProblemType.MALFORMED_BODY


async def test_only_current_members_are_answered_and_given(registry: Registry) -> None:
    await registry.ask(A, registry.made())
    assert await registry.refusal(STRANGER, registry.made(STRANGER)) is ProblemType.NOT_JOINED
    registry.coordinator.apply(Left(at=2.0, hotkey=A.ss58))
    assert await registry.ask(B, None, A.ss58) == ()
    assert await registry.refusal(A, registry.made(version=2)) is ProblemType.NOT_JOINED


async def test_what_has_expired_is_forgotten(registry: Registry) -> None:
    await registry.ask(A, registry.made())
    registry.now += 2 * CONTACT_S
    await registry.ask(B, registry.made(B))
    assert set(registry.contacts._known) == {B.ss58}


# ---- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal") as running:
        yield running


async def test_members_find_each_other_over_http(running: Running, registry: Registry) -> None:
    registry.now = time.time()
    async with node(running, b"a") as a, node(running, b"b") as b:
        mine = registry.made()
        assert await a.client.contacts(mine, []) == ()
        assert await b.client.contacts(None, [A.ss58, STRANGER.ss58]) == (mine,)
    body = b'{"wanted": []}'
    status, problem, _ = await raw(
        running, "/v1/contacts", body, headers=signed(STRANGER, "/v1/contacts", body)
    )
    assert (status, problem["type"]) == (409, "urn:iota:problem:not-joined")


async def test_calls_for_contacts_are_bounded_in_number(registry: Registry) -> None:
    """256 contacts of 2.5 kB in each of 200 answers a second would take the orchestrator's line."""
    for _ in range(64):
        await registry.ask(A)
    with pytest.raises(Problem) as caught:
        await registry.ask(A)
    assert caught.value.type is ProblemType.RATE_LIMITED
    await registry.ask(B)


async def test_many_contacts_cost_as_much_as_many_calls(registry: Registry) -> None:
    """Answers that nobody reads lie in the orchestrator's memory, 640 kB each."""
    wanted = [STRANGER.ss58] * MAX_CONTACTS
    for _ in range(3):
        await registry.ask(A, None, *wanted)
    with pytest.raises(Problem) as caught:
        await registry.ask(A, None, *wanted)
    assert caught.value.type is ProblemType.RATE_LIMITED


async def test_an_echo_has_the_callers_address_and_as_many_bytes_as_it_asked_for(running: Running) -> None:
    async with running.client(STRANGER) as client:  # admitted, and not joined
        for up, down in ((0, 0), (MAX_ECHO, 0), (0, MAX_ECHO), (3, 5)):
            reply = await client.echo(up, down)
            assert (reply.address, len(reply.filler)) == ("127.0.0.1", down)


async def test_an_echo_is_bounded_in_bytes_and_number(running: Running) -> None:
    path = "/v1/echo"
    for body, refusal in (
        (b'{"answer": 1048577}', 400),
        (b'{"filler": "' + b"0" * (MAX_ECHO + 2000) + b'"}', 413),
        (b'{"filler": "secret"}', 400),
    ):
        status, _, _ = await raw(running, path, body, headers=signed(A, path, body))
        assert status == refusal
    statuses = []
    for _ in range(40):
        statuses.append((await raw(running, path, b"{}", headers=signed(B, path, b"{}")))[0])
    assert statuses.count(200) == 32
    assert statuses[-1] == 429
