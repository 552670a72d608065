"""Coldkeys: the key that owns a wallet's TAO. Only a registration signs with it, and it stays off nodes.

A coldkey lives at `<wallet path>/<wallet>/coldkey`, encrypted as the Bittensor SDK and `btcli` write it, with
its public half in `coldkeypub.txt` beside it. No node that starts loads this module (`.importlinter`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import bittensor_core as core  # type: ignore[import-untyped, unused-ignore]

from iota.identity.keys import (
    DEFAULT_WALLET_PATH,
    SecretKey,
    WalletLocked,
    WalletMissing,
    WalletUnreadable,
    hotkey_path,
    write_key_pair,
)
from iota.identity.signatures import is_address

_MNEMONIC_WORDS: Final = 12


class Coldkey(SecretKey):
    """A key pair that pays; its address holds the TAO."""

    __slots__ = ()


def coldkey_path(wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> Path:
    """Where the coldkey's file is, or would be.

    Raises:
        ValueError: a name that is empty or would leave the folder of wallets.
    """
    return hotkey_path(wallet_name, "any", wallet_path).parents[1] / "coldkey"


def coldkey_is_encrypted(wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> bool:
    """Whether a password is needed to open the coldkey.

    Raises:
        WalletMissing: the coldkey is not on this machine.
        WalletUnreadable: the file cannot be read.
    """
    return bool(core.keyfile_data_is_encrypted(_read(coldkey_path(wallet_name, wallet_path), wallet_name)))


def load_coldkey(
    wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH, password: str | None = None
) -> Coldkey:
    """Reads a coldkey from disk.

    Raises:
        WalletMissing: the coldkey is not on this machine.
        WalletLocked: the file is encrypted and `password` is missing or wrong.
        WalletUnreadable: the file cannot be read, or holds no private key.
    """
    path = coldkey_path(wallet_name, wallet_path)
    data = _read(path, wallet_name)
    if core.keyfile_data_is_encrypted(data):
        if password is None:
            raise WalletLocked(f"{path} is encrypted: its password is needed to sign with it")
        try:
            data = bytes(core.decrypt_keyfile_data(data, password))
        except (core.WrongPasswordError, core.KeyfileError, ValueError):
            raise WalletLocked(f"the password does not open {path}") from None
    try:
        keypair = core.deserialize_keypair_from_keyfile_data(data)
        keypair.sign(b"iota/self-test/1\n")
    except (core.KeyfileError, ValueError, TypeError):
        # The cause may quote the file's content: it is left out on purpose.
        raise WalletUnreadable(f"{path} holds no private key: restore it from your backup") from None
    return Coldkey(keypair)


def coldkey_address(wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> str | None:
    """The coldkey's address from `coldkeypub.txt`, or None where that file is not; opens no secret.

    Raises:
        WalletUnreadable: the file cannot be read, or holds no address.
    """
    path = coldkey_path(wallet_name, wallet_path).with_name("coldkeypub.txt")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WalletUnreadable(f"cannot read {path}: {error.strerror}") from None
    try:
        address = core.deserialize_keypair_from_keyfile_data(data).ss58_address
    except (core.KeyfileError, ValueError, TypeError):
        address = None
    if not is_address(address):
        raise WalletUnreadable(
            f"{path} holds no address: write it again with `btcli wallet regen-coldkeypub`"
        )
    return str(address)


def create_coldkey(wallet_name: str, wallet_path: str | Path, password: str) -> tuple[Coldkey, str]:
    """Creates a coldkey on disk, encrypted with `password`, and returns it with its mnemonic.

    The mnemonic is the only backup: show it once, and write it nowhere.

    Raises:
        WalletExists: the wallet has a coldkey; nothing was changed.
    """
    mnemonic = str(core.Keypair.generate_mnemonic(_MNEMONIC_WORDS))
    keypair = core.Keypair.create_from_mnemonic(mnemonic, core.CRYPTO_SR25519)
    path = coldkey_path(wallet_name, wallet_path)
    write_key_pair(path, path.with_name("coldkeypub.txt"), keypair, password)
    return Coldkey(keypair), mnemonic


def _read(path: Path, wallet_name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WalletMissing(
            f"the coldkey of wallet {wallet_name!r} is not on this machine ({path}): a node needs none"
        ) from None
    except OSError as error:
        raise WalletUnreadable(f"cannot read the coldkey file {path}: {error.strerror}") from None
