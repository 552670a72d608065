"""Honest swarms of real processes whose validator has other kernels; a miner is killed, and started again."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final
from unittest import mock

from iota.client.orchestrator import OrchestratorClient
from iota.protocol.messages import Outcome, Verdict
from iota.protocol.verdicts import PAGE
from iota.spec import Pipeline
from iota.swarm.preparation import VALIDATOR
from iota.swarm.processes import Launcher, Program
from tests.support.live_swarm import LiveSwarm, Status, tiny
from tests.support.soak_rows import variant_of
from tests.support.soak_work import compared_by

_STEPS: Final = 4
_MICROBATCHES: Final = 8
_OPS: Final = 20
"""Op audits per miner and epoch."""
_KERNELS: Final = ("aten-avx2-t1", "avx2-t1", "onednn-avx512-t1")
_OPTIMIZERS: Final = ("adamw", "muon", "sgd")
_CODECS: Final = ("resbm-anchor", "identity", "resbm")
_WIRES: Final = ("bf16", "int8", "fp32")
_LONGEST_S: Final = 600.0


class _OtherKernels(LiveSwarm):
    """A swarm whose validator is a process of its own with the kernels of a variant."""

    def __init__(self, root: Path, variant: str, **changes: Any) -> None:
        super().__init__(root, tiny(**changes), validator=True, in_order=True)
        self._chosen = variant_of(variant).environment

    def nodes(self) -> list[Program]:
        """The validator first: it must be there before the first epoch ends."""
        *miners, validator = super().nodes()
        return [validator, *miners]

    async def start(self, program: Program) -> None:
        if program.name != VALIDATOR:
            await super().start(program)
            return
        with mock.patch.dict(os.environ, self._chosen):
            launcher = Launcher((), self.run_dir.log("own"), 1)
        self._stack.push_async_callback(launcher.close, 3.0)
        self.running[VALIDATOR] = await launcher.start(dataclasses.replace(program, forked=False))


def soak_swarm(number: int, folder: Path) -> dict[str, Any]:
    """Run swarm `number` to its end. Its figures, in the form of a row's."""
    return asyncio.run(_run(number, folder))


async def _run(number: int, folder: Path) -> dict[str, Any]:
    begun, rng, replicas = time.monotonic(), random.Random(number), 1 + number % 3
    variant, optimizer = _KERNELS[number % len(_KERNELS)], _OPTIMIZERS[number // 3 % len(_OPTIMIZERS)]
    precision = "bf16-master" if variant.startswith("onednn") else "fp32"  # the other one shows in bf16 alone
    pipeline, codec, wire = rng.choice(list(Pipeline)), rng.choice(_CODECS), rng.choice(_WIRES)
    boundary = {"codec": codec, "wire": wire} | ({} if codec != "identity" else {"ratio": 1})
    audit = {"ops": _OPS, "commit_every": 2, "window_steps": _STEPS, "extra_every": 1, "deadline_s": 300}
    swarm = _OtherKernels(
        folder / "run",
        variant,
        stages=3 if replicas == 1 else 2,
        replicas=replicas,
        epochs=3,
        steps_per_epoch=_STEPS,
        microbatches=_MICROBATCHES,
        pipeline=pipeline,
        optimizer=optimizer,
        values={"audit": audit, "boundary": boundary, "precision": precision},
    )
    async with swarm:
        status = await _disturbed(swarm, replicas)
        verdicts = await _verdicts(swarm)
    return {
        "number": number,
        "size": "tiny",
        "precision": swarm.spec.precision,
        "optimizer": optimizer,
        "wire": wire,
        "codec": codec,
        "pipeline": pipeline,
        "commit_every": 2,
        "maker": f"swarm of {replicas}",
        "replicas": replicas,
        "rerouted": status["rerouted"],
        "killed": 2 if replicas > 1 else 1,
        "audits": [_tallies(variant, verdicts)],
        "seconds": round(time.monotonic() - begun, 1),
    }


async def _disturbed(swarm: LiveSwarm, replicas: int) -> Status:
    """Kill a miner in one or two epochs, start it again, and wait for the end of run and audits."""
    planned = _STEPS * _MICROBATCHES
    for epoch in range(1 if replicas == 1 else 2):
        status = await swarm.until(
            lambda s, epoch=epoch: s["settled"] >= epoch * planned + planned // 3, _LONGEST_S
        )
        before = status["rerouted"]
        await swarm.kill(f"miner-0{epoch}")
        if replicas > 1:
            await swarm.until(lambda s, before=before: s["rerouted"] > before or s["finished"], _LONGEST_S)
        await swarm.restart(f"miner-0{epoch}")
    status = await swarm.finished(_LONGEST_S)
    await swarm.validator_done(_LONGEST_S)
    return status


async def _verdicts(swarm: LiveSwarm) -> list[Verdict]:
    """All verdicts of a run that has ended."""
    found: list[Verdict] = []
    async with OrchestratorClient(None, swarm.url) as client:
        for epoch in range(swarm.spec.schedule.epochs):
            number, total = 0, 1
            while number * PAGE < total:
                page = await client.verdicts(epoch, number)
                found += [filed.verdict for filed in page.verdicts]
                number, total = number + 1, page.total
    return found


def _tallies(variant: str, verdicts: list[Verdict]) -> dict[str, Any]:
    tallies: dict[str, dict[str, Any]] = {}
    fails, others = [], Counter[str]()
    for verdict in verdicts:
        how = f"{verdict.audit} {compared_by(verdict.profile)}"
        if verdict.outcome not in (Outcome.PASS, Outcome.FAIL, Outcome.UNDELIVERED):
            others[f"{verdict.audit} {verdict.outcome}: {verdict.reason}"] += 1
            continue
        tally = tallies.setdefault(how, {"audits": 0, "failed": 0, "compared": 0, "largest": {}})
        tally["audits"] += 1
        if verdict.outcome is not Outcome.PASS:
            tally["failed"] += 1
            fails.append(f"{how} of {verdict.miner}: {verdict.outcome}: {verdict.reason}")
    return {"variant": variant, "tallies": tallies, "fails": fails, "undecided": dict(others)}
