"""The miner process: its disk, receipts and device, and one replica life after another."""

from __future__ import annotations

import logging
from typing import Final, Protocol

import psutil
import torch

from iota.client.node_clients import NodeClients
from iota.client.orchestrator import OtherRun, new_session
from iota.client.run_objects import RunObjects, UrlSource
from iota.compute.compiled import is_compiled
from iota.compute.determinism import device_class
from iota.compute.devices import card_bytes, check_dtypes
from iota.compute.engine import EngineFactory
from iota.console.lasting import lasting
from iota.console.watch import Watch
from iota.data.manifest import parse_manifest
from iota.data.reader import ShardReader
from iota.data.samples import Samples
from iota.identity.keys import Hotkey
from iota.identity.worker_file import refuse_other_run
from iota.planning import (
    Machine,
    Needs,
    all_needs,
    check_snapshot_bound,
    shortfalls,
    stage_needs,
    stage_shortfalls,
    stageless,
)
from iota.planning.needs import CACHE_BYTES
from iota.protocol.messages import PROTOCOL_VERSION, Capabilities, JoinReply, JoinRequest, Role
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.workers import Certificate
from iota.settings import MinerSettings
from iota.spec import RunSpec
from iota.store.transfer import ObjectClient
from iota.wire.transport import Transport
from miner.device import DeviceThread, measured_flops
from miner.disk import MinerDisk
from miner.links import MinerLinks, open_links
from miner.op_records import StateLost
from miner.ops import OpRunner
from miner.receipt_log import ReceiptLog
from miner.replica import Replica

log = logging.getLogger(__name__)

MAX_JOINS: Final = 8
"""A process gives up after so many joins that each ended with a lost state."""


class TransportFactory(Protocol):
    """Makes the transport by the store of one life of a replica."""

    def __call__(self, run: str, urls: UrlSource, store: ObjectClient) -> Transport: ...


class MinerNode:
    """One miner process, from its start to the end of the run.

    `device` and `threads` are the settings of these names after their defaults are resolved; `certificate` is
    that of a worker.
    """

    def __init__(
        self,
        settings: MinerSettings,
        device: str,
        threads: int,
        hotkey: Hotkey,
        clients: NodeClients,
        make_engine: EngineFactory,
        make_transport: TransportFactory,
        watch: Watch,
        certificate: Certificate | None = None,
    ) -> None:
        self._settings, self._torch_device, self._threads = settings, device, threads
        self._hotkey, self._clients, self._client = hotkey, clients, clients.orchestrator
        self._certificate, self._session = certificate, new_session()
        self._objects = RunObjects(clients.orchestrator, clients.objects)
        self._make_engine, self._make_transport = make_engine, make_transport
        self._device = DeviceThread()
        self._device_class = device_class(device, threads)
        self._watch = watch
        self._run: str | None = None
        """Id of the run, once this process has taken part in it."""

    async def run(self) -> None:
        """Take part until the run ends.

        Raises:
            ValueError: the operator can fix it (directory in use, too little memory or disk).
            ConditionStands: something that passes by itself did not until its end.
        """
        try:
            await self._watch.persevere(self._take_part)
        except Problem as problem:
            if problem.type is not ProblemType.RUN_ENDED:
                raise
            log.info("%s", problem.detail)
        finally:
            self._device.close()

    async def _take_part(self) -> None:
        """Join and train until the run ends. Raises StateLost where the state was lost `MAX_JOINS` times."""
        with MinerDisk(self._settings.data_dir) as disk:
            disk.check_room()
            info = await self._client.run()
            if self._run not in (None, info.run):
                raise OtherRun(f"it is {info.run[:16]}, and this process has part in {str(self._run)[:16]}")
            if self._certificate is not None:
                refuse_other_run(self._certificate, info.run)
            compiled = await self._device.run(is_compiled, torch.device(self._torch_device))
            check_dtypes(info.spec, self._torch_device)
            self._check_run(info.spec, disk, compiled=compiled)
            receipts = ReceiptLog(disk.receipts, info.run, self._hotkey)
            flops = await self._device.run(measured_flops, self._torch_device, self._threads)
            try:
                await self._live(info.spec, disk, receipts, flops, compiled=compiled)
            finally:
                receipts.close()

    async def _live(
        self, spec: RunSpec, disk: MinerDisk, receipts: ReceiptLog, flops: float, *, compiled: bool
    ) -> None:
        """One life after another, over the same links, until the run ends. Raises StateLost."""
        async with open_links(self._settings, spec, self._hotkey, self._clients) as links:
            for _ in range(MAX_JOINS):
                if await self._life(spec, disk, receipts, flops, links, compiled=compiled):
                    return
                log.warning("starting again from the run's base")
        raise StateLost(f"this replica lost its state {MAX_JOINS} times: see the log above")

    async def _life(
        self,
        spec: RunSpec,
        disk: MinerDisk,
        receipts: ReceiptLog,
        flops: float,
        links: MinerLinks | None,
        *,
        compiled: bool,
    ) -> bool:
        """One life: from a join to the run's end (True) or the loss of the replica's state (False)."""
        reply = await self._client.join(self._join_request(spec, disk, receipts, flops))
        if reply.run != spec.id:
            raise OtherRun(f"it is {reply.run[:16]}, and was {spec.id[:16]} before this miner joined")
        self._run = reply.run
        base = _reconcile(spec, reply, disk, receipts)
        await self._check_stage(spec, stage_needs(spec, reply.stage, compiled=compiled), disk)
        device, activations = self._torch_device, self._settings.activations
        async with lasting(f"making stage {reply.stage} on {device}"):
            engine = await self._device.run(
                self._make_engine, spec, reply.stage, device=device, activations=activations
            )
        runner = OpRunner(
            spec,
            reply.stage,
            self._hotkey,
            engine,
            receipts,
            disk,
            self._device_class,
            self._settings.snapshot_bytes,
        )
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        reader = ShardReader(manifest, self._objects.get_range, disk.cache, CACHE_BYTES)
        by_store = self._make_transport(spec.id, self._client, self._clients.objects)
        replica = Replica(
            reply,
            self._hotkey.ss58,
            self._client,
            self._objects,
            by_store if links is None else links.transport(by_store),
            self._device,
            runner,
            Samples(spec, reader),
            self._watch,
        )
        return await replica.live(base)

    def _check_run(self, spec: RunSpec, disk: MinerDisk, *, compiled: bool) -> None:
        """Raises ValueError if this machine can host no stage of the run: the join will say which it is."""
        check_snapshot_bound(all_needs(spec, compiled=compiled), self._settings.snapshot_bytes)
        machine = Machine.whole(disk.root, card_bytes(self._torch_device))
        _refuse(stageless(spec, machine, compiled=compiled, wanted=self._settings.activations))

    async def _check_stage(self, spec: RunSpec, needs: Needs, disk: MinerDisk) -> None:
        """Leaves the run and raises ValueError if the stage can never fit; warns if it does not just now."""
        card, wanted = card_bytes(self._torch_device), self._settings.activations
        try:
            check_snapshot_bound([needs], self._settings.snapshot_bytes)
            _refuse(stage_shortfalls(spec, needs, Machine.whole(disk.root, card), wanted))
        except ValueError:
            await self._client.leave(f"its machine has no room for stage {needs.stage}")
            raise
        for shortfall in shortfalls([needs], Machine.free(disk.root, card, disk.size()), wanted):
            log.warning("%s", shortfall)

    def _join_request(
        self, spec: RunSpec, disk: MinerDisk, receipts: ReceiptLog, flops: float
    ) -> JoinRequest:
        memory = psutil.virtual_memory().total
        return JoinRequest(
            role=Role.MINER,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=self._device_class, memory=memory, flops=flops),
            receipts=receipts.count,
            epoch=disk.newest_base(overlaps=spec.overlaps),
            certificate=self._certificate,
            session=self._session,
        )


def _refuse(reasons: list[str]) -> None:
    """Raises ValueError where there are reasons why this machine cannot host the stage."""
    if reasons:
        raise ValueError("; ".join(reasons))


def _reconcile(spec: RunSpec, reply: JoinReply, disk: MinerDisk, receipts: ReceiptLog) -> int | None:
    """Match the disk to the orchestrator's join reply.

    Returns the epoch of the base on disk to continue from; None to start from the run's base.
    """
    receipts.continue_from(reply.receipts, reply.head)
    newest = disk.newest_base(overlaps=spec.overlaps)
    if reply.resume and newest is not None:
        log.info("continuing stage %d from the base of epoch %d on disk", reply.stage, newest)
        return newest
    receipts.begin_life()
    disk.forget_state()
    # Without receipts here it is new to this run: what lies on the disk is nobody's.
    disk.forget_other_epochs(reply.open_epochs if reply.receipts else ())
    log.info("joined run %s as a replica of stage %d", reply.run[:12], reply.stage)
    return None
