"""A whole swarm of real processes for tests, with processes that can be killed and started again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import iota
from iota.http import HttpClient
from iota.settings import Ways
from iota.spec import RunSpec
from iota.swarm.options import SwarmOptions
from iota.swarm.ports import choose_ports
from iota.swarm.preparation import ORCHESTRATOR, VALIDATOR, make_crew, prepare_data, register
from iota.swarm.processes import Program, Running
from iota.swarm.programs import NETUID, SERVERS, Programs
from iota.swarm.run_dir import RunDir, write_json
from iota.swarm.starting import started
from iota.swarm.watching import read_status, until_ready
from tests.support.shared_launcher import SharedLauncher

Status = dict[str, Any]
STORE = "store"
DATA = Path(iota.__file__).parent
"""A tenth of the default data: each swarm prepares its own."""
TEMPO_BLOCKS = 8
"""Weights are set once a tempo: the last ones, for which a swarm waits, go out within 4 s."""


@dataclasses.dataclass(frozen=True)
class OtherValidator:
    """A validator beside the first one."""

    name: str
    entry: str | None = None
    """Another program, which is not forked, so that it may choose its own kernels. Its imports count as its
    compute, so that it has a larger share of the machine than the others."""
    late: bool = False
    """Whether the test starts it, by `LiveSwarm.start_validator`. If not, it joins before any miner does."""


class LiveSwarm:
    """Processes of one run in `root`. `entries` replaces the program of a node by name.

    `others`: validators beside the first one, which there is then too.
    `ways` are the miners' --transport by name; others have the product's default.
    `in_order`: a node starts once the one before has joined, so that each has its stage: 0, 1, ..., 0, 1, ...
    """

    def __init__(
        self,
        root: Path,
        options: SwarmOptions,
        *,
        validator: bool = False,
        entries: Mapping[str, str] | None = None,
        ways: Mapping[str, Ways] | None = None,
        in_order: bool = False,
        others: Sequence[OtherValidator] = (),
    ) -> None:
        self.options, self.validator, self.in_order = options, validator or bool(others), in_order
        self.others = {other.name: other for other in others}
        self.run_dir = RunDir(root)
        self.entries, self.ways = dict(entries or {}), dict(ways or {})
        self.running: dict[str, Running] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        stack = self._stack
        stack.enter_context(self.run_dir)
        self.http = await stack.enter_async_context(HttpClient())
        ports = choose_ports(SERVERS, {}, {})
        self.programs = self.make_programs(ports)
        self.launcher = SharedLauncher()
        stack.push_async_callback(self.launcher.close, 3.0)
        preload = asyncio.create_task(self.launcher.preload())
        self.spec = await asyncio.to_thread(self._prepare)
        validators = (VALIDATOR, *self.others) if self.validator else ()
        self.crew = make_crew(self.run_dir.wallets, self.miners, validators)
        await self.start(self.programs.store())
        await self.start_chain()
        await until_ready(self.http, "store", f"{self.programs.url('store')}/healthz")
        await self.start(self.programs.orchestrator())
        await until_ready(self.http, ORCHESTRATOR, f"{self.url}/readyz")
        await preload
        for other in self.others.values():
            if not other.late:
                await self.start_validator(other.name)
        already = len((await self.until(bool))["members"])
        for number, program in enumerate(self.nodes(), 1 + already):
            await self.start(program)
            if self.in_order:
                await self.until(lambda status, number=number: len(status["members"]) >= number)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def miners(self) -> int:
        return self.spec.layout.stages * self.spec.layout.replicas

    @property
    def url(self) -> str:
        return self.programs.url(ORCHESTRATOR)

    def nodes(self) -> list[Program]:
        programs = self.programs.miners(self.miners)
        if self.validator:
            programs.append(self.programs.validator())
        return [self._as_given(program) for program in programs]

    def _as_given(self, program: Program) -> Program:
        way = self.ways.get(program.name)
        return dataclasses.replace(
            program,
            entry=self.entries.get(program.name, program.entry),
            arguments=(*program.arguments, *(() if way is None else ("--transport", way))),
        )

    def _prepare(self) -> RunSpec:
        manifest = prepare_data(self.options.data, "bytes", self.run_dir.store, lambda line: None)
        ids = manifest.tokenizer
        spec = self.options.spec(
            manifest.content_digest(), ids.vocab_size, manifest.heldout.tokens, ids.eos_id
        )
        spec = started(spec, self.options, self.run_dir, lambda line: None)
        write_json(self.run_dir.manifest_file, json.loads(manifest.canonical()))
        write_json(self.run_dir.spec_file, spec.model_dump(mode="json"))
        return spec

    def make_programs(self, ports: dict[str, int]) -> Programs:
        return Programs(self.run_dir, ports, threads=1, device="cpu")

    async def start_validator(self, name: str) -> None:
        """Start one of `others`, and wait until it has joined."""
        program = self.programs.validator(name)
        if (entry := self.others[name].entry) is not None:
            arguments = (*program.arguments, "--compute-share", "1")
            program = dataclasses.replace(program, entry=entry, arguments=arguments, forked=False)
        await self.start(program)
        await self.until(lambda s: self.crew.addresses[name] in {m["hotkey"] for m in s["members"]})

    async def start_chain(self) -> None:
        """A chain with every member registered."""
        ledger = self.programs.ledger()
        arguments = (*ledger.arguments, "--tempo", str(TEMPO_BLOCKS))
        await self.start(dataclasses.replace(ledger, arguments=arguments))
        await until_ready(self.http, "ledger", f"{self.programs.url('ledger')}/v1/head")
        await register(self.crew, self.programs.url("ledger"), NETUID)

    async def start(self, program: Program) -> None:
        self.running[program.name] = await self.launcher.start(program)

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        running = self.running[name]
        async with asyncio.timeout(30):
            while not running.ended.done():
                running.kill()  # again: a process that was just forked leads no group yet
                await asyncio.wait([running.ended], timeout=0.5)

    async def restart(self, name: str) -> None:
        servers = (self.programs.orchestrator(), self.programs.store())
        programs = {p.name: p for p in (*self.nodes(), *servers)}
        await self.start(programs[name])

    def name_of(self, hotkey: str) -> str:
        return next(name for name, key in self.crew.addresses.items() if key == hotkey)

    async def status(self) -> Status | None:
        return await read_status(self.http, self.url)

    async def until(self, reached: Callable[[Status], bool], timeout_s: float = 120.0) -> Status:
        """The first status for which `reached` holds; fails with the last one when that takes too long."""
        end, status = time.monotonic() + timeout_s, None
        while time.monotonic() < end:
            status = await self.status() or status
            if status is not None and reached(status):
                return status
            await asyncio.sleep(0.1)
        raise AssertionError(f"not reached in {timeout_s} s; the last status is {status}")

    async def validator_done(self, timeout_s: float, name: str = VALIDATOR) -> None:
        """Wait until a validator has set its last weights and ended."""
        await asyncio.wait_for(asyncio.shield(self.running[name].ended), timeout_s)

    async def finished(self, timeout_s: float = 120.0) -> Status:
        return await self.until(lambda s: bool(s["finished"]), timeout_s)


def tiny(**changes: Any) -> SwarmOptions:
    """A run of a few seconds."""
    given: dict[str, Any] = {
        "stages": 3,
        "replicas": 1,
        "epochs": 2,
        "steps_per_epoch": 4,
        "microbatches": 4,
        "model": "tiny",
        "data": str(DATA),
        "sequence_length": 64,
        "sequences": 2,
    }
    return SwarmOptions.of(**{**given, **changes})


__all__ = ["ORCHESTRATOR", "STORE", "VALIDATOR", "LiveSwarm", "OtherValidator", "Status", "tiny"]
