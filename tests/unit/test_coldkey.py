"""The coldkey: read and written as the SDK does, and never opened by what a node runs."""

from __future__ import annotations

import os
import pickle
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import bittensor
import pytest

from iota.identity.coldkey import (
    Coldkey,
    coldkey_address,
    coldkey_is_encrypted,
    coldkey_path,
    create_coldkey,
    load_coldkey,
)
from iota.identity.keys import WalletExists, WalletLocked, WalletMissing, WalletUnreadable, create_hotkey

PASSWORD = "correct horse Battery 1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Coldkey, str]:
    """A folder with a coldkey under `PASSWORD`, the key and its mnemonic: to encrypt one takes 3 s of CPU."""
    folder = tmp_path_factory.mktemp("wallets")
    return folder, *create_coldkey("w", folder, PASSWORD)


def sdk_wallet(folder: Path, *, encrypted: bool) -> bittensor.Wallet:
    wallet = bittensor.Wallet("w", "h", str(folder))
    wallet.create_new_coldkey(
        use_password=encrypted, suppress=True, coldkey_password=PASSWORD if encrypted else None
    )
    return wallet


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_coldkey_of_the_sdk_is_read(tmp_path: Path, encrypted: bool) -> None:
    theirs = sdk_wallet(tmp_path, encrypted=encrypted).coldkeypub.ss58_address
    assert coldkey_is_encrypted("w", tmp_path) is encrypted
    assert load_coldkey("w", tmp_path, PASSWORD if encrypted else None).ss58 == theirs
    assert coldkey_address("w", tmp_path) == theirs


def test_the_sdk_reads_ours_and_its_mnemonic_restores_it(made: tuple[Path, Coldkey, str]) -> None:
    folder, ours, mnemonic = made
    wallet = bittensor.Wallet("w", "h", str(folder))
    assert wallet.coldkey_file.is_encrypted()
    assert wallet.get_coldkey(PASSWORD).ss58_address == wallet.coldkeypub.ss58_address == ours.ss58
    assert bittensor.sp_core.Keypair.create_from_mnemonic(mnemonic, 1).ss58_address == ours.ss58
    assert coldkey_path("w", folder).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("password", [None, "wrong"])
def test_without_its_password_it_stays_locked(made: tuple[Path, Coldkey, str], password: str | None) -> None:
    with pytest.raises(WalletLocked):
        load_coldkey("w", made[0], password)


def test_a_coldkey_that_is_elsewhere_is_missing(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path)
    assert coldkey_address("w", tmp_path) is None
    for read in (lambda: load_coldkey("w", tmp_path), lambda: coldkey_is_encrypted("w", tmp_path)):
        with pytest.raises(WalletMissing, match="not on this machine"):
            read()


def test_a_damaged_file_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path = coldkey_path("w", tmp_path)
    path.parent.mkdir()
    path.write_text('{"secretPhrase": "my own twelve words"}')
    path.with_name("coldkeypub.txt").write_text('{"ss58Address": "nobody"}')
    with pytest.raises(WalletUnreadable, match="restore it from your backup") as raised:
        load_coldkey("w", tmp_path)
    assert "twelve" not in str(raised.value)
    with pytest.raises(WalletUnreadable, match="holds no address"):
        coldkey_address("w", tmp_path)


def test_a_coldkey_is_never_overwritten(made: tuple[Path, Coldkey, str]) -> None:
    folder, first, _ = made
    with pytest.raises(WalletExists):
        create_coldkey("w", folder, PASSWORD)
    assert load_coldkey("w", folder, PASSWORD).ss58 == first.ss58


def test_neither_its_text_nor_a_pickle_reveals_it(made: tuple[Path, Coldkey, str]) -> None:
    _, key, mnemonic = made
    assert repr(key) == f"Coldkey({key.ss58})"
    assert mnemonic not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_coldkey_may_be_of_another_scheme_than_a_hotkey() -> None:
    theirs = bittensor.sp_core.Keypair.create_from_seed(b"\x07" * 32, bittensor.sp_core.CRYPTO_ED25519)
    assert Coldkey(theirs).ss58 == theirs.ss58_address


WATCHER = """
import importlib, os, sys
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        os.write(2, b"opened " + os.fsencode(arguments[0]) + b"\\n")
    if event == "import":
        os.write(2, b"imported " + arguments[0].encode() + b"\\n")
sys.addaudithook(watch)
importlib.import_module(sys.argv.pop(1)).main()
"""


@pytest.mark.parametrize("command", ["miner.cli", "validator.cli"])
def test_a_node_that_starts_opens_its_hotkey_and_never_the_coldkey(
    made: tuple[Path, Coldkey, str], tmp_path: Path, command: str
) -> None:
    """A real process, watched by the interpreter's own audit events until it dials out."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    create_hotkey("w", "h", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        flags = ["--orchestrator", url, "--network", url, "--data-dir", str(tmp_path / "data")]
        wallet = ["--wallet.name", "w", "--wallet.hotkey", "h", "--wallet.path", str(tmp_path)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))}
        log = tmp_path / "log"
        with log.open("wb") as output:
            node = subprocess.Popen(
                [sys.executable, "-c", WATCHER, command, "start", *flags, *wallet],
                stderr=output,
                env=environment,
            )
            try:
                dialled, _, _ = select.select([server], [], [], 60)
            finally:
                node.kill()
                node.wait()
    said = log.read_text(errors="replace")
    assert dialled, said[-2000:]
    assert f"opened {tmp_path}/w/hotkeys/h\n" in said
    assert f"opened {coldkey_path('w', tmp_path)}\n" not in said
    assert "coldkeypub" not in said
    assert "imported iota.identity.keys\n" in said
    assert "imported iota.identity.coldkey\n" not in said
