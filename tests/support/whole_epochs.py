"""A whole epoch at a real orchestrator on loopback: two miners whose frames and parts are zeros."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from blake3 import blake3

from iota.objects import DeltaKey, FrameKey, MergedKey
from iota.protocol.events import EpochClose, MergeAssign, Plan, StepClose
from iota.protocol.frames import FrameNotice, StoredObject
from iota.protocol.merges import merge_output
from iota.protocol.messages import Delta, Merged, Ready
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from iota.store import ObjectExists
from tests.support.orchestrators import BASE, Node, Running, node, until
from tests.support.receipts import commit_content, step_content


@asynccontextmanager
async def epoch(running: Running) -> AsyncIterator[tuple[Node, Node]]:
    """The two miners of epoch 0, by stage, once both hold the next base; it is not sealed yet."""
    async with node(running, b"a") as a, node(running, b"b") as b:
        pair = (a, b) if a.reply.stage == 0 else (b, a)
        for each in pair:
            each.hold_base()
        for step in range(running.spec.schedule.steps):
            await _step(running, pair, step)
        await _merge(running, pair)
        yield pair


async def _step(running: Running, pair: tuple[Node, Node], step: int) -> None:
    first, last = pair
    await until(lambda: all(len(each.events(Plan)) > step for each in pair))
    version = running.spec.weight_version(step, 0)
    if step == 0:
        for each in pair:
            await _commit(running, each, 0)
    for i in range(running.spec.schedule.microbatches):
        op: dict[str, Any] = {"step": step, "microbatch": i, "version": version}
        first.log.add(OpKind.FORWARD, **op)
        await _say(first, await _sent(first, last, i, step))
        last.log.add(OpKind.LOSS, **op, inputs=(last.input_from(first, i, step),))
        await _say(last, await _sent(last, first, i, step))
        first.log.add(OpKind.BACKWARD, **op, inputs=(first.input_from(last, i, step),))
        await _say(first)
    await until(lambda: all(len(each.events(StepClose)) > step for each in pair))
    for each in pair:
        close: StepClose = each.events(StepClose)[step]
        applied = step_content(close.counted, close.learning_rate)
        each.log.add(OpKind.STEP, step=step, microbatch=0, version=version, **applied)
        await _commit(running, each, step + 1)


async def _commit(running: Running, who: Node, version: int) -> None:
    """Say what the miner has, with its COMMIT to a version if one is due."""
    spec = running.spec
    if spec.is_committed(version):
        before = version > 0 and spec.schedule.pipeline is Pipeline.DELAYED
        made = commit_content(before=before, first=version == 0)
        who.log.add(OpKind.COMMIT, step=version, microbatch=0, version=version, **made)
    await _say(who)


async def _sent(sender: Node, receiver: Node, index: int, step: int) -> FrameNotice:
    notice = sender.notice(receiver, index, step)
    with suppress(ObjectExists):  # a store in memory has it already
        await sender.store.put(str(FrameKey(sender.reply.run, notice.name)), bytes(notice.size))
    return notice


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
        for part in parts:
            await each.store.put(part.key, bytes(part.size))
        each.talk.send(reports=[Delta(epoch=0, parts=parts)])
    await until(lambda: all(merge.fixed for merge in running.coordinator.state.current.merges))
    running.chain.number += 1 + running.spec.audit.seal_blocks  # the mergers are drawn
    count = sum(map(len, sizes))
    await until(lambda: all(len(each.events(MergeAssign)) == count for each in pair))
    for each in pair:
        for assign in each.events(MergeAssign):
            key = str(MergedKey(run, 0, assign.stage, assign.part, each.hotkey.ss58))
            size = assign.contributions[0].stored.size
            stored = StoredObject(key=key, digest=blake3(bytes(size)).hexdigest(), size=size)
            await each.store.put(key, bytes(size))
            report = Merged(epoch=0, stage=assign.stage, part=assign.part, stored=stored)
            part: dict[str, Any] = {"stage": assign.stage, "microbatch": assign.part}
            part |= {"tokens": 0}
            each.log.add(OpKind.MERGE, **part, output=merge_output(stored.digest, {}))
            each.talk.send(receipts=len(each.log.receipts), reports=[report])
            assert await each.talk.flush(5)
    await until(lambda: running.coordinator.state.current.unmerged == 0)
    for each in pair:
        each.talk.send(reports=[Ready(epoch=1, digest=BASE)])
    await until(lambda: running.coordinator.state.epochs[0].merged_block is not None)


async def sealed(running: Running, pair: tuple[Node, Node]) -> EpochClose:
    """A block comes, and both miners hear the seal."""
    running.chain.number += 1 + running.spec.audit.seal_blocks
    await until(lambda: all(each.events(EpochClose) for each in pair))
    found: EpochClose = pair[0].events(EpochClose)[0]
    return found
