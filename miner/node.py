"""The miner process: its disk, receipts and device, and one replica life after another."""

from __future__ import annotations

import logging
from typing import Final, Protocol

import psutil

from iota.client.orchestrator import OrchestratorClient
from iota.client.run_objects import RunObjects, UrlSource
from iota.compute.determinism import device_class
from iota.compute.engine import EngineFactory
from iota.data.manifest import parse_manifest
from iota.data.reader import ShardReader
from iota.data.samples import Samples
from iota.identity.keys import Hotkey
from iota.protocol.messages import PROTOCOL_VERSION, Capabilities, JoinReply, JoinRequest, Role
from iota.settings import MinerSettings
from iota.spec import RunSpec
from iota.store.transfer import ObjectClient
from iota.wire.transport import Transport
from miner.device import DeviceThread, measured_flops
from miner.disk import MinerDisk
from miner.ops import OpRunner, StateLost
from miner.receipt_log import ReceiptLog
from miner.replica import Replica

log = logging.getLogger(__name__)

MAX_JOINS: Final = 8
"""A process gives up after so many joins that each ended with a lost state."""
CACHE_BYTES: Final = 1 << 30
"""Disk for cached blocks of the data shards (1 GiB)."""


class TransportFactory(Protocol):
    """Makes the transport of one life of a replica."""

    def __call__(self, run: str, urls: UrlSource, store: ObjectClient) -> Transport: ...


class MinerNode:
    """One miner process, from its start to the end of the run.

    `device` and `threads` are the settings of these names after their defaults are resolved.
    """

    def __init__(
        self,
        settings: MinerSettings,
        device: str,
        threads: int,
        hotkey: Hotkey,
        client: OrchestratorClient,
        objects: ObjectClient,
        make_engine: EngineFactory,
        make_transport: TransportFactory,
    ) -> None:
        self._settings, self._torch_device, self._threads = settings, device, threads
        self._hotkey, self._client, self._store = hotkey, client, objects
        self._objects = RunObjects(client, objects)
        self._make_engine, self._make_transport = make_engine, make_transport
        self._device = DeviceThread()
        self._device_class = device_class(device, threads)

    async def run(self) -> None:
        """Take part until the run ends.

        Raises:
            ValueError: the operator can fix it (directory in use, snapshot budget).
            Problem, OrchestratorUnreachable: the orchestrator refuses, or does not answer.
            StateLost: the state was lost `MAX_JOINS` times.
        """
        info = await self._client.run()
        with MinerDisk(self._settings.data_dir) as disk:
            receipts = ReceiptLog(disk.receipts, info.run, self._hotkey)
            flops = await self._device.run(measured_flops, self._torch_device, self._threads)
            try:
                for _ in range(MAX_JOINS):
                    if await self._life(info.spec, disk, receipts, flops):
                        return
                    log.warning("starting again from the run's base")
                raise StateLost(f"this replica lost its state {MAX_JOINS} times: see the log above")
            finally:
                receipts.close()
                self._device.close()

    async def _life(self, spec: RunSpec, disk: MinerDisk, receipts: ReceiptLog, flops: float) -> bool:
        """One life: from a join to the run's end (True) or the loss of the replica's state (False)."""
        reply = await self._client.join(self._join_request(disk, receipts, flops))
        base = _reconcile(reply, disk, receipts)
        device, recompute = self._torch_device, self._settings.recompute
        engine = await self._device.run(
            self._make_engine, spec, reply.stage, device=device, recompute=recompute
        )
        snapshot_bytes = self._settings.snapshot_bytes
        runner = OpRunner(
            spec, reply.stage, self._hotkey, engine, receipts, disk, self._device_class, snapshot_bytes
        )
        runner.refuse_small_budget()
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        reader = ShardReader(manifest, self._objects.get_range, disk.cache, CACHE_BYTES)
        replica = Replica(
            reply,
            self._hotkey.ss58,
            self._client,
            self._objects,
            self._make_transport(spec.id, self._client, self._store),
            self._device,
            runner,
            Samples(spec, reader),
        )
        return await replica.live(base)

    def _join_request(self, disk: MinerDisk, receipts: ReceiptLog, flops: float) -> JoinRequest:
        memory = psutil.virtual_memory().total
        return JoinRequest(
            role=Role.MINER,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=self._device_class, memory=memory, flops=flops),
            receipts=receipts.count,
            epoch=disk.newest_base(),
        )


def _reconcile(reply: JoinReply, disk: MinerDisk, receipts: ReceiptLog) -> int | None:
    """Match the disk to the orchestrator's join reply.

    Returns the epoch of the base on disk to continue from; None to start from the run's base.
    """
    if reply.receipts > receipts.count:
        receipts.continue_from(reply.receipts, reply.head)
    receipts.stored(reply.receipts)
    newest = disk.newest_base()
    if reply.resume and newest is not None:
        log.info("continuing stage %d from the base of epoch %d on disk", reply.stage, newest)
        return newest
    disk.forget_state()
    log.info("joined run %s as a replica of stage %d", reply.run[:12], reply.stage)
    return None
