"""`iota explain`: what a run has on record about one member, and what to do about it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from iota.console.counts import counted
from iota.settings import WALLET, NodeSettings
from iota.settings.flags import SOURCES, with_flags

app = typer.Typer()
_ALPHABET = frozenset("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
"""Of ss58 addresses."""
_MAX_WORKERS = 256
"""Records of an owner's workers that are read, one by one."""


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator", *WALLET))
def explain(
    hotkey: Annotated[
        str,
        typer.Argument(
            metavar="HOTKEY",
            help="The member, or an owner of workers: its hotkey, the first characters of it, or the hotkey's"
            " name in the wallet or in the run's folder.",
        ),
    ],
    run_dir: Annotated[Path | None, typer.Option(help="The folder of a run of `iota up`, instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    **flags: Any,
) -> None:
    """Say what a run has on record about a member: work, timeliness, audits, weight, why it is idle.

    Of a hotkey that has workers (`iota-miner certify`): these, and what it is paid for: the audits of them
    all, pay by epoch, its weight, and when its bans end. Numbers of 8 epochs are shown; --json has all kept.
    Reads the orchestrator's public record; of a run of `iota up` that has ended or stands still, its journal.
    """
    from iota.cli import orchestrator_calls as calls
    from iota.swarm.ended import how_it_ended, replayed
    from iota.swarm.explanation import explain as explained
    from iota.swarm.owner_explanation import workers_of
    from iota.swarm.run_dir import member_names

    url = calls.orchestrator_url(run_dir, {"orchestrator": flags.get("orchestrator")})
    names = member_names(run_dir)
    address = _address(hotkey, names, NodeSettings.load(**flags))
    ended: list[str] = []
    coordinator = None
    try:
        found = calls.member(url, address)
        works_alone = found is not None and found.owner != found.hotkey
        rows = [] if works_alone else calls.status(url)["members"]
    except calls.NoOrchestrator:
        if run_dir is None:
            raise
        coordinator = replayed(run_dir)
        ended = [how_it_ended(coordinator.status(), run_dir)]
        rows = coordinator.status()["members"]
        whole = [member for member in coordinator.members if member.startswith(address)]
        found = coordinator.member_record(whole[0]) if len(whole) == 1 else None
    owners = {row["owner"] for row in rows if row["owner"].startswith(address)}
    owner = found.hotkey if found is not None else owners.pop() if len(owners) == 1 else ""
    own = [row["hotkey"] for row in rows if row["owner"] == owner]
    if found is None and not own:
        raise ValueError(_unknown(hotkey, address, [row["hotkey"] for row in rows], names))
    records = []
    if own != [owner]:  # it has workers: what it is paid for stands in their records
        read = partial(calls.member, url) if coordinator is None else coordinator.member_record
        records = [record for record in map(read, own[:_MAX_WORKERS]) if record is not None]
    workers = workers_of(owner, rows, names, records)
    if as_json:
        shown = {"owner": owner, "workers": [row for row in rows if row["owner"] == owner]}
        if records:
            shown["charged"] = [charge.model_dump(mode="json") for charge in records[0].charged]
            shown["records"] = [record.model_dump(mode="json") for record in records]
        typer.echo(json.dumps(shown if found is None else found.model_dump(mode="json")))
    else:
        told = [] if found is None else explained(found, names)
        left = len(own) - _MAX_WORKERS
        cut = [f"pay and audits are without {counted(left, 'further worker')}"] if left > 0 else []
        typer.echo("\n".join([*told, *([""] if told and workers else []), *workers, *cut, *ended]))


def _address(given: str, names: dict[str, str], settings: NodeSettings) -> str:
    """The hotkey, or the beginning of one, that `given` means. Raises ValueError where it can be none."""
    from iota.identity.keys import hotkey_path, load_hotkey

    text = given.strip().rstrip("….")
    by_name = {name: address for address, name in names.items()}
    if text in by_name:
        return by_name[text]
    if "/" not in text and hotkey_path(settings.wallet_name, text, settings.wallet_path).is_file():
        return load_hotkey(settings.wallet_name, text, settings.wallet_path).ss58
    if len(text) < 4 or not set(text) <= _ALPHABET:
        known = f"; the run's folder has {', '.join(sorted(by_name))}" if by_name else ""
        raise ValueError(
            f"{given!r} is no hotkey, and wallet {settings.wallet_name!r} has no hotkey of that name{known}:"
            " give the address, or its first 4 characters or more"
        )
    return text


def _unknown(given: str, address: str, members: list[str], names: dict[str, str]) -> str:
    from difflib import get_close_matches

    several = [member for member in members if member.startswith(address)]
    beginnings = {member[: len(address)]: member for member in members}
    near = several or [beginnings[n] for n in get_close_matches(address, beginnings, n=3, cutoff=0.5)]
    by_name = {name: member for member, name in names.items()}
    near += [by_name[n] for n in get_close_matches(given, by_name, n=2, cutoff=0.6)]
    shown = ", ".join(f"{m} ({names[m]})" if m in names else m for m in near[:3])
    what = "is the beginning of several members" if several else "is no member of this run"
    if shown:
        return f"{given} {what}: did you mean {shown}?"
    return f"{given} {what}, which has {counted(len(members), 'member')}: `iota status` shows them"
