"""`iota wallet`: makes a hotkey, shows its address, and tells no secret."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iota.cli.wallet import app
from iota.protocol.keys import hotkey_path, load_hotkey


@pytest.mark.parametrize("style", ["--wallet.{}", "--wallet-{}"])
def test_new_then_show_with_dotted_and_dashed_flags(tmp_path: Path, style: str) -> None:
    flags = [style.format("name"), "w", style.format("hotkey"), "h", style.format("path"), str(tmp_path)]
    made = CliRunner().invoke(app, ["new", *flags])
    shown = CliRunner().invoke(app, ["show", *flags])
    assert made.exit_code == shown.exit_code == 0
    assert made.stdout == shown.stdout == load_hotkey("w", "h", tmp_path).ss58 + "\n"


def test_no_output_holds_a_secret(tmp_path: Path) -> None:
    flags = ["--wallet.path", str(tmp_path)]
    output = (
        CliRunner().invoke(app, ["new", *flags]).output + CliRunner().invoke(app, ["show", *flags]).output
    )
    stored = json.loads(hotkey_path("default", "default", tmp_path).read_text())
    for field in ("secretPhrase", "secretSeed", "privateKey"):
        assert stored[field].removeprefix("0x") not in output


def test_a_missing_wallet_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["show", "--wallet.path", str(tmp_path)])
    assert result.exit_code == 2
    assert "iota wallet new" in result.stderr


def test_new_refuses_a_name_that_is_taken(tmp_path: Path) -> None:
    flags = ["--wallet.path", str(tmp_path)]
    CliRunner().invoke(app, ["new", *flags])
    result = CliRunner().invoke(app, ["new", *flags])
    assert result.exit_code == 2
    assert "never overwritten" in result.stderr
