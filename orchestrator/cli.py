"""`iota-orchestrator`: plan and record one run."""

from __future__ import annotations

import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:  # imported where used, so that --help is fast
    from iota.protocol.keys import Hotkey
    from iota.spec import RunSpec
    from orchestrator.server.membership import AllowList

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_log = logging.getLogger(__name__)


@app.callback()
def _root() -> None:
    """Plan and record one training run."""


@app.command()
def start(
    spec: Annotated[Path, typer.Option(help="The run's spec, JSON.")],
    journal: Annotated[Path, typer.Option(help="The run's journal; created if it is not there.")],
    store: Annotated[
        str, typer.Option(help="Object store: http://HOST:PORT (embedded) or s3://BUCKET/PREFIX.")
    ],
    manifest: Annotated[Path, typer.Option(help="Manifest of the tokenized data, JSON.")],
    store_secret_file: Annotated[
        Path | None, typer.Option(help="File with the embedded store's secret.")
    ] = None,
    store_public_url: Annotated[
        str | None, typer.Option(help="What nodes reach the embedded store by, if not --store.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8400,
    wallet_name: Annotated[str, typer.Option("--wallet.name", "--wallet-name")] = "default",
    wallet_hotkey: Annotated[str, typer.Option("--wallet.hotkey", "--wallet-hotkey")] = "default",
    wallet_path: Annotated[str, typer.Option("--wallet.path", "--wallet-path")] = "~/.bittensor/wallets",
    network: Annotated[
        str, typer.Option("--network", "--subtensor.network", "--subtensor-network", help="The chain.")
    ] = "finney",
    netuid: Annotated[int, typer.Option(help="The subnet.")] = 9,
    allow: Annotated[
        Path | None, typer.Option(help="Hotkeys that may take part, one a line, in place of the metagraph.")
    ] = None,
    silence: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a word after which a node is lost.")
    ] = 15.0,
    head_poll: Annotated[float, typer.Option(min=0.01, help="Seconds between looks at the chain.")] = 6.0,
) -> None:
    """Start the orchestrator of a run, or go on from its journal."""
    import asyncio

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run_spec = _load_spec(spec)
        allowed = _load_allow(allow)
        manifest_bytes = _load_manifest(manifest, run_spec)
        secret = _load_secret(store_secret_file)
        hotkey = _load_hotkey(wallet_name, wallet_hotkey, wallet_path)
        asyncio.run(
            _start(
                run_spec, hotkey, journal, store, secret, store_public_url, manifest_bytes, allowed,
                network, netuid, host, port, silence, head_poll,
            )
        )  # fmt: skip
    except ValueError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


async def _start(
    spec: RunSpec,
    hotkey: Hotkey,
    journal_path: Path,
    store_url: str,
    secret: bytes | None,
    store_public_url: str | None,
    manifest: bytes,
    allowed: AllowList | None,
    network: str,
    netuid: int,
    host: str,
    port: int,
    silence_s: float,
    head_poll_s: float,
) -> None:
    from iota.chain import ChainError, open_chain
    from iota.store import open_store
    from orchestrator.coordinator import Coordinator
    from orchestrator.journal import SqliteJournal
    from orchestrator.server.app import Deps
    from orchestrator.server.limits import ServerLimits
    from orchestrator.server.membership import AllowList, Metagraph
    from orchestrator.server.run import serve

    async with AsyncExitStack() as stack:
        journal = SqliteJournal(journal_path, spec, hotkey.ss58)
        stack.callback(journal.close)
        store = open_store(store_url, secret, public_url=store_public_url)
        stack.push_async_callback(store.close)
        chain = await stack.enter_async_context(open_chain(network))
        is_member: AllowList | Metagraph
        if allowed is None:
            is_member = Metagraph(chain, netuid)
            try:
                await is_member.refresh()
            except (ChainError, TimeoutError) as error:
                raise ValueError(
                    f"subnet {netuid} on {network} cannot be read ({error or 'no answer'}):"
                    " check --network and --netuid, or give --allow FILE"
                ) from error
        else:
            is_member = allowed
        deps = Deps(
            hotkey=hotkey,
            coordinator=Coordinator(spec),
            journal=journal,
            store=store,
            chain=chain,
            is_member=is_member,
            also=() if isinstance(is_member, AllowList) else (is_member.follow,),
            manifest=manifest,
            limits=ServerLimits(silence_s=silence_s),
            head_poll_s=head_poll_s,
        )
        await serve(deps, host, port, started=lambda bound: _announce(spec, hotkey, host, bound))


def _announce(spec: RunSpec, hotkey: Hotkey, host: str, port: int) -> None:
    print(f"run {spec.id} orchestrated by {hotkey.ss58} on http://{host}:{port}", flush=True)


def _load_spec(path: Path) -> RunSpec:
    from pydantic import ValidationError

    from iota.spec import RunSpec

    try:
        return RunSpec.load(path)
    except OSError as error:
        raise ValueError(f"the spec {path} cannot be read ({error.strerror}): give --spec FILE") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"the spec {path} is wrong at {where}: {first['msg']}") from None


def _load_manifest(path: Path, spec: RunSpec) -> bytes:
    import json

    from blake3 import blake3

    from iota.spec import canonical_json

    try:
        data = path.read_bytes()
        found = blake3(canonical_json(json.loads(data))).hexdigest()
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


def _load_allow(path: Path | None) -> AllowList | None:
    from orchestrator.server.membership import AllowList

    return None if path is None else AllowList.load(path)


def _load_secret(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes().strip()
    except OSError as error:
        raise ValueError(
            f"the store's secret {path} cannot be read ({error.strerror}): give --store-secret-file FILE"
        ) from None


def _load_hotkey(name: str, hotkey: str, path: str) -> Hotkey:
    from iota.protocol.keys import load_hotkey

    return load_hotkey(name, hotkey, path)


def _refuse(sentence: str) -> NoReturn:
    print(f"iota-orchestrator: {sentence}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """The `iota-orchestrator` command."""
    app()


if __name__ == "__main__":
    main()
