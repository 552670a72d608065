"""A whole epoch at a real orchestrator on loopback: two miners whose frames and parts are digests alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from iota.objects import DeltaKey, MergedKey
from iota.protocol.events import EpochClose, MergeAssign, Plan, StepClose
from iota.protocol.messages import Delta, Merged, Ready, StoredObject
from iota.protocol.receipts import OpKind, StepState, counted_digest
from tests.support.orchestrators import BASE, Node, Running, node, until


@asynccontextmanager
async def epoch(running: Running) -> AsyncIterator[tuple[Node, Node]]:
    """The two miners of epoch 0, in order of their stage, once its merge is ready; it is not sealed yet."""
    async with node(running, b"a") as a, node(running, b"b") as b:
        pair = (a, b) if a.reply.stage == 0 else (b, a)
        for each in pair:
            each.talk.send(reports=[Ready(epoch=0, digest=BASE)])
        for step in range(running.spec.schedule.steps):
            await _step(running, pair, step)
        await _merge(running, pair)
        yield pair


async def _step(running: Running, pair: tuple[Node, Node], step: int) -> None:
    first, last = pair
    await until(lambda: all(len(each.events(Plan)) > step for each in pair))
    for i in range(running.spec.schedule.microbatches):
        for who, to, kind in ((first, last, OpKind.FORWARD), (last, first, OpKind.LOSS)):
            who.log.add(kind, step=step, microbatch=i, loss=4.0 if kind is OpKind.LOSS else None)
            who.talk.send(receipts=len(who.log.receipts), frames=[who.notice(to, i, step)])
            assert await who.talk.flush(5)
        first.log.add(OpKind.BACKWARD, step=step, microbatch=i)
        first.talk.send(receipts=len(first.log.receipts))
        assert await first.talk.flush(5)
    await until(lambda: all(len(each.events(StepClose)) > step for each in pair))
    for each in pair:
        each.log.add(OpKind.STEP, step=step, state=state_of(each.events(StepClose)[step]))
        each.talk.send(receipts=len(each.log.receipts))
        assert await each.talk.flush(5)


def state_of(close: StepClose) -> StepState:
    """What a STEP commits to that applies what its close says."""
    return StepState(
        weights="a" * 64, moments="b" * 64, change_sketch=(), moments_sketch=(), gradient_norm=1.0,
        counted=counted_digest(close.counted), learning_rate=close.learning_rate,
    )  # fmt: skip


async def _merge(running: Running, pair: tuple[Node, Node]) -> None:
    run, sizes = running.spec.id, running.coordinator.state.part_bytes
    for each in pair:
        stage, me = each.reply.stage, each.hotkey.ss58
        parts = tuple(
            StoredObject(key=str(DeltaKey(run, 0, stage, me, n)), digest="1" * 64, size=size)
            for n, size in enumerate(sizes[stage])
        )
        each.talk.send(reports=[Delta(epoch=0, parts=parts)])
    count = sum(map(len, sizes))
    await until(lambda: all(len(each.events(MergeAssign)) == count for each in pair))
    for each in pair:
        for assign in each.events(MergeAssign):
            key = str(MergedKey(run, 0, assign.stage, assign.part, each.hotkey.ss58))
            stored = StoredObject(key=key, digest="2" * 64, size=assign.contributions[0].stored.size)
            each.talk.send(reports=[Merged(epoch=0, stage=assign.stage, part=assign.part, stored=stored)])
    await until(lambda: running.coordinator.state.current.unmerged == 0)


async def sealed(running: Running, pair: tuple[Node, Node]) -> EpochClose:
    """A block comes, and both miners hear the seal."""
    running.chain.number += 1
    await until(lambda: all(each.events(EpochClose) for each in pair))
    found: EpochClose = pair[0].events(EpochClose)[0]
    return found
