"""`iota chain`: reads a subnet directly from the chain, without an orchestrator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from iota.console.counts import counted
from iota.console.settings_command import settings_command
from iota.settings import CHAIN, WALLET, ChainSettings

if TYPE_CHECKING:
    from rich.table import Table

    from iota.chain import Chain, EpochStatus, Subnet, WeightsRow
    from iota.identity.keys import Hotkey

app = typer.Typer(
    help="A subnet as the chain has it: neurons, weights, commitments; and where a hotkey is reached.",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
T = TypeVar("T")
_PIPE_COLUMNS = 160
"""Wide enough for a row of the table of neurons."""


@settings_command(app, ChainSettings, only=CHAIN)
def show(settings: ChainSettings, as_json: AsJson = False) -> None:
    """Show the subnet and its neurons at the newest finalized block."""

    async def read(chain: Chain) -> tuple[Subnet, EpochStatus]:
        return await chain.subnet(settings.netuid), await chain.epoch_status(settings.netuid)

    subnet, epoch = _with_chain(settings, read)
    if as_json:
        _print_json({"subnet": subnet, "epoch": epoch})
        return
    weights = "hidden until revealed" if subnet.commit_reveal else "public at once"
    _print(
        f"subnet {subnet.netuid} at finalized block {subnet.block.number}: {len(subnet.neurons)} of"
        f" {counted(subnet.max_uids, 'uid')}, owner uid {subnet.owner_uid}\n"
        f"epoch {epoch.index} of {counted(epoch.tempo, 'block')} ends at block {epoch.next_epoch_block},"
        f" in about {epoch.seconds_remaining:.0f} s\n"
        f"weights: every {counted(subnet.weights_rate_limit, 'block')} at most, {weights}, version"
        f" {subnet.weights_version}, activity cut-off {counted(subnet.activity_cutoff, 'block')}"
    )
    _print(_neurons(subnet))


@settings_command(app, ChainSettings, only=CHAIN)
def weights(settings: ChainSettings, as_json: AsJson = False) -> None:
    """Show the weights that are in force, validator by validator."""

    async def read(chain: Chain) -> tuple[WeightsRow, ...]:
        return await chain.weights(settings.netuid)

    rows = _with_chain(settings, read)
    if as_json:
        _print_json(rows)
        return
    if not rows:
        _print(f"no validator of subnet {settings.netuid} has weights in force")
    for row in rows:
        shares = ", ".join(f"{uid}: {w / sum(row.weights.values()):.4f}" for uid, w in row.weights.items())
        _print(f"uid {row.uid} {row.hotkey}, set in block {row.block}: {shares}")


@settings_command(app, ChainSettings, only=CHAIN)
def commitment(
    settings: ChainSettings,
    hotkey: Annotated[str, typer.Argument(metavar="HOTKEY", help="The address of the hotkey.")],
    at_block: Annotated[int | None, typer.Option(help="As it stood after this block.", min=0)] = None,
) -> None:
    """Print the bytes that a hotkey committed, in hex, with their block."""
    found = _with_chain(settings, lambda chain: chain.commitment(settings.netuid, hotkey, at_block))
    if found is None:
        raise ValueError(f"{hotkey} has committed nothing on subnet {settings.netuid}")
    typer.echo(f"{found.block} {found.data.hex()}")


@settings_command(app, ChainSettings, only=(*WALLET, *CHAIN))
def serve(
    settings: ChainSettings,
    ip: Annotated[str, typer.Argument(metavar="IP", help="The address that others reach this machine by.")],
    port: Annotated[int, typer.Argument(metavar="PORT", help="The port.", min=1, max=65535)],
) -> None:
    """Publish where the hotkey can be reached. IOTA's nodes need no such entry: they listen on no port."""
    from iota.identity.keys import load_hotkey

    key = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    result = _with_chain(settings, lambda chain: chain.serve(settings.netuid, ip, port), key).check()
    typer.echo(f"block {result.block}: {key.ss58} is at {ip} port {port}")


def _with_chain(
    settings: ChainSettings, work: Callable[[Chain], Awaitable[T]], key: Hotkey | None = None
) -> T:
    """Run `work` on a connection to the settings' chain, with which `key` can write."""
    import asyncio

    from iota.chain import open_chain

    async def run() -> T:
        async with open_chain(settings.chain, key) as chain:
            return await work(chain)

    return asyncio.run(run())


def _neurons(subnet: Subnet) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in ("uid", "stake", "permit", "incentive", "dividends", "last weights", "reached at"):
        table.add_column(name, justify="right")
    table.add_column("hotkey", no_wrap=True)
    for n in subnet.neurons:
        axon = "" if n.axon is None else f"{n.axon.ip}:{n.axon.port}"
        permit = "yes" if n.validator_permit else ""
        ago = f"{counted(subnet.block.number - n.last_update, 'block')} ago"
        row = (n.uid, f"{n.stake:,.2f}", permit, f"{n.incentive:.4f}", f"{n.dividends:.4f}", ago, axon)
        table.add_row(*map(str, row), n.hotkey)
    return table


def _print(content: str | Table) -> None:
    import sys

    from rich.console import Console

    # rich would fold rows at 80 columns where stdout is no terminal.
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    Console(width=width, highlight=False).print(content, soft_wrap=isinstance(content, str))


def _print_json(value: object) -> None:
    from pydantic_core import to_json

    typer.echo(to_json(value, indent=2).decode())
