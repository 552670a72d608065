"""`--help` says where each value comes from, and says it as the settings have it."""

from __future__ import annotations

from enum import Enum

import pytest
import typer

import iota.cli.chain
import iota.cli.doctor
import iota.cli.store
import iota.cli.wallet
import miner.cli
import orchestrator.cli
import validator.cli
from iota.settings import (
    ChainSettings,
    MinerSettings,
    OrchestratorSettings,
    StoreSettings,
    ValidatorSettings,
    environment_names,
    parse_bytes,
)
from iota.settings.flags import SOURCES

COMMANDS: list[tuple[typer.Typer, type[ChainSettings]]] = [
    (miner.cli.app, MinerSettings),
    (validator.cli.app, ValidatorSettings),
    (iota.cli.wallet.app, ChainSettings),
    (iota.cli.doctor.app, MinerSettings),
    (iota.cli.chain.app, ChainSettings),
    (iota.cli.store.app, StoreSettings),
    (orchestrator.cli.app, OrchestratorSettings),
]
HELPED = [
    (command, settings)
    for app, settings in COMMANDS
    for command in getattr(
        typer.main.get_command(app), "commands", {"": typer.main.get_command(app)}
    ).values()
]
IN_WORDS = {"threads": ("all cores", "1")}
"""Defaults that no setting holds as a value."""


@pytest.mark.parametrize(
    ("command", "settings"), HELPED, ids=lambda value: getattr(value, "name", None) or ""
)
def test_the_help_of_a_flag_names_its_variables_and_its_default(
    command: object, settings: type[ChainSettings]
) -> None:
    assert getattr(command, "epilog") == SOURCES  # noqa: B009 - click's own types are not exported
    seen = set()
    for option in getattr(command, "params"):  # noqa: B009
        info = settings.model_fields.get(option.name)
        if info is None:
            assert "env" not in (option.help or "")
            continue
        names, _, default = option.help.rpartition("  (env ")[2].removesuffix(")").partition("; default: ")
        assert tuple(names.split(", ")) == environment_names(info)
        plain = info.default.value if isinstance(info.default, Enum) else info.default
        shown = parse_bytes(default) if option.name == "snapshot_bytes" else default
        in_words = IN_WORDS.get(option.name, ("none",) if plain is None else ())
        assert shown == plain or default == str(plain) or default in in_words
        seen.add(option.name)
    assert seen
    if settings is not StoreSettings:
        assert seen & {"wallet_name", "network"}


@pytest.mark.parametrize(
    ("app", "settings"),
    [
        (miner.cli.app, MinerSettings),
        (validator.cli.app, ValidatorSettings),
        (orchestrator.cli.app, OrchestratorSettings),
    ],
)
def test_every_setting_of_a_node_has_a_flag_of_start(app: typer.Typer, settings: type[ChainSettings]) -> None:
    start = getattr(typer.main.get_command(app), "commands")["start"]  # noqa: B009
    assert {option.name for option in start.params} >= settings.model_fields.keys()


def test_the_name_of_a_flag_that_people_type_comes_first() -> None:
    start = getattr(typer.main.get_command(miner.cli.app), "commands")["start"]  # noqa: B009
    first = {option.name: option.opts[0] for option in start.params}
    assert (first["network"], first["chain_endpoint"]) == ("--network", "--chain-endpoint")
