"""`iota up`: starts the swarm, follows its run to the end, exports the model and makes the summary."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from iota.console.counts import counted
from iota.console.watch import in_thread
from iota.http import HttpClient
from iota.model.exported_config import EVALUATION_NAME
from iota.planning import usable_cores
from iota.spec import RunSpec
from iota.swarm.display import Display
from iota.swarm.log_ends import ended_because, log_size, log_tail
from iota.swarm.options import SwarmOptions, UpOptions
from iota.swarm.own_nodes import with_own_nodes
from iota.swarm.ports import choose_ports
from iota.swarm.preparation import (
    ORCHESTRATOR,
    VALIDATOR,
    Crew,
    ledger_weights,
    make_crew,
    prepare_data,
    register,
)
from iota.swarm.processes import Launcher, Program
from iota.swarm.programs import NETUID, SERVERS, Programs, preloaded
from iota.swarm.progress import Progress
from iota.swarm.run_dir import RunDir, write_json
from iota.swarm.summary import Summary, disk_bytes, summarise
from iota.swarm.supervisor import ProgramFailed, Supervisor
from iota.swarm.watching import POLL_S, MemoryPeaks, read_status, until_ready

if TYPE_CHECKING:
    from iota.data import Manifest

GRACE_S = 8.0
"""Longest that processes may take to stop before they are killed."""
LAST_WEIGHTS_S = 60.0
"""Longest that the validator may take to set its last weights after the end of the run."""
EARLY_END_S = 30.0
"""Longest that a run may go on after one of its nodes exited as if it had ended."""


class SwarmUp:
    """One `iota up` of the run in `run_dir`, which the caller holds."""

    def __init__(
        self,
        run_dir: RunDir,
        options: SwarmOptions,
        command: UpOptions,
        say: Callable[[str], None],
        display: Callable[[RunSpec, Mapping[str, str]], Display],
        began: float,
    ) -> None:
        """`say` prints a line, `display` makes the display for the spec and names by hotkey.

        `began` is monotonic seconds.
        """
        self._run_dir, self._options, self._command = run_dir, options, command
        self._say, self._make_display = say, display
        self._progress = Progress(began)
        self._ended_nodes: dict[str, float] = {}
        """Monotonic seconds at which a node exited, by name."""

    async def run(self) -> Summary:
        """Train to the end, export, compare. All processes have ended when it returns or raises.

        Raises:
            ValueError: a mistake of the user, or damaged files.
            ProgramFailed, PreloadFailed, NotReady, ChainError: the swarm failed; also in an ExceptionGroup.
        """
        ports = choose_ports(
            SERVERS, self._run_dir.info().get("ports", {}), {ORCHESTRATOR: self._command.port}
        )
        command = self._command
        programs = Programs(
            self._run_dir, ports, command.threads, command.device, command.max_passes, command.transport
        )
        layout = (self._run_dir.saved_spec() or self._options.draft_spec()).layout
        validators = (VALIDATOR,) if command.validator else ()
        crew = make_crew(self._run_dir.wallets, layout.stages * layout.replicas, validators)
        self._run_dir.note(
            pid=os.getpid(),
            ports=ports,
            url=programs.url(ORCHESTRATOR),
            ledger=programs.url("ledger"),
            hotkeys=crew.addresses,
            finished=False,
        )
        async with self._launching(preloaded(self._command.validator), self._command.threads) as launcher:
            summary = await self._train(launcher, programs, crew)
        summary.disk_bytes = disk_bytes(self._run_dir.root)
        await self._afterwards(summary, ports)
        write_json(self._run_dir.summary_file, summary.as_json())
        self._run_dir.note(finished=True)
        return summary

    # ---- the run ---------------------------------------------------------------------------------

    async def _train(self, launcher: Launcher, programs: Programs, crew: Crew) -> Summary:
        names = {address: name for name, address in crew.addresses.items()}
        supervisor = Supervisor(launcher, describe=lambda name: self._described(name, crew))
        peaks = MemoryPeaks(lambda: launcher.running)
        async with HttpClient() as http, asyncio.TaskGroup() as group:
            kept: dict[str, asyncio.Task[None]] = {}

            def keep(program: Program) -> None:
                kept[program.name] = group.create_task(
                    self._keep(supervisor, program), name=f"keep {program.name}"
                )

            preload = group.create_task(launcher.preload(), name="preload")
            keep(programs.store())
            keep(programs.ledger())
            spec = await in_thread(self._prepare)
            stages = counted(spec.layout.stages, "stage")
            self._say(f"run {spec.id[:12]}: {stages} of {list(spec.layout.cuts)} layers")
            await until_ready(http, "ledger", f"{programs.url('ledger')}/v1/head")
            await register(crew, programs.url("ledger"), NETUID)
            await until_ready(http, "store", f"{programs.url('store')}/healthz")
            keep(programs.orchestrator())
            await until_ready(http, ORCHESTRATOR, f"{programs.url(ORCHESTRATOR)}/readyz")
            await preload
            for miner in programs.miners(spec.layout.stages * spec.layout.replicas):
                keep(miner)
            if self._command.validator:
                keep(programs.validator())
            self._say(f"orchestrator at {programs.url(ORCHESTRATOR)}, logs in {self._run_dir.logs}")
            with self._make_display(spec, names) as display:
                await self._follow(http, programs.url(ORCHESTRATOR), names, display, peaks)
                if self._command.validator and not kept[VALIDATOR].done():
                    self._say(
                        "the run has ended; its validator sets the last weights"
                        f" ({LAST_WEIGHTS_S:.0f} s at most)"
                    )
                    await asyncio.wait([kept[VALIDATOR]], timeout=LAST_WEIGHTS_S)
                    await self._look(http, programs.url(ORCHESTRATOR), names, display)
            weights = await ledger_weights(crew, programs.url("ledger"), NETUID)
            for task in kept.values():
                task.cancel()
        return summarise(
            spec, self._progress, weights, memory=peaks.bytes, disk_bytes=0, restarts=supervisor.restarts,
            ends=supervisor.ends, names=names,
        )  # fmt: skip

    def _described(self, name: str, crew: Crew) -> str:
        """A process's name, with the stage that the run has given it."""
        members = self._progress.latest["members"] if self._progress.latest else []
        stages = [m["stage"] for m in members if m["hotkey"] == crew.addresses.get(name)]
        return f"{name} (stage {stages[0]})" if stages and stages[0] >= 0 else name

    async def _keep(self, supervisor: Supervisor, program: Program) -> None:
        await supervisor.keep(program)
        self._ended_nodes[program.name] = time.monotonic()

    def _prepare(self) -> RunSpec:
        """Prepare the data, and write manifest, spec and options to the run's folder. Blocks."""
        from iota.data.passes import check_data, check_passes
        from iota.swarm.starting import started

        run_dir, options = self._run_dir, self._options
        manifest: Manifest = prepare_data(options.data, options.tokenizer, run_dir.store, self._say)
        identity = manifest.content_digest()
        spec = run_dir.saved_spec() or options.spec(
            identity, manifest.tokenizer.vocab_size, manifest.heldout.tokens, manifest.tokenizer.eos_id
        )
        if spec.data.manifest != identity:
            raise ValueError(
                f"the run in {run_dir.root} trains on other data than {options.data} holds now: give another"
                " --run-dir"
            )
        check_data(spec, manifest)
        self._say(check_passes(spec, manifest, self._command.max_passes))
        if not run_dir.spec_file.exists():
            spec = started(spec, options, run_dir, self._say)
        write_json(run_dir.manifest_file, json.loads(manifest.canonical()))
        write_json(run_dir.spec_file, spec.model_dump(mode="json"))
        write_json(run_dir.options_file, asdict(options))
        run_dir.note(run=spec.id)
        return spec

    async def _follow(
        self, http: HttpClient, url: str, names: Mapping[str, str], display: Display, peaks: MemoryPeaks
    ) -> None:
        """Show the run, and sample memory, until the run has finished. `names` are those of its hotkeys."""
        while True:
            if await self._look(http, url, names, display):
                return
            peaks.sample()
            self._refuse_early_end()
            await asyncio.sleep(POLL_S)

    async def _look(self, http: HttpClient, url: str, names: Mapping[str, str], display: Display) -> bool:
        """Read and show the run's status. Returns whether the run has ended; False without an answer."""
        status = await read_status(http, url, self._progress.latest)
        if status is None:
            return False
        now = time.monotonic()
        self._progress.observe(now, with_own_nodes(status, names))
        display.show(now, self._progress)
        return bool(status["finished"])

    def _bases(self) -> list[dict[str, Any]]:
        """The newest whole base in the last status; empty before the first."""
        return self._progress.latest["bases"] if self._progress.latest else []

    def _refuse_early_end(self) -> None:
        """Raises ProgramFailed for a node that exited as if the run had ended, while it goes on."""
        for name, at in self._ended_nodes.items():
            if time.monotonic() > at + EARLY_END_S:
                log = self._run_dir.log(name)
                raise ProgramFailed(
                    f"{name} ended before the run did; its log {log} ends with:{log_tail(log)}"
                )

    # ---- afterwards ------------------------------------------------------------------------------

    async def _afterwards(self, summary: Summary, ports: dict[str, int]) -> None:
        """Export and compare, after all other processes have ended.

        The export has the threads of a node: on a busy machine, more wait for each other for minutes.
        """
        threads, cores = self._command.threads, usable_cores()
        if not any(base["epoch"] for base in self._bases()):
            summary.notes.append("no merged weights were stored, so there is nothing to export")
        else:
            if not self._run_dir.export.exists():
                self._say("all processes have ended; exporting the model")
                export = Programs(self._run_dir, ports, threads, self._command.device).export()
                async with self._launching((), threads) as launcher:
                    await _run(launcher, export)
            summary.export = str(self._run_dir.export)
            summary.take_heldout(self._run_dir.export / EVALUATION_NAME)
        if self._command.compare:
            self._say(f"measuring one plain process with {counted(cores, 'thread')}, three times")
            found = self._run_dir.root / "baseline.json"
            baseline = Programs(self._run_dir, ports, cores, self._command.device).baseline(found)
            async with self._launching((), cores) as launcher:
                await _run(launcher, baseline)
            summary.compare(json.loads(found.read_bytes())["tokens_per_second"])

    @asynccontextmanager
    async def _launching(self, preload: tuple[str, ...], threads: int) -> AsyncIterator[Launcher]:
        launcher = Launcher(preload, self._run_dir.log("preload"), threads)
        try:
            yield launcher
        finally:
            await launcher.close(GRACE_S)


async def _run(launcher: Launcher, program: Program) -> None:
    """Run a program to its end. Raises ProgramFailed if its exit code is not 0."""
    before = log_size(program.log)
    running = await launcher.start(program)
    code = await asyncio.shield(running.ended)
    if code:
        how = ended_because(code, program.log, before)
        raise ProgramFailed(f"{program.name} {how}; {program.log} ends with:{log_tail(program.log)}")
