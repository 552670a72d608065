"""Signed HTTP requests and answers: what is taken, and every way to be refused."""

from collections.abc import Callable

import pytest
from multidict import CIMultiDict

from iota.identity.http_auth import (
    RequestVerifier,
    sign_request,
    sign_response,
    verify_response,
)
from iota.identity.keys import Hotkey
from iota.protocol.problems import Problem, ProblemType

SENDER = Hotkey.from_seed(b"\x01" * 32)
SERVER = Hotkey.from_seed(b"\x02" * 32)
STRANGER = Hotkey.from_seed(b"\x03" * 32)
SECOND = 1_000_000_000
METHOD, TARGET, BODY = "POST", "/v1/join?a=1&b=%20", b'{"role":"miner"}'


class Clock:
    """Unix time in nanoseconds that moves when told to."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1_800_000_000 * SECOND)
    monkeypatch.setattr("iota.identity.http_auth.time.time_ns", clock)
    monkeypatch.setattr("iota.identity.http_auth._last_nonce", 0)
    return clock


@pytest.fixture
def verifier(clock: Clock) -> RequestVerifier:
    verifier = RequestVerifier(SERVER.ss58, clock)
    clock.advance(100)
    return verifier


def signed(receiver: str = SERVER.ss58, sender: Hotkey = SENDER) -> dict[str, str]:
    return sign_request(sender, METHOD, TARGET, BODY, receiver)


def refusal(action: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as caught:
        action()
    return caught.value


def test_a_signed_request_names_its_sender(verifier: RequestVerifier, clock: Clock) -> None:
    caller = verifier.verify(signed(), BODY, METHOD, TARGET)
    assert caller.hotkey == SENDER.ss58
    assert caller.nonce == clock.now_ns


def test_header_names_are_taken_in_any_case(verifier: RequestVerifier) -> None:
    headers = CIMultiDict({name.lower(): value for name, value in signed().items()})
    assert verifier.verify(headers, BODY, METHOD, TARGET).hotkey == SENDER.ss58


def test_an_unsigned_request_is_refused(verifier: RequestVerifier) -> None:
    problem = refusal(lambda: verifier.verify({}, BODY, METHOD, TARGET))
    assert (problem.type, problem.status) == (ProblemType.UNSIGNED, 401)


@pytest.mark.parametrize("name", ["Version", "Hotkey", "Nonce", "Signature"])
def test_each_header_is_needed_and_named(verifier: RequestVerifier, name: str) -> None:
    headers = signed()
    del headers[f"X-Bittensor-{name}"]
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.UNSIGNED
    assert name in problem.detail


@pytest.mark.parametrize("empty", ["", "0x"])
def test_an_empty_signature_is_refused(verifier: RequestVerifier, empty: str) -> None:
    headers = signed() | {"X-Bittensor-Signature": empty}
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.MALFORMED_AUTH


@pytest.mark.parametrize(
    "change",
    [
        {"X-Bittensor-Version": "2"},
        {"X-Bittensor-Nonce": "soon"},
        {"X-Bittensor-Nonce": "-1"},
        {"X-Bittensor-Nonce": "1_8"},
        {"X-Bittensor-Nonce": "9" * 5000},
        {"X-Bittensor-Signature": "zz"},
        {"X-Bittensor-Signature": "0x00"},
        {"X-Bittensor-Hotkey": "5"},
        {"X-Bittensor-Crypto": "ed25519"},
        {"X-Bittensor-Crypto": "1"},
        {"x-bittensor-hotkey": STRANGER.ss58},
    ],
)
def test_malformed_headers_are_refused(verifier: RequestVerifier, change: dict[str, str]) -> None:
    problem = refusal(lambda: verifier.verify(signed() | change, BODY, METHOD, TARGET))
    assert (problem.type, problem.status) == (ProblemType.MALFORMED_AUTH, 400)


def test_a_replayed_request_is_refused(verifier: RequestVerifier) -> None:
    headers = signed()
    verifier.verify(headers, BODY, METHOD, TARGET)
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.REPLAYED


def test_a_replay_is_refused_at_every_moment_until_it_is_stale(
    verifier: RequestVerifier, clock: Clock
) -> None:
    headers = signed()
    verifier.verify(headers, BODY, METHOD, TARGET)
    for _ in range(15):
        clock.advance(1)
        problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
        assert problem.type in (ProblemType.REPLAYED, ProblemType.STALE)


def test_a_request_to_another_server_is_refused(verifier: RequestVerifier) -> None:
    headers = signed(receiver=STRANGER.ss58)
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert (problem.type, problem.status) == (ProblemType.WRONG_RECEIVER, 403)
    headers["X-Bittensor-Receiver"] = SERVER.ss58
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.BAD_SIGNATURE


def test_a_request_to_nobody_in_particular_is_refused(verifier: RequestVerifier) -> None:
    headers = signed()
    del headers["X-Bittensor-Receiver"]
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.WRONG_RECEIVER


@pytest.mark.parametrize(
    ("body", "method", "target"),
    [
        (BODY + b" ", METHOD, TARGET),
        (b"", METHOD, TARGET),
        (BODY, "PUT", TARGET),
        (BODY, METHOD, "/v1/leave?a=1&b=%20"),
        (BODY, METHOD, "/v1/join?a=2&b=%20"),
        (BODY, METHOD, "/v1/join?a=1&b=+"),
    ],
)
def test_body_method_and_path_are_bound(
    verifier: RequestVerifier, body: bytes, method: str, target: str
) -> None:
    headers = signed()
    problem = refusal(lambda: verifier.verify(headers, body, method, target))
    assert (problem.type, problem.status) == (ProblemType.BAD_SIGNATURE, 401)


def test_anothers_name_on_ones_own_signature_is_refused(verifier: RequestVerifier) -> None:
    headers = signed(sender=STRANGER) | {"X-Bittensor-Hotkey": SENDER.ss58}
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.BAD_SIGNATURE


def test_a_forgery_does_not_use_up_the_senders_nonce(verifier: RequestVerifier) -> None:
    headers = signed()
    refusal(lambda: verifier.verify(headers, b"forged", METHOD, TARGET))
    assert verifier.verify(headers, BODY, METHOD, TARGET).hotkey == SENDER.ss58


def test_a_late_request_is_told_its_clock_offset(verifier: RequestVerifier, clock: Clock) -> None:
    headers = signed()
    clock.advance(11)
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.STALE
    assert "-11.0 s" in problem.detail


def test_a_request_from_the_future_is_told_its_clock_offset(verifier: RequestVerifier, clock: Clock) -> None:
    clock.advance(3)
    headers = signed()
    clock.advance(-3)
    problem = refusal(lambda: verifier.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.STALE
    assert "+3.0 s" in problem.detail


@pytest.mark.parametrize("offset", [1.9, -9.9])
def test_small_clock_offsets_are_taken(verifier: RequestVerifier, clock: Clock, offset: float) -> None:
    clock.advance(offset)
    headers = signed()
    clock.advance(-offset)
    assert verifier.verify(headers, BODY, METHOD, TARGET).hotkey == SENDER.ss58


def test_a_request_from_before_the_servers_start_is_refused(verifier: RequestVerifier, clock: Clock) -> None:
    headers = signed()
    verifier.verify(headers, BODY, METHOD, TARGET)
    clock.advance(1)
    restarted = RequestVerifier(SERVER.ss58, clock)
    problem = refusal(lambda: restarted.verify(headers, BODY, METHOD, TARGET))
    assert (problem.type, problem.status) == (ProblemType.RESTARTED, 503)
    assert restarted.verify(signed(), BODY, METHOD, TARGET).hotkey == SENDER.ss58


def test_a_fence_refuses_what_a_fast_clock_got_accepted_before_a_restart(
    verifier: RequestVerifier, clock: Clock
) -> None:
    clock.advance(1.5)
    headers = signed()
    clock.advance(-1.5)
    verifier.verify(headers, BODY, METHOD, TARGET)
    restarted = RequestVerifier(SERVER.ss58, clock, fence_ns=verifier.highest_nonce)
    problem = refusal(lambda: restarted.verify(headers, BODY, METHOD, TARGET))
    assert problem.type is ProblemType.RESTARTED


def test_two_requests_in_one_tick_of_the_clock_are_both_taken(verifier: RequestVerifier) -> None:
    first, second = signed(), signed()
    assert (
        verifier.verify(first, BODY, METHOD, TARGET).nonce
        < verifier.verify(second, BODY, METHOD, TARGET).nonce
    )


def test_an_answer_is_bound_to_nonce_status_body_request_and_server() -> None:
    header = sign_response(SERVER, 7, 200, b"yes", request_signature="0xaa")
    assert verify_response(SERVER.ss58, 7, 200, b"yes", header, request_signature="0xaa")
    assert not verify_response(SERVER.ss58, 8, 200, b"yes", header, request_signature="0xaa")
    assert not verify_response(SERVER.ss58, 7, 409, b"yes", header, request_signature="0xaa")
    assert not verify_response(SERVER.ss58, 7, 200, b"no", header, request_signature="0xaa")
    assert not verify_response(SERVER.ss58, 7, 200, b"yes", header, request_signature="0xbb")
    assert not verify_response(STRANGER.ss58, 7, 200, b"yes", header, request_signature="0xaa")


@pytest.mark.parametrize("header", [None, "", "00", "zz" * 64, "00" * 64])
def test_a_missing_or_malformed_answer_signature_is_false(header: str | None) -> None:
    assert verify_response(SERVER.ss58, 7, 200, b"yes", header, request_signature="0xaa") is False
