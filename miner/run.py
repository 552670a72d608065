"""Runs a miner from its settings until the run ends or a signal stops it."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from iota.client.node_clients import open_clients
from iota.compute.devices import resolve_device
from iota.compute.engine import Engine, EngineFactory
from iota.console.redaction import without_secrets
from iota.console.signals import run_until_stopped
from iota.console.version import versions_line
from iota.console.watch import Watch
from iota.identity.hotkey_lock import hold_hotkey, hold_key_file
from iota.identity.keys import Hotkey, load_hotkey
from iota.identity.worker_file import load_worker
from iota.protocol.workers import Certificate
from iota.settings import MinerSettings
from iota.wire.store_transport import StoreTransport
from miner.node import MinerNode, TransportFactory

log = logging.getLogger(__name__)


async def mine(
    settings: MinerSettings,
    make_engine: EngineFactory = Engine,
    make_transport: TransportFactory = StoreTransport,
    watch: Watch | None = None,
) -> None:
    """Mine until the run ends, SIGINT or SIGTERM.

    `make_engine`, `make_transport` and `watch` are the seams where tests and other transports go in. Raises
    ValueError for what the operator can fix, ConditionStands for what did not pass by its end.
    """
    watch = watch or Watch()
    device = resolve_device(settings.device)
    threads = settings.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    # A full collection that looks at all modules stops the event loop for 100 ms and more.
    gc.collect()
    gc.freeze()
    with _identity(settings) as (hotkey, certificate):
        file = f"by {settings.worker} and no wallet"
        by = "" if certificate is None else f", a worker of {certificate.owner} {file}"
        log.info("miner %s%s: %s", hotkey.ss58, by, versions_line())
        log.info("asking %s for its run", without_secrets(settings.orchestrator))
        async with open_clients(settings, hotkey, watch, settings.max_upload) as clients:
            miner = MinerNode(
                settings,
                device,
                threads,
                hotkey,
                clients,
                make_engine,
                make_transport,
                watch,
                certificate,
            )
            if not await run_until_stopped(miner.run()):
                log.info("stopped; start again with the same data directory to go on")


@contextmanager
def _identity(settings: MinerSettings) -> Iterator[tuple[Hotkey, Certificate | None]]:
    """The key to mine with, held against other processes, and its certificate if it is a worker's."""
    if settings.worker is not None:
        worker = load_worker(settings.worker)
        with hold_key_file(settings.worker, f"the worker file {settings.worker}", "give this one another"):
            yield worker.key, worker.certificate
        return
    wallet = (settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    hotkey = load_hotkey(*wallet)
    with hold_hotkey(*wallet):
        yield hotkey, None
