"""Builds an orchestrator from its settings and serves until it is stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import ValidationError

from iota.chain import BadInput, open_chain
from iota.codec.shapes import boundary_width
from iota.console.redaction import without_secrets
from iota.console.version import versions_line
from iota.console.watch import Watch
from iota.data.manifest import DataError, Manifest, parse_manifest
from iota.data.passes import check_data, check_passes
from iota.http.server import check_port
from iota.identity.keys import load_hotkey
from iota.objects import largest_object, start_key
from iota.protocol.records import START_RECORDS, BaseRecord
from iota.settings import OrchestratorSettings
from iota.settings.spec_file import read_spec
from iota.spec import RunSpec
from iota.store import ObjectMissing, ObjectStore, open_store
from iota.store.secret import load_secret
from orchestrator.coordinator import Coordinator
from orchestrator.garbage import collect_now_and_then, settle
from orchestrator.http.admission import Admission, AllowList
from orchestrator.http.app import Deps
from orchestrator.http.background import watch_store
from orchestrator.http.limits import ServerLimits
from orchestrator.http.metagraph import Metagraph
from orchestrator.http.serving import serve
from orchestrator.journal import SqliteJournal
from orchestrator.store_check import check_store

_log = logging.getLogger(__name__)


async def orchestrate(settings: OrchestratorSettings, scale: float = 1.0) -> None:
    """Start the run that the settings' spec describes, or resume it from its journal; serve until a signal.

    A full disk, or a chain or store that is away, is waited for; `scale` is a factor on those pauses, for
    tests. Raises ValueError for a mistake in the settings or files, with a message that says how to correct
    it.
    """
    watch = Watch(scale=scale)
    await watch.persevere(lambda: _orchestrate(settings, scale, watch))


async def _orchestrate(settings: OrchestratorSettings, scale: float, watch: Watch) -> None:
    spec = read_spec(_needed(settings.spec, "--spec"))
    boundary_width(spec)  # raises for a codec that is unknown, or does not fit the model
    manifest, described = _load_manifest(_needed(settings.manifest, "--manifest"), spec)
    check_data(spec, described)
    passes = check_passes(spec, described, settings.max_passes)
    journal_path = _needed(settings.journal, "--journal")
    hotkey = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    _log.info("orchestrator %s: %s", hotkey.ss58, versions_line())
    await check_port(settings.host, settings.port)  # a start that is refused leaves no new journal behind
    async with AsyncExitStack() as stack:
        file = settings.store_secret_file
        store = open_store(
            settings.store, load_secret(file) if file else None, public_url=settings.store_public_url
        )
        stack.push_async_callback(store.close)
        await check_store(store)
        refuse_large_objects(spec, store)
        start = await _start(spec, store)
        journal = SqliteJournal(journal_path, spec, hotkey.ss58)
        stack.callback(journal.close)
        coordinator = Coordinator(spec, start=start)
        journal.keep_start(start)
        chain = await stack.enter_async_context(open_chain(settings.chain))
        extra_tasks: list[Callable[[], Coroutine[None, None, None]]] = [
            lambda: watch_store(store, spec.data.manifest, scale),
            collect_now_and_then,
        ]
        if settings.allow is None:
            file = journal_path.with_name(f"{journal_path.name}.metagraph.json")
            metagraph = Metagraph(chain, settings.netuid, file, settings.chain, scale=scale)
            try:
                await metagraph.start()
            except BadInput as error:
                chain_name = without_secrets(settings.chain)
                raise ValueError(
                    f"{error} ({chain_name}): check --network and --netuid, or give --allow FILE"
                ) from error
            admission = Admission(metagraph, metagraph.standing, metagraph.reread)
            extra_tasks.append(metagraph.follow)
        else:
            allowed = AllowList.load(settings.allow)
            admission = Admission(allowed, allowed.standing)
        deps = Deps(
            hotkey=hotkey,
            coordinator=coordinator,
            journal=journal,
            store=store,
            chain=chain,
            admission=admission,
            extra_tasks=extra_tasks,
            manifest=manifest,
            limits=ServerLimits(
                silence_s=settings.silence,
                workers=settings.max_workers,
                url_s=min(ServerLimits.url_s, store.max_expiry_s),
            ),
            head_poll_s=settings.head_poll,
            scale=scale,
        )

        def started(url: str) -> None:
            watch.passed()
            settle()
            print(f"run {spec.id} orchestrated by {hotkey.ss58} on {url}\n{passes}", flush=True)

        await serve(deps, settings.host, settings.port, started)


def refuse_large_objects(spec: RunSpec, store: ObjectStore) -> None:
    """Raise ValueError if the store cannot hold the largest object of the run, a snapshot in most."""
    needed, most = largest_object(spec), store.max_object
    if needed > most:
        raise ValueError(
            f"objects of this run have up to {needed / 2**30:.1f} GiB (a snapshot of a stage's weights and"
            f" moments), and one of this store at most {most / 2**30:.0f} GiB: cut the model into more"
            " stages, or use the embedded store"
        )


async def _start(spec: RunSpec, store: ObjectStore) -> tuple[BaseRecord, ...]:
    """The records of base 0 in the store, where the run starts from existing weights. Raises ValueError."""
    if spec.init is None:
        return ()
    try:
        return START_RECORDS.validate_json(await store.get(start_key(spec.id)))
    except (ObjectMissing, ValidationError):
        raise ValueError(
            f"the store has no start weights of run {spec.id[:12]} ({spec.init.source}): make spec and"
            " weights anew with `iota spec --init` or `--from` into this store"
        ) from None


def _needed(path: Path | None, flag: str) -> Path:
    if path is None:
        raise ValueError(f"{flag} FILE is needed: see iota-orchestrator start --help")
    return path


def _load_manifest(path: Path, spec: RunSpec) -> tuple[bytes, Manifest]:
    """The file's bytes and what they say, if they are the manifest that the spec names. Raises ValueError."""
    try:
        data = path.read_bytes()
        return data, parse_manifest(data, spec.data.manifest)
    except OSError as error:
        raise ValueError(
            f"the manifest {path} cannot be read ({error.strerror}): make one with `iota data prepare`"
        ) from None
    except DataError as error:
        named = f"the manifest {spec.data.manifest}, which the spec names"
        raise ValueError(f"{path}: {error}: give {named} and `iota data prepare` wrote") from None
