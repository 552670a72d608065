"""What every HTTP client of this project refuses, checked on each against a server that misbehaves."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from iota.chain.errors import ChainError
from iota.chain.ledger.client import LedgerChain
from iota.cli import orchestrator_calls
from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable, UntrustedAnswer
from iota.console.command import WorkFailed
from iota.doctor import gathering
from iota.http import AnswerRefused, HttpClient, NoAnswer, proxy_for
from iota.http.client import socket_to
from iota.identity.keys import Hotkey
from iota.store import EmbeddedStore, ObjectClient, StoreError
from iota.store.s3 import S3Store
from iota.swarm.watching import read_status
from tests.support import hostile_http as attack
from tests.support.certificates import self_signed
from tests.support.hostile_http import Answer, Hostile, hostile

SHORT_S = 0.5
FAILURES = (
    StoreError,
    ChainError,
    OrchestratorUnreachable,
    UntrustedAnswer,
    NoAnswer,
    AnswerRefused,
    ValueError,
    WorkFailed,
)
Client = Callable[[str], Awaitable[object]]


async def transfer(url: str) -> object:
    async with ObjectClient() as client:
        return await client.get(f"{url}/k", 1 << 20, SHORT_S)


async def embedded_store(url: str) -> object:
    store = EmbeddedStore(url, b"s" * 32)
    try:
        return await store.get("a/b")
    finally:
        await store.close()


async def s3(url: str) -> object:
    store = S3Store("bucket", url, "us-east-1")
    try:
        return await store.get("a/b")
    finally:
        await store.close()


async def s3_listing(url: str) -> object:
    store = S3Store("bucket", url, "us-east-1")
    try:
        return await store.list("a")
    finally:
        await store.close()


async def orchestrator(url: str) -> object:
    async with OrchestratorClient(Hotkey.generate(), url, retry_for_s=0.0) as client:
        return await client.run()


async def ledger(url: str) -> object:
    async with LedgerChain(url, timeout_s=SHORT_S) as chain:
        return await chain.head()


async def doctor(url: str) -> object:
    end = asyncio.get_running_loop().time() + SHORT_S
    found = await gathering.answer_to(gathering._orchestrator(url, None, time.time), end)
    if isinstance(found, gathering.Unknown):
        raise ValueError(found.reason)
    return found


async def swarm_screen(url: str) -> object:
    async with HttpClient() as http:
        found = await read_status(http, url)
    if found is None:
        raise ValueError("no status")
    return found


async def status_command(url: str) -> object:
    return await asyncio.to_thread(orchestrator_calls.get, url, "/v1/status")


async def live_status(url: str) -> object:
    return await asyncio.to_thread(lambda: list(orchestrator_calls.statuses(url)))


CLIENTS = [
    transfer, embedded_store, s3, orchestrator, ledger, doctor, swarm_screen, status_command, live_status,
]  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bounds in place of those of a real run."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("iota.client.orchestrator.CALL_S", SHORT_S)
    monkeypatch.setattr("iota.client.orchestrator._MAX_BYTES", 1 << 20)
    monkeypatch.setattr("iota.store.transfer.MAX_TRIES", 1)
    monkeypatch.setattr("iota.store.embedded.GET_S", SHORT_S)
    monkeypatch.setattr("iota.store.embedded.MAX_OBJECT", 1 << 20)
    monkeypatch.setattr("iota.store.s3.GET_S", SHORT_S)
    monkeypatch.setattr("iota.store.s3.MAX_OBJECT", 1 << 20)
    monkeypatch.setattr("iota.chain.ledger.client._MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr("iota.swarm.watching.ANSWER_S", SHORT_S)
    monkeypatch.setattr("iota.swarm.watching.MAX_STATUS_BYTES", 1 << 20)
    monkeypatch.setattr("iota.cli.orchestrator_calls.ANSWER_S", SHORT_S)
    monkeypatch.setattr("iota.cli.orchestrator_calls.MAX_STATUS_BYTES", 1 << 20)
    monkeypatch.setattr("iota.http.client.READ_S", SHORT_S)


async def refused(client: Client, answer: Answer, within_s: float = 10.0) -> Hostile:
    """The client gives up with an error of its own, in time."""
    async with hostile(answer) as server, asyncio.timeout(within_s):
        while not server.requests:  # again, where a busy machine let the time pass before the request
            with pytest.raises(FAILURES):
                await client(server.url)
            await asyncio.sleep(0)
    return server


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
@pytest.mark.parametrize(
    "answer",
    [attack.bomb, attack.endless_body, attack.endless_headers, attack.endless_header],
    ids=lambda answer: answer.__name__,
)
async def test_an_answer_without_bounds_is_refused_in_bounded_memory(client: Client, answer: Answer) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await refused(client, answer)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < attack.FLOOD >> 11, "half of the flood"


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="the system offers no choice")
def test_connections_to_the_internet_have_bbr_where_the_system_lets_them() -> None:
    def control(tcp: socket.socket) -> bytes:
        return tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")

    def chosen(host: str) -> bytes:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket_to((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 80))) as made:
            return control(made)

    with socket.socket() as other:
        usual = control(other)
        with suppress(OSError):
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        best = control(other)
    assert [chosen(host) for host in ("127.0.0.1", "10.0.0.9", "::1", "fe80::1%2")] == [usual] * 4
    assert [chosen(host) for host in ("1.1.1.1", "2606:4700::1")] == [best] * 2


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
async def test_a_redirect_is_not_followed(client: Client) -> None:
    server = await refused(client, attack.redirect)
    assert not [line for line in server.requests if b"/followed" in line]


async def test_a_store_that_redirects_its_bucket_without_end_is_an_error_and_no_crash() -> None:
    await refused(s3_listing, attack.redirect)


BOUNDED_IN_TIME = [client for client in CLIENTS if client is not live_status]
"""A status stream may drip for as long as it likes."""


@pytest.mark.parametrize("client", BOUNDED_IN_TIME, ids=lambda client: client.__name__)
async def test_a_body_that_drips_is_given_up(client: Client) -> None:
    await refused(client, attack.drip, within_s=5.0)


@pytest.mark.parametrize("client", [c for c in CLIENTS if c is not s3], ids=lambda client: client.__name__)
async def test_a_server_that_says_nothing_is_given_up(client: Client) -> None:
    await refused(client, attack.silence, within_s=5.0)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
async def test_loopback_is_reached_without_the_proxy_of_the_environment(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile(attack.redirect) as proxy:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await refused(client, attack.redirect)
        assert proxy.requests == []


@pytest.mark.parametrize("client", [*CLIENTS, s3_listing], ids=lambda client: client.__name__)
async def test_another_machine_is_reached_through_the_proxy_unless_no_proxy_names_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile(attack.redirect) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(FAILURES):
            await client("http://run.invalid:8400")
        asked = list(proxy.requests)
        monkeypatch.setenv("no_proxy", "run.invalid")
        with pytest.raises(FAILURES):
            await client("http://run.invalid:8400")
    assert b"http://run.invalid:8400/" in asked[0]
    assert proxy.requests == asked, "not asked again"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://store.example/k", "http://secure:1"),
        ("wss://chain.example", "http://secure:1"),
        ("http://store.example/k", "http://plain:1"),
        ("ws://chain.example:9944", "http://plain:1"),
        ("https://host.inside.example", None),
        ("http://127.0.0.1:8400", None),
        ("ws://127.8.8.8:9944", None),
        ("http://[::1]:8400", None),
        ("http://localhost:8400", None),
        ("http://localhost.example", "http://plain:1"),
    ],
)
def test_the_proxy_of_a_url(url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://secure:1")
    monkeypatch.setenv("http_proxy", "plain:1")
    monkeypatch.setenv("no_proxy", ".inside.example")
    assert proxy_for(url) == proxy


def test_a_proxy_of_another_kind_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:password@proxy:1080")
    with pytest.raises(ValueError, match="socks5://") as caught:
        proxy_for("https://store.example")
    assert "password" not in str(caught.value)


TLS_PROBE = """
import asyncio, sys
from iota.http import HttpClient, NoAnswer
from iota.store.s3 import S3Store
from iota.store import StoreError

async def main(url):
    async with HttpClient() as http:
        try:
            print((await http.fetch("GET", url, max_bytes=100, timeout_s=10)).status)
        except NoAnswer as error:
            print("refused" if "ertificate" in str(error) else error)
    try:
        print(await S3Store("bucket", url, "us-east-1").list("a"))
    except StoreError as error:
        print("refused" if "ertificate" in str(error) else error)

asyncio.run(main(sys.argv[1]))
"""


async def test_certificates_are_checked_against_ssl_cert_file(tmp_path: Path) -> None:
    """In processes of their own, as the file is read when a process starts."""
    files = self_signed(tmp_path, "localhost")
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(listing) + listing)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    said = []
    async with hostile(answer, ssl=context) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        for trusted in (None, str(files[0])):
            environment = {**os.environ, **({} if trusted is None else {"SSL_CERT_FILE": trusted})}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", TLS_PROBE, url, stdout=subprocess.PIPE, env=environment
            )
            out, _ = await asyncio.wait_for(process.communicate(), 30)
            said.append(out.decode().split("\n")[:2])
    assert said == [["refused", "refused"], ["200", "[]"]]
