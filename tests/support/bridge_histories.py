"""Histories of the Bridge: clients that record what they did and saw, and the model that must explain it.

A group of names is one object: a variable `r` with rule lww, `c` with rule cas, `l` with rule lock. Writes of
several variables stay in a group. No lease or variable expires meanwhile: time is no part of the model.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from iota.client.bridge import BridgeClient
from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable
from iota.protocol.bridge import Delete, Lock, Op, Set, Unlock, VariableView, WriteRule
from iota.protocol.problems import Problem, ProblemType
from tests.support.bridge_server import Process
from tests.support.linearizability import NEVER, Operation, is_linearizable
from tests.support.orchestrators import ORCHESTRATOR, until

LEASE_S: Final = 86_400.0
_IMPATIENT: Final = 0.2
"""Share of the operations that are tried once: of some nobody hears what came of them."""


class Held(NamedTuple):
    """A variable; `version` is None where nobody has seen it yet."""

    value: Any
    version: int | None
    lease: int | None


GroupState = tuple[Held | None, Held | None, Held | None]
NAMES: Final = ("r", "c", "l")
EMPTY: Final[GroupState] = (None, None, None)


@dataclass(frozen=True)
class Action:
    """One operation and what came of it. Reads have no `ops`."""

    group: int
    ops: tuple[Op, ...] = ()
    read: str = ""
    """The variable that was read."""
    revision: int | None = None
    """Of a write that was taken."""
    refused: str = ""
    """The variable that was not as the write said."""
    seen: Held | None = None
    """What was read, or stood in the way."""
    unknown: bool = False
    """No answer came."""


def step(state: GroupState, action: Action) -> GroupState | None:
    """The model: what a group is after an action; None where something else would have come of it."""
    if action.read:
        return _seen(state, action.read, action.seen)
    after = _written(state, action)
    if action.unknown:
        return state if after is None else after
    if action.refused:
        return _seen(state, action.refused, action.seen) if after is None else None
    return after


def _seen(state: GroupState, name: str, seen: Held | None) -> GroupState | None:
    """The state with what was seen of a variable, if that fits."""
    at = NAMES.index(name)
    held = state[at]
    if held is None or seen is None:
        return state if held is seen else None
    if held.version is None and held.value == seen.value:
        lease = seen.lease if held.lease == -1 else held.lease
        held = Held(held.value, seen.version, lease)
    elif held.lease == -1 and seen.lease is not None:
        held = held._replace(lease=seen.lease)
    return _with(state, at, held) if held == seen else None


def _with(state: GroupState, at: int, held: Held | None) -> GroupState:
    found = list(state)
    found[at] = held
    return found[0], found[1], found[2]


def _written(state: GroupState, action: Action) -> GroupState | None:
    """The state after the action's operations; None where one of them is refused."""
    for op in action.ops:
        at = NAMES.index(op.name.rpartition("/")[2])
        held = state[at]
        expected = getattr(op, "expected", None)
        # A version that nobody has seen is none that somebody can name.
        if expected is not None and expected != (0 if held is None else held.version):
            return None
        match op:
            case Set() if op.lease is not None:
                if held is None or held.lease != op.lease:
                    return None
                made = Held(op.value, action.revision, held.lease)
            case Set():
                made = Held(op.value, action.revision, None)
            case Lock():
                if held is not None and held.lease is not None:
                    return None
                lease = -1 if action.revision is None else action.revision
                made = Held(None, action.revision, lease) if held is None else held._replace(lease=lease)
            case Unlock():
                if held is None or held.lease != op.lease:
                    return None
                made = held._replace(lease=None)
            case _:
                if held is None:
                    return None
                state = _with(state, at, None)
                continue
        state = _with(state, at, made)
    return state


@dataclass
class Client:
    """One client, which does one operation after another."""

    number: int
    groups: int
    bridges: tuple[BridgeClient, BridgeClient]
    """A patient one, and one that tries once."""
    chance: random.Random
    done: list[Operation[Action]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    """What it saw last."""
    leases: dict[str, int] = field(default_factory=dict)
    """That it has taken."""

    async def act(self) -> None:
        """Do one operation, and record it."""
        group = self.chance.randrange(self.groups)
        ops = self._choose(f"g/{group}")
        bridge = self.bridges[self.chance.random() < _IMPATIENT]
        called = time.monotonic_ns()
        read = "" if ops else self.chance.choice(NAMES)
        try:
            if read:
                found = await bridge.get(f"g/{group}/{read}")
                action = Action(group, read=read, seen=self._note(f"g/{group}/{read}", found))
            else:
                revision = await bridge.write(*ops)
                self._note_written(ops, revision)
                action = Action(group, ops, revision=revision)
        except OrchestratorUnreachable:
            action = Action(group, ops, unknown=True)
        except Problem as problem:
            if problem.transient:
                action = Action(group, ops, unknown=True)
            else:
                action = self._refused(group, ops, problem)
        if not (action.unknown and read):
            returned = NEVER if action.unknown else time.monotonic_ns()
            self.done.append(Operation(called, returned, action))

    def _choose(self, group: str) -> tuple[Op, ...]:
        value = f"{self.number}-{len(self.done)}"
        r, c, lock = (f"{group}/{name}" for name in NAMES)
        known = self.versions.get(c, 0)
        cas = Set(name=c, value=value, rule=WriteRule.CAS, expected=known)
        held = self.leases.get(lock)
        match self.chance.randrange(8):
            case 0:
                return (Set(name=r, value=value),)
            case 1 | 2:
                return (cas,)
            case 3:
                return (Set(name=r, value=value), cas)
            case 4 if known:
                return (Delete(name=c, expected=known),)
            case 5:
                return (
                    (Lock(name=lock, lease_s=LEASE_S),) if held is None else (Unlock(name=lock, lease=held),)
                )
            case 6 if held is not None:
                return (Set(name=lock, value=value, lease=held), Set(name=r, value=value))
            case _:
                return ()

    def _refused(self, group: int, ops: tuple[Op, ...], problem: Problem) -> Action:
        assert problem.type is ProblemType.CONFLICT, problem
        name, current = problem.extra["name"], problem.extra["current"]
        seen = self._note(name, None if current is None else VariableView.model_validate(current))
        self.leases.pop(name, None)
        return Action(group, ops, refused=name.rpartition("/")[2], seen=seen)

    def _note(self, name: str, found: VariableView | None) -> Held | None:
        self.versions[name] = 0 if found is None else found.version
        if found is None:
            return None
        return Held(found.value, found.version, None if found.lease is None else found.lease.number)

    def _note_written(self, ops: tuple[Op, ...], revision: int) -> None:
        for op in ops:
            match op:
                case Set():
                    self.versions[op.name] = revision
                case Lock():
                    self.leases[op.name] = revision
                case Unlock():
                    del self.leases[op.name]
                case _:
                    self.versions[op.name] = 0


@dataclass(frozen=True)
class Recorded:
    """What the clients of one run did."""

    operations: list[Operation[Action]]
    kills: int

    @property
    def unknown(self) -> int:
        """Operations that nobody knows the end of."""
        return sum(operation.action.unknown for operation in self.operations)

    def groups(self) -> list[list[Operation[Action]]]:
        """The operations by group."""
        found: dict[int, list[Operation[Action]]] = {}
        for operation in self.operations:
            found.setdefault(operation.action.group, []).append(operation)
        return list(found.values())

    def is_linearizable(self) -> bool:
        """Whether each group's history is, and no two writes have one revision."""
        revisions = [o.action.revision for o in self.operations if o.action.revision is not None]
        unique = len(set(revisions)) == len(revisions)
        return unique and all(is_linearizable(group, EMPTY, step) for group in self.groups())


async def record(journal: Path, *, clients: int, operations: int, kills: int, seed: int) -> Recorded:
    """`operations` by `clients` at once, while the orchestrator is killed `kills` times and started again."""
    chance = random.Random(seed)
    groups = max(2, operations // 200)
    async with Process(journal) as server:
        opened = [
            OrchestratorClient(ORCHESTRATOR, server.url, ORCHESTRATOR.ss58, retry_for_s=patience)
            for _ in range(clients)
            for patience in (120.0, 0.0)
        ]
        pairs: Sequence[tuple[BridgeClient, BridgeClient]] = [
            (BridgeClient(opened[i]), BridgeClient(opened[i + 1])) for i in range(0, len(opened), 2)
        ]
        made = [Client(n, groups, pair, random.Random(chance.random())) for n, pair in enumerate(pairs)]
        left = iter(range(operations))
        due = [operations * (n + 1) // (kills + 1) for n in range(kills)]

        async def work(client: Client) -> None:
            for _ in left:
                await client.act()

        async def disturb() -> None:
            for limit in due:
                await until(lambda limit=limit: sum(len(c.done) for c in made) >= limit, 300.0)
                await server.kill()
                await server.start()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(disturb())
            for client in made:
                tasks.create_task(work(client))
        for each in opened:
            await each.__aexit__()
    return Recorded([operation for client in made for operation in client.done], kills)
