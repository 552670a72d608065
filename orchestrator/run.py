"""Builds an orchestrator from its settings and serves until it is stopped."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from iota.chain import ChainError, open_chain
from iota.codec.shapes import boundary_width
from iota.console.redaction import without_secrets
from iota.console.version import versions_line
from iota.identity.keys import Hotkey, load_hotkey
from iota.settings import OrchestratorSettings
from iota.settings.spec_file import read_spec
from iota.spec import RunSpec, json_digest
from iota.store import open_store
from iota.store.secret import load_secret
from orchestrator.coordinator import Coordinator
from orchestrator.http.admission import Admission, AllowList
from orchestrator.http.app import Deps
from orchestrator.http.limits import ServerLimits
from orchestrator.http.metagraph import Metagraph
from orchestrator.http.serving import serve
from orchestrator.journal import SqliteJournal

_log = logging.getLogger(__name__)


async def orchestrate(settings: OrchestratorSettings) -> None:
    """Start the run that the settings' spec describes, or resume it from its journal; serve until a signal.

    Raises ValueError for a mistake in the settings or files, with a message that says how to correct it.
    """
    spec = read_spec(_needed(settings.spec, "--spec"))
    boundary_width(spec)  # raises for a codec that is unknown, or does not fit the model
    manifest = _load_manifest(_needed(settings.manifest, "--manifest"), spec)
    journal_path = _needed(settings.journal, "--journal")
    hotkey = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    _log.info("orchestrator %s: %s", hotkey.ss58, versions_line())
    async with AsyncExitStack() as stack:
        journal = SqliteJournal(journal_path, spec, hotkey.ss58)
        stack.callback(journal.close)
        file = settings.store_secret_file
        store = open_store(
            settings.store, load_secret(file) if file else None, public_url=settings.store_public_url
        )
        stack.push_async_callback(store.close)
        chain = await stack.enter_async_context(open_chain(settings.chain))
        if settings.allow is None:
            file = journal_path.with_name(f"{journal_path.name}.metagraph.json")
            metagraph = Metagraph(chain, settings.netuid, file, settings.chain)
            try:
                await metagraph.start()
            except (ChainError, TimeoutError) as error:
                place = f"subnet {settings.netuid} on {without_secrets(settings.chain)}"
                raise ValueError(
                    f"{place} cannot be read ({error or 'no answer'}):"
                    " check --network and --netuid, or give --allow FILE"
                ) from error
            admission = Admission(metagraph, metagraph.reread)
            extra_tasks = [metagraph.follow]
        else:
            admission, extra_tasks = Admission(AllowList.load(settings.allow)), []
        deps = Deps(
            hotkey=hotkey,
            coordinator=Coordinator(spec),
            journal=journal,
            store=store,
            chain=chain,
            admission=admission,
            extra_tasks=extra_tasks,
            manifest=manifest,
            limits=ServerLimits(silence_s=settings.silence),
            head_poll_s=settings.head_poll,
        )
        await serve(
            deps,
            settings.host,
            settings.port,
            started=lambda bound: _announce(spec, hotkey, settings.host, bound),
        )


def _needed(path: Path | None, flag: str) -> Path:
    if path is None:
        raise ValueError(f"{flag} FILE is needed: see iota-orchestrator start --help")
    return path


def _announce(spec: RunSpec, hotkey: Hotkey, host: str, port: int) -> None:
    print(f"run {spec.id} orchestrated by {hotkey.ss58} on http://{host}:{port}", flush=True)


def _load_manifest(path: Path, spec: RunSpec) -> bytes:
    """The file's bytes, if they are the manifest that the spec names. Raises ValueError."""
    try:
        data = path.read_bytes()
        found = json_digest(json.loads(data))
    except OSError as error:
        raise ValueError(
            f"the manifest {path} cannot be read ({error.strerror}): make one with `iota data prepare`"
        ) from None
    except ValueError:
        raise ValueError(f"the manifest {path} is not JSON: give what `iota data prepare` wrote") from None
    if found != spec.data.manifest:
        raise ValueError(
            f"{path} is the manifest {found}, and the spec names {spec.data.manifest}: give that one"
        )
    return data
