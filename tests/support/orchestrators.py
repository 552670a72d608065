"""A real orchestrator on loopback for tests: its journal, sockets, signatures; a clock-like chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from iota.chain import Block
from iota.client.conversation import Conversation
from iota.client.orchestrator import OrchestratorClient
from iota.identity.http_auth import sign_request
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.objects import FrameKey
from iota.outer.base import base_digest
from iota.outer.base_values import seed_base
from iota.protocol.events import Delivered
from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    JoinReply,
    JoinRequest,
    Ready,
    Role,
)
from iota.protocol.problems import Standing
from iota.protocol.receipts import (
    GENESIS,
    RECEIPTS_DOMAIN,
    OpKind,
    Receipt,
    ReceiptBatch,
    SignedHeader,
    signed_payload,
)
from iota.spec import (
    BoundarySpec,
    DataSpec,
    LayoutSpec,
    ModelSpec,
    OptimizerSpec,
    OuterSpec,
    RunSpec,
    ScheduleSpec,
)
from iota.store import ObjectStore
from iota.wire.frame import frame_size
from orchestrator.coordinator import Coordinator
from orchestrator.coordinator.epoch_state import PlannedStep
from orchestrator.coordinator.given_ops import GivenOps
from orchestrator.coordinator.lives import begin_life, give
from orchestrator.http.admission import Admission
from orchestrator.http.app import Deps
from orchestrator.http.limits import ServerLimits
from orchestrator.http.serving import serving
from orchestrator.journal import Journal, SqliteJournal
from tests.support.memory_store import MemoryStore
from tests.support.receipts import content, named_input

ORCHESTRATOR = Hotkey.from_seed(b"o" * 32)
STORE = "http://127.0.0.1:9"
SECRET = b"0123456789abcdef0123456789abcdef"
BASE = "b" * 64
TOKENS = 8
"""In a microbatch of `make_spec`."""


def make_spec(**schedule: Any) -> RunSpec:
    """Two stages, one replica each."""
    return RunSpec(
        model=ModelSpec(vocab_size=64, hidden_size=16, layers=2, heads=2, kv_heads=2, ffn_size=32),
        layout=LayoutSpec(cuts=(1, 1), replicas=1),
        boundary=BoundarySpec(codec="identity"),
        data=DataSpec(manifest="d" * 64, sequence_length=TOKENS, sequences=1),
        schedule=ScheduleSpec(**{"epochs": 2, "steps": 2, "microbatches": 4, **schedule}),
        optimizer=OptimizerSpec(lr=1e-3),
        outer=OuterSpec(part_elements=1024),
    )


class SteadyChain:
    """A chain whose head stands until the test moves it."""

    def __init__(self) -> None:
        self.number = 1

    async def head(self) -> Block:
        return Block(self.number, f"{self.number:064x}", time.time())


@dataclass
class Members:
    """Who is admitted; everyone, until `only` names them."""

    only: set[str] | None = None
    why: Standing = Standing.NOT_LISTED

    def standing(self, hotkey: str) -> Standing:
        return self.why

    def __call__(self, hotkey: str, role: Role) -> bool:
        return self.only is None or hotkey in self.only


@dataclass
class Running:
    """One orchestrator that serves."""

    url: str
    spec: RunSpec
    coordinator: Coordinator
    journal: Journal
    chain: SteadyChain
    members: Members
    background: asyncio.Task[None]
    store: ObjectStore

    def client(self, hotkey: Hotkey, **options: Any) -> OrchestratorClient:
        return OrchestratorClient(hotkey, self.url, ORCHESTRATOR.ss58, **options)


@asynccontextmanager
async def orchestrator(
    journal: Path | Journal,
    spec: RunSpec | None = None,
    *,
    port: int = 0,
    store: ObjectStore | None = None,
    manifest: bytes = b'{"shards": []}',
    **limits: Any,
) -> AsyncIterator[Running]:
    """Serves over a SQLite journal at a path, or over the journal that is given, which stays open."""
    spec = spec or make_spec()
    async with AsyncExitStack() as stack:
        if isinstance(journal, Path):
            journal = SqliteJournal(journal, spec, ORCHESTRATOR.ss58)
            stack.callback(journal.close)
        if store is None:
            store = MemoryStore(STORE, SECRET)
            stack.push_async_callback(store.close)
        coordinator, chain, members = Coordinator(spec), SteadyChain(), Members()
        deps = Deps(
            hotkey=ORCHESTRATOR,
            coordinator=coordinator,
            journal=journal,
            store=store,
            chain=chain,
            admission=Admission(members, members.standing),
            manifest=manifest,
            limits=ServerLimits(**limits),
            head_poll_s=0.01,
        )
        url, background = await stack.enter_async_context(serving(deps, "127.0.0.1", port))
        yield Running(url, spec, coordinator, journal, chain, members, background, store)


def join_request(role: Role = Role.MINER, **fields: Any) -> JoinRequest:
    capabilities = Capabilities(device="cpu", memory=1 << 30, flops=1e9)
    return JoinRequest(
        **{"role": role, "versions": (PROTOCOL_VERSION,), "capabilities": capabilities, **fields}
    )


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition that other tasks bring about."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - anything may bring it about
            await asyncio.sleep(0.002)


@dataclass
class Log:
    """A miner's receipts, chained and signed."""

    hotkey: Hotkey
    run: str
    stage: int
    receipts: list[Receipt] = field(default_factory=list)

    def add(self, kind: OpKind = OpKind.FORWARD, **fields: Any) -> Receipt:
        receipt = Receipt(
            **{
                "seq": len(self.receipts) + 1,
                "epoch": 0,
                "step": 0,
                "stage": self.stage,
                "kind": kind,
                "microbatch": len(self.receipts),
                "version": 0,
                **content(kind, TOKENS),
                "started": time.time(),
                "ended": time.time(),
                "device": "cpu",
                "previous": self.receipts[-1].content_digest() if self.receipts else GENESIS,
                **fields,
            }
        )
        self.receipts.append(receipt)
        return receipt

    def after(self, seq: int) -> ReceiptBatch | None:
        chosen = self.receipts[seq:]
        return self.sign(chosen) if chosen else None

    def sign(self, receipts: Sequence[Receipt], by: Hotkey | None = None) -> ReceiptBatch:
        payload = signed_payload(self.run, self.hotkey.ss58, receipts[-1].content_digest())
        signature = (by or self.hotkey).sign(signing_bytes(RECEIPTS_DOMAIN, payload)).hex()
        return ReceiptBatch(receipts=tuple(receipts), signature=signature)


@dataclass
class Node:
    """A joined node: its client, its conversation and what it has heard."""

    hotkey: Hotkey
    client: OrchestratorClient
    reply: JoinReply
    talk: Conversation
    log: Log
    store: ObjectStore
    heard: list[Delivered] = field(default_factory=list)
    on_heard: Callable[[Delivered], object] = lambda delivered: None

    async def listen(self) -> None:
        async for delivered in self.talk.events():
            self.heard.append(delivered)
            self.on_heard(delivered)

    def hold_base(self) -> None:
        """Say that it holds the base of epoch 0, which the orchestrator makes too."""
        spec, stage = self.reply.spec, self.reply.stage
        self.talk.send(reports=[Ready(epoch=0, digest=base_digest(spec, seed_base(spec, stage)))])

    def events(self, kind: type) -> list[Any]:
        return [d.event for d in self.heard if isinstance(d.event, kind)]

    def notice(self, receiver: Node, microbatch: int, step: int = 0) -> FrameNotice:
        """Of a frame from this node to its neighbour, which is stored if the store is in memory."""
        forward = receiver.reply.stage > self.reply.stage
        name = FrameName(
            epoch=0,
            step=step,
            microbatch=microbatch,
            attempt=0,
            stage=self.reply.stage,
            direction=Direction.FORWARD if forward else Direction.BACKWARD,
        )
        size = frame_size(self.reply.spec, name, self.hotkey.ss58, receiver.hotkey.ss58)
        if isinstance(self.store, MemoryStore):
            self.store.objects[str(FrameKey(self.reply.run, name))] = bytes(size)
        return FrameNotice(name=name, digest="c" * 64, size=size)

    def input_from(self, sender: Node, microbatch: int, step: int = 0) -> SignedHeader:
        """What a receipt of this node names of a frame from its neighbour."""
        name = sender.notice(self, microbatch, step).name
        return named_input(self.reply.spec, name, sender.hotkey.ss58, self.hotkey.ss58)


def give_work(running: Running, one: Node) -> None:
    """As if a plan had given this node each microbatch of the next step: it may receipt them."""
    run = running.coordinator.state
    member, spec = run.members[one.hotkey.ss58], running.spec
    run.current.stages[member.hotkey] = member.stage
    begin_life(run, member)
    given = GivenOps.of(spec.schedule.microbatches, run.stages)
    for microbatch in range(spec.schedule.microbatches):
        give(run, given, (microbatch, member.stage), 0, member)
    run.current.steps.append(PlannedStep(len(run.current.steps), 0.1, BASE, [], 0, given))


@asynccontextmanager
async def node(running: Running, seed: bytes, role: Role = Role.MINER, **options: Any) -> AsyncIterator[Node]:
    """A node that has joined and listens."""
    hotkey = Hotkey.from_seed(seed * 32)
    async with running.client(hotkey) as client:
        reply = await client.join(join_request(role))
        log = Log(hotkey, reply.run, reply.stage)
        talk = Conversation(client, reply.cursor, stored=reply.receipts, receipts_after=log.after, **options)
        async with talk:
            made = Node(hotkey, client, reply, talk, log, running.store)
            listening = asyncio.create_task(made.listen())
            try:
                yield made
            finally:
                listening.cancel()


async def raw(
    running: Running,
    path: str,
    body: bytes = b"{}",
    *,
    headers: dict[str, str] | None = None,
    method: str = "POST",
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """One request as given: status, document, headers."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, URL(running.url + path, encoded=True), data=body, headers=headers) as response,
    ):
        return response.status, await response.json(content_type=None), dict(response.headers)


def signed(
    hotkey: Hotkey, path: str, body: bytes, method: str = "POST", receiver: str = ORCHESTRATOR.ss58
) -> dict[str, str]:
    return sign_request(hotkey, method, path, body, receiver)
