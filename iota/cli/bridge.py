"""`iota bridge`: a run's shared variables."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from iota.console.redaction import printable
from iota.protocol.bridge import MAX_LR_FACTOR, MIN_LR_FACTOR, ValueKind, WriteRule
from iota.settings import WALLET, NodeSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from pydantic import JsonValue

    from iota.client.bridge import BridgeClient
    from iota.protocol.bridge import Op, VariableView, WatchReply

app = typer.Typer(
    help="Variables that a run's members share (docs/bridge.md). The operator, whose key is the"
    f" orchestrator's, pauses a run by `run/paused` and lowers its learning rate by `run/lr-factor`"
    f" ({MIN_LR_FACTOR:g} to {MAX_LR_FACTOR:g}).",
    no_args_is_help=True,
)
RETRY_FOR_S: Final = 30.0
"""How long an orchestrator may be silent."""
_FLAGS: Final = ("orchestrator", "orchestrator_hotkey", *WALLET)
_T = TypeVar("_T")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A path, such as run/paused or node/HOTKEY/state.")
]
PrefixArgument = Annotated[
    str, typer.Argument(metavar="PREFIX", help="The first parts of the names; without it: of all names.")
]
RunDir = Annotated[
    Path | None,
    typer.Option(help="The folder of a run of `iota up`: its orchestrator, and the operator's key."),
]
Signed = Annotated[
    bool, typer.Option("--sign", help="Sign with the hotkey, to read what members and the operator may.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one variable or change a line.")]
Expect = Annotated[
    int | None,
    typer.Option(
        "--expect", metavar="VERSION", help="Only if the variable has this version; 0: if there is none."
    ),
]
LeaseOption = Annotated[
    int | None, typer.Option("--lease", metavar="NUMBER", help="The number that `iota bridge lock` printed.")
]


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def get(
    name: NameArgument,
    run_dir: RunDir = None,
    sign: Signed = False,
    as_json: AsJson = False,
    **flags: Any,
) -> None:
    """Print a variable's value, as JSON; with --json all about it. Exit code 1 if there is none.

    Without --sign what anyone may read: names under run/ and rights/, and what the operator's rules open.
    """
    from iota.console.command import WorkFailed

    found = _call(run_dir, flags, lambda bridge: bridge.get(name), sign=sign)
    if found is None:
        raise WorkFailed(f"there is no variable {name}{'' if sign else ', or not one that anyone may read'}")
    typer.echo(found.model_dump_json() if as_json else json.dumps(found.value))


@app.command("list", epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def list_(
    prefix: PrefixArgument = "",
    run_dir: RunDir = None,
    sign: Signed = False,
    as_json: AsJson = False,
    **flags: Any,
) -> None:
    """List the variables under a prefix: name, value, version, type, rule, owner."""
    for found in _call(run_dir, flags, lambda bridge: bridge.list(prefix), sign=sign):
        typer.echo(found.model_dump_json() if as_json else _line(found))


@app.command("set", epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def set_(
    name: NameArgument,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="JSON (true, 0.5, {...}); what is no JSON is a string.")
    ],
    run_dir: RunDir = None,
    kind: Annotated[
        ValueKind | None,
        typer.Option("--type", help="Type of a new variable; by default the value's."),
    ] = None,
    rule: Annotated[
        WriteRule | None,
        typer.Option(
            help="Of a new variable: lww takes any write, cas those with the version seen, lock those of the"
            " lease's holder. By default lww."
        ),
    ] = None,
    expect: Expect = None,
    lease: LeaseOption = None,
    ttl: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Delete it so long after this write.", min=1.0)
    ] = None,
    **flags: Any,
) -> None:
    """Set a variable, and print its new version.

    `iota bridge set run/paused true` pauses the run: steps that are planned are done, and no further ones are
    planned, until it is false. `iota bridge set run/lr-factor 0.5` halves the learning rate of the steps that
    are planned from now on. Both are the operator's: sign with the orchestrator's hotkey.
    """
    from iota.protocol.bridge import Set

    op = Set(
        name=name, value=_value(value, kind), kind=kind, rule=rule, expected=expect, lease=lease, ttl_s=ttl
    )
    typer.echo(_call(run_dir, flags, lambda bridge: bridge.write(op), sign=True))


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def delete(
    name: NameArgument,
    run_dir: RunDir = None,
    expect: Expect = None,
    lease: LeaseOption = None,
    **flags: Any,
) -> None:
    """Delete a variable. The operator may delete any that the run does not write itself."""
    from iota.protocol.bridge import Delete

    op = Delete(name=name, expected=expect, lease=lease)
    _call(run_dir, flags, lambda bridge: bridge.write(op), sign=True)


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def watch(
    prefix: PrefixArgument = "",
    run_dir: RunDir = None,
    revision: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="REVISION", help="Begin after this one; without it, with what there is."
        ),
    ] = None,
    sign: Signed = False,
    as_json: AsJson = False,
    **flags: Any,
) -> None:
    """Print each change under a prefix, until Ctrl-C: revision, what happened, name, value.

    Who notes the last revision, and begins with it the next time, misses nothing; if that is too long ago, a
    line says so, and all variables follow.
    """
    if not sign:
        from iota.cli import orchestrator_calls as calls

        url = calls.orchestrator_url(run_dir, {"orchestrator": flags.get("orchestrator")})
        _show(calls.variable_changes(url, prefix, revision), as_json=as_json)
        return

    async def follow(bridge: BridgeClient) -> None:
        async for found in bridge.watch(prefix, revision):
            _show([found], as_json=as_json)

    _call(run_dir, flags, follow, sign=True)


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def lock(
    name: NameArgument,
    run_dir: RunDir = None,
    seconds: Annotated[
        float, typer.Option("--for", metavar="SECONDS", help="How long the lease runs.", min=1.0)
    ] = 60.0,
    renew: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Let this lease run so long from now, instead.")
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Give this lease back, instead.")
    ] = None,
    **flags: Any,
) -> None:
    """Take the lease of a variable with rule lock, which is made if there is none; print the lease's number.

    While it runs, only `iota bridge set NAME VALUE --lease NUMBER` of its holder writes the variable. A later
    lease has a higher number: whoever is told both knows which holder is the older one.
    """
    from iota.protocol.bridge import Lock, Renew, Unlock

    if renew is not None and release is not None:
        raise ValueError("give --renew or --release, not both")
    op: Op = Lock(name=name, lease_s=seconds)
    if renew is not None:
        op = Renew(name=name, lease=renew, lease_s=seconds)
    if release is not None:
        op = Unlock(name=name, lease=release)
    number = _call(run_dir, flags, lambda bridge: bridge.write(op), sign=True)
    if isinstance(op, Lock):
        typer.echo(number)


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=_FLAGS)
def txn(
    operations: Annotated[
        list[str],
        typer.Argument(
            metavar="OPERATION...",
            help='Each as JSON: {"op": "set", "name": "a", "value": 1, "expected": 7}, and so "delete",'
            ' "check" (name, expected), "lock", "renew" and "unlock": docs/bridge.md has their fields.',
        ),
    ],
    run_dir: RunDir = None,
    **flags: Any,
) -> None:
    """Do several operations on different variables together, or none of them; print the write's revision."""
    from pydantic import TypeAdapter, ValidationError

    from iota.protocol.bridge import Op, WriteRequest
    from iota.settings.sentences import sentence

    adapter: TypeAdapter[Op] = TypeAdapter(Op)
    try:
        ops = tuple(adapter.validate_json(text) for text in operations)
        WriteRequest(request="0" * 32, ops=ops)
    except ValidationError as error:
        raise ValueError(f"these operations are none: {sentence(error)}") from None
    typer.echo(_call(run_dir, flags, lambda bridge: bridge.write(*ops), sign=True))


def _call(
    run_dir: Path | None,
    flags: dict[str, Any],
    call: Callable[[BridgeClient], Awaitable[_T]],
    *,
    sign: bool,
) -> _T:
    """Make a call, signed by the wallet's hotkey, or by the operator's of a run of `iota up`, or unsigned."""
    import asyncio

    from iota.cli import orchestrator_calls as calls
    from iota.client.bridge import BridgeClient
    from iota.client.orchestrator import OrchestratorClient
    from iota.identity.keys import load_hotkey

    url = calls.orchestrator_url(run_dir, {"orchestrator": flags.get("orchestrator")})
    settings = NodeSettings.load(**flags)
    wallet: tuple[str, str, Path] = (settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    if run_dir is not None:
        from iota.swarm.preparation import ORCHESTRATOR, WALLET

        wallet = WALLET, ORCHESTRATOR, run_dir / "wallets"
    hotkey = load_hotkey(*wallet) if sign else None

    async def connected() -> _T:
        async with OrchestratorClient(
            hotkey, url, settings.orchestrator_hotkey, retry_for_s=RETRY_FOR_S
        ) as client:
            return await call(BridgeClient(client, signed=sign))

    return asyncio.run(connected())


def _value(text: str, kind: ValueKind | None) -> JsonValue:
    """The value of a command line: a string where that is its type, or where it is no JSON."""
    if kind is ValueKind.STR:
        return text
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        if kind is not None:
            raise ValueError(f"{text} is no {kind.value}: give JSON") from None
        return text
    return value


def _show(found: Iterable[WatchReply], *, as_json: bool) -> None:
    for reply in found:
        if as_json:
            for change in reply.changes:
                typer.echo(change.model_dump_json())
            continue
        if reply.snapshot:
            typer.echo(f"{reply.revision} all there is:")
        for change in reply.changes:
            line = printable(change.name) if change.variable is None else _line(change.variable)
            typer.echo(f"{change.revision} {change.kind} {line}")


def _line(found: VariableView) -> str:
    """A variable in one line, whatever it holds."""
    held = "" if found.lease is None else f", held by {found.lease.holder} with lease {found.lease.number}"
    about = f"version {found.version}, {found.kind}, {found.rule}, of {found.owner}{held}"
    return printable(f"{found.name} = {json.dumps(found.value)}  ({about})")
