"""A whole epoch at a real orchestrator on loopback: two miners whose frames and parts are digests alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from iota.objects import DeltaKey, MergedKey
from iota.protocol.events import EpochClose, MergeAssign, Plan, StepClose
from iota.protocol.frames import FrameNotice, StoredObject
from iota.protocol.messages import Delta, Merged, Ready
from iota.protocol.receipts import OpKind
from tests.support.orchestrators import BASE, Node, Running, node, until
from tests.support.receipts import step_state


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
    version = running.spec.weight_version(step, 0)
    for i in range(running.spec.schedule.microbatches):
        op: dict[str, Any] = {"step": step, "microbatch": i, "version": version}
        first.log.add(OpKind.FORWARD, **op)
        await _say(first, first.notice(last, i, step))
        last.log.add(OpKind.LOSS, **op, inputs=(last.input_from(first, i, step),))
        await _say(last, last.notice(first, i, step))
        first.log.add(OpKind.BACKWARD, **op, inputs=(first.input_from(last, i, step),))
        await _say(first)
    await until(lambda: all(len(each.events(StepClose)) > step for each in pair))
    for each in pair:
        close: StepClose = each.events(StepClose)[step]
        state = step_state(close.counted, close.learning_rate)
        each.log.add(OpKind.STEP, step=step, microbatch=0, version=version, state=state)
        await _say(each)


async def _say(who: Node, *frames: FrameNotice) -> None:
    who.talk.send(receipts=len(who.log.receipts), frames=frames)
    assert await who.talk.flush(5)


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
