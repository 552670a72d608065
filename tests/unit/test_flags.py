"""`--help` says where each value comes from, and a new setting needs no other place than its own line."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import iota.cli.chain
import iota.cli.doctor
import iota.cli.status
import iota.cli.store
import iota.cli.wallet
import miner.cli
import orchestrator.cli
import validator.cli
from iota.cli.main import build
from iota.console.settings_command import settings_command
from iota.settings import (
    ByteCount,
    ChainSettings,
    MinerSettings,
    OrchestratorSettings,
    Settings,
    StoreSettings,
    ValidatorSettings,
    WalletSettings,
    setting,
    settings_of,
)
from iota.settings.docs_page import docs_page
from iota.settings.env_example import env_example
from iota.settings.flags import SOURCES
from iota.swarm.options import RunOptions, SwarmOptions, UpOptions

COMMANDS: list[tuple[typer.Typer, type[Settings]]] = [
    (miner.cli.app, MinerSettings),
    (validator.cli.app, ValidatorSettings),
    (iota.cli.wallet.app, WalletSettings),
    (iota.cli.doctor.app, MinerSettings),
    (iota.cli.chain.app, ChainSettings),
    (iota.cli.status.app, MinerSettings),
    (iota.cli.store.app, StoreSettings),
    (orchestrator.cli.app, OrchestratorSettings),
]
OTHERS: dict[object, type[Settings]] = {"check": OrchestratorSettings}
"""Commands of a group with other settings than the group's, by name."""
HELPED = [
    (command, OTHERS.get(name, settings))
    for app, settings in COMMANDS
    for name, command in getattr(
        typer.main.get_command(app), "commands", {"": typer.main.get_command(app)}
    ).items()
    if name != "calibrate"  # it has no settings
]


@pytest.mark.parametrize("name", ["explain", "audit", "chain", "data"])
def test_what_a_command_wants_is_named_in_capitals(name: str) -> None:
    command = typer.main.get_command(importlib.import_module(f"iota.cli.{name}").app)
    for each in getattr(command, "commands", {name: command}).values():
        for given in each.params:
            assert given.param_type_name == "option" or given.metavar == str(given.metavar).upper()


@pytest.mark.parametrize(
    ("command", "settings"), HELPED, ids=lambda value: getattr(value, "name", None) or ""
)
def test_the_help_of_a_flag_names_its_variables_and_its_default(
    command: object, settings: type[Settings]
) -> None:
    assert getattr(command, "epilog") == SOURCES  # noqa: B009 - click's own types are not exported
    declared = {s.name: s for s in settings_of(settings)}
    seen = set()
    for option in getattr(command, "params"):  # noqa: B009
        s = declared.get(option.name)
        if s is None:
            assert "env" not in (getattr(option, "help", None) or "")
            continue
        text, _, sources = option.help.rpartition("  (env ")
        # A narrow terminal cuts the column of flags, so the text names the other spellings too.
        also = f"  Also {', '.join(s.flags[1:])}." if len(s.flags) > 1 else ""
        assert (text, tuple(option.opts)) == (f"{s.help}{also}", s.flags)
        names, _, default = sources.removesuffix(")").partition("; default: ")
        assert tuple(names.split(", ")) == s.variables
        assert default == (s.default or s.unset)
        seen.add(option.name)
    assert seen


@pytest.mark.parametrize(
    ("app", "settings"),
    [
        (miner.cli.app, MinerSettings),
        (validator.cli.app, ValidatorSettings),
        (orchestrator.cli.app, OrchestratorSettings),
    ],
)
def test_every_setting_of_a_node_has_a_flag_of_start(app: typer.Typer, settings: type[Settings]) -> None:
    start = getattr(typer.main.get_command(app), "commands")["start"]  # noqa: B009
    assert {option.name for option in start.params} >= {s.name for s in settings_of(settings)}


@pytest.mark.parametrize(
    ("name", "options"), [("up", (SwarmOptions, UpOptions)), ("spec", (RunOptions,))], ids=["up", "spec"]
)
def test_every_option_of_a_run_has_a_flag_with_its_default(
    name: str, options: tuple[type[Settings], ...]
) -> None:
    command = getattr(typer.main.get_command(build([name])), "commands")[name]  # noqa: B009
    helped = {option.name: getattr(option, "help", None) for option in command.params}
    for s in (s for kind in options for s in settings_of(kind) if s.flags):
        also = f"  Also {', '.join(s.flags[1:])}." if len(s.flags) > 1 else ""
        assert helped[s.name] == f"{s.help}{also}  (default: {s.default or s.unset})"


def test_the_name_of_a_flag_that_people_type_comes_first() -> None:
    start = getattr(typer.main.get_command(miner.cli.app), "commands")["start"]  # noqa: B009
    first = {option.name: option.opts[0] for option in start.params}
    assert (first["network"], first["chain_endpoint"]) == ("--network", "--chain-endpoint")


def test_a_password_has_no_flag() -> None:
    register = getattr(typer.main.get_command(miner.cli.app), "commands")["register"]  # noqa: B009
    assert not [option.name for option in register.params if "password" in option.name]


class Speed(StrEnum):
    SLOW = "slow"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class NewSettings(ChainSettings):
    """A role with one setting more."""

    cache: ByteCount = setting(2 << 20, "Memory of the cache.", "IOTA_NEW_CACHE", "BT_CACHE", ge=1024)


@dataclass(frozen=True, kw_only=True)
class NewOptions(Settings):
    """Options of a command that no variable sets."""

    speed: Speed = setting(Speed.FAST, "How fast it goes.")
    loud: bool = setting(False, "Say more.")


@pytest.fixture
def called() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def app(called: list[tuple[Any, ...]]) -> typer.Typer:
    """A program with commands for the new settings."""
    app = typer.Typer()

    @settings_command(app, NewSettings, only=("cache", "netuid"))
    def go(settings: NewSettings, place: str, times: int = 1) -> None:
        """Go there."""
        called.append((settings, place, times))

    @settings_command(app, NewOptions)
    def run(settings: NewOptions) -> None:
        """Run."""
        called.append((settings,))

    return app


def invoke(app: typer.Typer, *arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, terminal_width=200, env={"COLUMNS": "200", "TERM": "dumb"})
    if isinstance(done.exception, ValueError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_setting_that_is_declared_is_a_flag_a_variable_a_line_of_the_example_and_a_row_of_the_docs(
    app: typer.Typer, called: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = " ".join(invoke(app, "go", "--help").split())
    assert "--cache" in shown
    assert "Memory of the cache. (env IOTA_NEW_CACHE, BT_CACHE; default: 2MiB)" in shown
    assert "--network" not in shown, "only what was asked for"
    example, page = env_example({NewSettings: "new"}), docs_page({NewSettings: "new"})
    assert "# Memory of the cache. Also BT_CACHE.\n#IOTA_NEW_CACHE=2MiB\n" in example
    assert "| `--cache` | `IOTA_NEW_CACHE`, `BT_CACHE` | `2MiB` | Memory of the cache. |" in page
    assert "IOTA_NETUID" not in example + page, "that stands with the class that declares it"

    invoke(app, "go", "there", "--cache", "4KiB", "--times", "3")
    assert called.pop() == (NewSettings.of(cache=4096), "there", 3)
    monkeypatch.setenv("BT_CACHE", "1MiB")
    invoke(app, "go", "there")
    assert called.pop() == (NewSettings.of(cache=1 << 20), "there", 1)
    with pytest.raises(ValueError, match=r"--cache \(IOTA_NEW_CACHE\) cannot be 1: .* at least 1024"):
        invoke(app, "go", "there", "--cache", "1")


def test_an_option_that_no_variable_sets_is_checked_by_the_command_line(
    app: typer.Typer, called: list[tuple[Any, ...]]
) -> None:
    shown = " ".join(invoke(app, "run", "--help").split())
    assert "slow" in shown
    assert "How fast it goes. (default: fast)" in shown
    assert "Say more. (default: no)" in shown
    invoke(app, "run", "--speed", "slow", "--loud")
    assert called.pop() == (NewOptions(speed=Speed.SLOW, loud=True),)
    done = CliRunner().invoke(app, ["run", "--speed", "late"])
    assert (done.exit_code, called) == (2, [])
