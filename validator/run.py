"""Runs a validator from its settings until the run ends or a signal stops it."""

from __future__ import annotations

import logging
import os

import torch

from iota.chain import open_chain
from iota.client.node_clients import open_clients
from iota.compute.determinism import device_class
from iota.compute.devices import resolve_device
from iota.console.redaction import without_secrets
from iota.console.signals import run_until_stopped
from iota.console.version import versions_line
from iota.console.watch import Watch
from iota.identity.hotkey_lock import hold_hotkey
from iota.identity.keys import load_hotkey
from iota.settings import ValidatorSettings
from validator.audits.measured import read_profiles
from validator.audits.replay import ReplayOptions
from validator.node import ValidatorNode, ValidatorOptions

log = logging.getLogger(__name__)


async def validate(settings: ValidatorSettings, watch: Watch | None = None) -> None:
    """Validate until the run ends, SIGINT or SIGTERM. Tests give a faster `watch`.

    Raises ValueError for what the operator can fix, ConditionStands for what did not pass by its end.
    """
    watch = watch or Watch()
    device = resolve_device(settings.device)
    cores = os.cpu_count() or 1
    threads = settings.threads or 1
    torch.set_num_threads(threads)
    options = ValidatorOptions(
        data_dir=settings.data_dir,
        compute_share=settings.compute_share,
        replay=ReplayOptions(
            device=device,
            threads=threads,
            max_threads=max(cores, threads),
            profiles=None if settings.profiles is None else read_profiles(settings.profiles),
        ),
    )
    wallet = (settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    hotkey = load_hotkey(*wallet)
    with hold_hotkey(*wallet):
        async with (
            open_clients(settings, hotkey, watch) as (client, objects, *_),
            open_chain(settings.chain, hotkey) as chain,
        ):
            validator = ValidatorNode(options, hotkey, client, objects, chain, settings.netuid, watch)
            log.info("validator %s: %s", hotkey.ss58, versions_line())
            log.info("it replays on %s", device_class(device, threads))
            log.info("asking %s for its run", without_secrets(settings.orchestrator))
            if not await run_until_stopped(validator.run()):
                log.info("stopped; start again with the same data directory to go on")
