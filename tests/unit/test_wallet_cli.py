"""`iota wallet`: makes keys that the SDK reads, shows their addresses, and tells no secret but once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import bittensor
import pytest
from typer.testing import CliRunner, Result

from iota.cli.main import build
from iota.identity.coldkey import coldkey_path, create_coldkey, load_coldkey
from iota.identity.keys import create_hotkey, hotkey_path, load_hotkey
from tests.support.pseudo_terminal import at_a_terminal

PASSWORD = "correct horse Battery 1"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("IOTA_", "BT_")):
            monkeypatch.delenv(name)


def wallet(*arguments: str) -> Result:
    return CliRunner().invoke(build(["wallet"]), ["wallet", *arguments])


@pytest.mark.parametrize("style", ["--wallet.{}", "--wallet-{}"])
def test_new_then_show_with_dotted_and_dashed_flags(tmp_path: Path, style: str) -> None:
    flags = [style.format("name"), "w", style.format("hotkey"), "h", style.format("path"), str(tmp_path)]
    made = wallet("new", *flags)
    shown = wallet("show", *flags)
    assert made.exit_code == shown.exit_code == 0
    assert made.stdout == shown.stdout == load_hotkey("w", "h", tmp_path).ss58 + "\n"


def test_flags_go_before_the_environment_and_that_before_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text(f"IOTA_WALLET_PATH={tmp_path}\nIOTA_WALLET_NAME=file\nIOTA_WALLET_HOTKEY=file\n")
    monkeypatch.setenv("BT_WALLET_HOTKEY", "ignored, since IOTA_ goes first")
    monkeypatch.setenv("IOTA_WALLET_HOTKEY", "environment")
    address = wallet("new", "--wallet.name", "flag").stdout.strip()
    assert load_hotkey("flag", "environment", tmp_path).ss58 == address


def test_no_output_holds_a_secret(tmp_path: Path) -> None:
    flags = ["--wallet.path", str(tmp_path)]
    output = wallet("new", *flags).output + wallet("show", *flags).output
    stored = json.loads(hotkey_path("default", "default", tmp_path).read_text())
    for field in ("secretPhrase", "secretSeed", "privateKey"):
        assert stored[field].removeprefix("0x") not in output


def test_a_missing_wallet_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    error = wallet("show", "--wallet.path", str(tmp_path)).exception
    assert isinstance(error, ValueError)
    assert "iota wallet new" in str(error)


def test_new_refuses_a_name_that_is_taken_before_it_makes_a_coldkey(tmp_path: Path) -> None:
    flags = ["--wallet.path", str(tmp_path)]
    wallet("new", *flags)
    error = wallet("new", "--coldkey", *flags).exception
    assert isinstance(error, ValueError)
    assert "never overwritten" in str(error)
    assert not coldkey_path("default", tmp_path).exists()


def test_show_names_bad_modes_and_whether_the_coldkey_is_locked(tmp_path: Path) -> None:
    create_hotkey("default", "default", tmp_path)
    flags = ["--wallet.path", str(tmp_path)]
    assert "not on this machine" in wallet("show", *flags).stderr
    address = create_coldkey("default", tmp_path, PASSWORD)[0].ss58
    hotkey_path("default", "default", tmp_path).chmod(0o644)
    said = wallet("show", *flags).stderr
    assert f"mode 644): chmod 600 {hotkey_path('default', 'default', tmp_path)}" in said
    assert f"{address}, its private key is in {coldkey_path('default', tmp_path)}, encrypted\n" in said


def test_a_mnemonic_is_not_printed_where_no_terminal_is(tmp_path: Path) -> None:
    error = wallet("new", "--coldkey", "--wallet.path", str(tmp_path)).exception
    assert isinstance(error, ValueError)
    assert "--mnemonic-file" in str(error)
    assert not (tmp_path / "default").exists()


def test_a_mnemonic_can_go_to_a_file_that_only_its_owner_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BT_WALLET_PASSWORD", PASSWORD)
    words = tmp_path / "words"
    result = wallet("new", "--coldkey", "--mnemonic-file", str(words), "--wallet.path", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert words.read_text().strip() not in result.output
    assert words.stat().st_mode & 0o777 == 0o600
    restored = bittensor.sp_core.Keypair.create_from_mnemonic(words.read_text().strip(), 1)
    assert restored.ss58_address == load_coldkey("default", tmp_path, PASSWORD).ss58


def test_a_person_at_a_terminal_types_the_password_unseen_and_sees_the_words_once(tmp_path: Path) -> None:
    """The real command on a pseudo-terminal."""
    code, said = at_a_terminal(
        ["iota.cli.main", "wallet", "new", "--coldkey", "--wallet.path", str(tmp_path)], [PASSWORD, PASSWORD]
    )
    assert code == 0, said
    assert PASSWORD not in said
    ours = bittensor.Wallet("default", "default", str(tmp_path))
    mnemonics = [line for line in said.splitlines() if len(line.split()) == 12 and line.islower()]
    assert len(mnemonics) == 1
    restored = bittensor.sp_core.Keypair.create_from_mnemonic(mnemonics[0].strip(), 1)
    assert restored.ss58_address == ours.get_coldkey(PASSWORD).ss58_address
    assert ours.hotkey.ss58_address in said
