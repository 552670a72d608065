"""Swarms whose processes are killed at points of their merges, and what must hold of them afterwards."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from iota.outer.base_values import BaseRoots
from iota.spec import RunSpec
from iota.swarm.options import SwarmOptions
from iota.swarm.preparation import miner_names
from iota.swarm.processes import Program
from orchestrator.coordinator import Coordinator
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.state import RunState
from orchestrator.journal import SqliteJournal
from tests.support.held_process import held
from tests.support.live_swarm import ORCHESTRATOR, STORE, VALIDATOR, LiveSwarm, Status, tiny
from tests.support.merge_points import Board, Hit, Kill, Victim

STEPS: Final = 2
PART_ELEMENTS: Final = 60_000
"""So that each stage has some parts: each miner is drawn for several."""
AWAY: Final = "the object store does not answer the orchestrator"
"""What a run says whose store is killed: it blames no node."""
LIAR: Final = miner_names(1)[0]
_LYING: Final = {LIAR: "tests.support.cheats.merges:lying_merger"}
_LEDGER: Final = "ledger"


def options(codec: str, epochs: int, replicas: int = 1, **outer: Any) -> SwarmOptions:
    """A run whose epochs end after seconds; all of its segments are audited.

    With one replica a stage its bits do not depend on how quick each replica is.
    """
    values = {
        "outer": {"codec": codec, "part_elements": PART_ELEMENTS, **outer},
        "audit": {"commit_every": 1, "window_steps": STEPS, "deadline_s": 600},
    }
    stages = {1: 3, 2: 2}[replicas]
    return tiny(
        stages=stages,
        replicas=replicas,
        epochs=epochs,
        steps_per_epoch=STEPS,
        microbatches=2 * replicas,
        values=values,
    )


@dataclass(frozen=True)
class Merge:
    """One merge of one stage, when the next epoch began."""

    replicas: set[str]
    given: list[str]
    """Whose pseudo-gradients are in it."""
    left_out: list[str]
    tokens: set[int]
    """What the contributions to each part weigh together."""
    outputs: list[list[str]]
    """By part: what its mergers signed."""
    charged: list[str]

    @staticmethod
    def of(run: RunState, epoch: EpochState, stage: int) -> Merge:
        merge = epoch.merges[stage]
        return Merge(
            {member.hotkey for member in run.miners(stage)},
            list(merge.deltas),
            [hotkey for hotkey, _ in merge.left_out],
            {sum(each.tokens for each in part.assign.contributions) for part in merge.parts},
            [list(part.outputs.values()) for part in merge.parts],
            [member.hotkey for member in run.members.values() if member.charged],
        )

    def check(self, spec: RunSpec) -> None:
        """Each replica is in it once, by all that the stage has counted, and two mergers signed the same."""
        assert sorted(self.given) == sorted(self.replicas)
        assert not self.left_out
        assert not self.charged
        assert self.tokens == {spec.data.tokens * spec.schedule.steps * spec.schedule.microbatches}
        assert all(len(signed) == 2 and len(set(signed)) == 1 for signed in self.outputs)


@dataclass(frozen=True)
class Ended:
    """What a run came to."""

    spec: RunSpec
    status: Status
    hits: list[Hit]
    merges: list[Merge]
    """All of them, by the journal alone."""
    outcomes: dict[tuple[str, str], int]
    """Verdicts of the validator's database by (audit, outcome)."""
    weights: dict[str, float]
    """The last weights by name of miner."""
    bases: dict[str, str]
    """The digest of the last base on the disk of each miner."""
    logs: dict[str, str]
    accusations: list[Path]
    """Files of evidence that miners have against the orchestrator."""

    def by_name(self, names: Mapping[str, str]) -> Ended:
        """The same with the names of nodes in the status, in the place of their hotkeys."""
        text = json.dumps(self.status)
        for hotkey, name in names.items():
            text = text.replace(hotkey, name)
        return replace(self, status=json.loads(text))


class KilledSwarm(LiveSwarm):
    """A swarm with a validator; in the merge of epoch n `kills[n]` happens."""

    def __init__(
        self,
        root: Path,
        options: SwarmOptions,
        kills: Sequence[Kill] = (),
        entries: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(root / "run", options, validator=True, entries=entries, in_order=True)
        self.kills, self.board, self.seen = kills, Board(root / "board"), set[Hit]()
        self.board.write(kills, STEPS)

    async def __aenter__(self) -> Self:
        self._killing = asyncio.create_task(self._kill_all())
        return await super().__aenter__()

    async def __aexit__(self, *given: object) -> None:
        self._killing.cancel()
        await super().__aexit__(*given)
        with suppress(asyncio.CancelledError):
            await self._killing

    async def start(self, program: Program) -> None:
        plain = program.name == _LEDGER
        await super().start(program if plain else held(program, self.board.folder))

    async def _kill_all(self) -> None:
        while True:
            for hit in self.board.hits():
                if hit not in self.seen:
                    self.seen.add(hit)
                    await self._kill(hit)
            await asyncio.sleep(0.01)

    async def _kill(self, hit: Hit) -> None:
        victim = self.board.killed(hit.epoch)
        if victim is None:
            victim = self._victim(hit, self.kills[hit.epoch].victim)
            self.board.kill(hit, victim)
        await self.kill(victim)
        self.board.go_on(hit)
        await self.restart(victim)

    def _victim(self, hit: Hit, victim: Victim) -> str:
        names = miner_names(self.miners)
        about = self.name_of(hit.about) if hit.about else hit.name
        concerned = about if about in names else names[0]
        match victim:
            case Victim.CONCERNED:
                return concerned
            case Victim.OTHER:  # of the same stage, if that has another
                replicas, stages = self.spec.layout.replicas, self.spec.layout.stages
                return names[(names.index(concerned) + (stages if replicas > 1 else 1)) % len(names)]
            case Victim.ORCHESTRATOR:
                return ORCHESTRATOR
            case Victim.VALIDATOR:
                return VALIDATOR
            case Victim.STORE:
                return STORE

    async def ended(self, timeout_s: float = 280.0) -> Ended:
        """Wait for the run's end, and the validator's."""
        waiting = asyncio.create_task(self._ended(timeout_s))
        await asyncio.wait([waiting, self._killing], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._killing  # raises why it ended
        return await waiting

    async def _ended(self, timeout_s: float) -> Ended:
        await self.finished(timeout_s)
        await self.validator_done(60)
        status = await self.finished()
        for name in miner_names(self.miners):
            await asyncio.wait_for(asyncio.shield(self.running[name].ended), 30)
        await self.kill(ORCHESTRATOR)
        keys = {key: name for name, key in self.crew.addresses.items()}
        [weights] = status["weights"].values()
        last = str(self.spec.schedule.epochs)
        miners = {name: self.run_dir.node(name) for name in miner_names(self.miners)}
        journal = SqliteJournal(self.run_dir.journal, self.spec, self.crew.addresses[ORCHESTRATOR])
        return Ended(
            self.spec,
            status,
            self.board.hits(),
            _merges(journal, self.spec),
            _outcomes(self.run_dir.node(VALIDATOR)),
            {keys[hotkey]: weight for hotkey, weight in weights.items()},
            {name: _base_on(root / "base" / last) for name, root in miners.items()},
            {path.stem: path.read_text() for path in self.run_dir.logs.glob("*.log")},
            [path for root in miners.values() for path in (root / "evidence").glob("*")],
        )


async def killed_run(root: Path, options: SwarmOptions, kills: Sequence[Kill] = ()) -> Ended:
    """One run to its end; fails where a kill did not happen."""
    async with KilledSwarm(root, options, kills) as swarm:
        ended = await swarm.ended()
    missed = [kill for epoch, kill in enumerate(kills) if epoch not in {hit.epoch for hit in ended.hits}]
    assert not missed, f"never reached: {missed}"
    return ended


def check(ended: Ended, plain: Ended) -> None:
    """Nothing is lost, nothing counts twice, nobody is accused: as in `plain`, the run without kills.

    With one replica a stage all bits are those of `plain`.
    """
    check_whole(ended)
    status, before = ended.status, plain.status
    assert set(status["named"]) <= {AWAY}
    assert {outcome for _, outcome in ended.outcomes} == {"pass"}, ended.outcomes
    assert status["receipts"] == before["receipts"]
    assert [member["withdrawn"] for member in status["members"] if member["withdrawn"]] == []
    assert ended.weights.keys() == plain.weights.keys()
    if ended.spec.layout.replicas == 1:
        assert status["losses"] == before["losses"]
        assert status["heldout"] == before["heldout"]
        assert status["bases"] == before["bases"]
        lower = {name for name, weight in plain.weights.items() if ended.weights[name] < 0.99 * weight}
        assert not lower, (ended.weights, plain.weights)
    else:  # replicas share the work by their speeds
        assert all(weight > 0 for weight in ended.weights.values())
    assert len(ended.merges) == ended.spec.schedule.epochs * ended.spec.layout.stages
    for merge in ended.merges:
        merge.check(ended.spec)


def check_whole(ended: Ended) -> None:
    """What must hold of any run: all is trained once, and all replicas of a stage hold its last base."""
    status, schedule = ended.status, ended.spec.schedule
    planned = schedule.epochs * schedule.steps * schedule.microbatches
    assert not status["internal_errors"]
    assert (status["settled"], status["dropped"]) == (planned, 0)
    assert status["tokens"] == planned * ended.spec.data.tokens
    assert [name for name, log in ended.logs.items() if "Traceback" in log] == []
    assert not ended.accusations
    expected = {base["stage"]: base["digest"] for base in status["bases"]}
    on_disk = [digest for _, digest in sorted(ended.bases.items())]
    assert on_disk == [expected[number % len(expected)] for number in range(len(on_disk))]


def _merges(journal: SqliteJournal, spec: RunSpec) -> list[Merge]:
    """All merges of a run by its journal, which has no other reader."""
    coordinator, found = Coordinator(spec), []
    for entry in journal.replay():
        state = coordinator.state
        before = state.merging
        epoch = state.current if before is None else state.epochs[before]
        coordinator.apply(entry)
        if before is not None and state.merging != before:
            found += [Merge.of(state, epoch, stage) for stage in range(state.stages)]
    journal.close()
    return found


def _outcomes(folder: Path) -> dict[tuple[str, str], int]:
    [path] = folder.glob("*/validator.sqlite")
    found: dict[tuple[str, str], int] = {}
    with closing(sqlite3.connect(path)) as database:
        for (text,) in database.execute("SELECT json FROM verdicts"):
            verdict = json.loads(text)
            at = (verdict["audit"], verdict["outcome"])
            found[at] = found.get(at, 0) + 1
    return found


def _base_on(folder: Path) -> str:
    """The digest of a base as a miner's disk has it."""
    start, rest = (folder / "digest").read_text().split(" ")
    return BaseRoots(start, rest).digest


def groups(points: Sequence[Any], victim: Victim, size: int, *, again: bool = False) -> Iterator[list[Kill]]:
    """The kills of one victim at all points, for runs of so many merges."""
    ends = [*range(0, len(points), size), len(points)]
    for start, end in pairwise(ends):
        yield [Kill(point, victim, again) for point in points[start:end]]


async def lying_run(root: Path, codec: str, kill: Kill) -> Ended:
    """A run in whose first merge the orchestrator must merge itself, since `LIAR` lies; `kill` is in it."""
    async with KilledSwarm(root, options(codec, 2), [kill], _LYING) as swarm:
        ended = await swarm.ended()
        names = {key: name for name, key in swarm.crew.addresses.items()}
    assert ended.hits, "never reached"
    return ended.by_name(names)


def check_lying(ended: Ended, plain: Ended | None = None) -> None:
    """The liar alone is named, all others have their weights, and the bases are those of the `plain` run."""
    check_whole(ended)
    said = set(ended.status["named"]) - {AWAY}
    assert any(f"{LIAR} merged part" in line for line in said), said
    assert all(LIAR in line for line in said), said
    assert all(weight > 0 for name, weight in ended.weights.items() if name != LIAR)
    failed = {verdict["miner"] for verdict in ended.status["verdicts"] if verdict["outcome"] != "pass"}
    assert failed <= {LIAR}
    assert plain is None or ended.status["bases"] == plain.status["bases"]
