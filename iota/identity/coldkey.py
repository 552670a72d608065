"""Coldkeys: the key that owns a wallet's TAO. Only a registration signs with it; nodes must not have it.

A coldkey is stored at `<wallet path>/<wallet>/coldkey`, encrypted as the Bittensor SDK and `btcli` write it,
with its public key in `coldkeypub.txt` beside it. Nodes do not import this module (`.importlinter`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import bittensor_core as core  # type: ignore[import-untyped, unused-ignore]

from iota.identity.keys import (
    DEFAULT_WALLET_PATH,
    SecretKey,
    WalletMissing,
    WalletUnreadable,
    hotkey_path,
    open_key,
    write_key_pair,
)
from iota.identity.signatures import is_address

_MNEMONIC_WORDS: Final = 12
"""Words of a new mnemonic (128 bits), as `btcli` makes it."""


class Coldkey(SecretKey):
    """A key pair whose address holds TAO; it signs registrations."""

    __slots__ = ()


def coldkey_path(wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> Path:
    """The path of the coldkey's file, which may be missing. Raises ValueError for an invalid name."""
    return hotkey_path(wallet_name, "any", wallet_path).parents[1] / "coldkey"


def coldkey_is_encrypted(wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> bool:
    """Whether the coldkey's file is encrypted. Raises WalletMissing or WalletUnreadable."""
    return bool(core.keyfile_data_is_encrypted(_read(coldkey_path(wallet_name, wallet_path), wallet_name)))


def load_coldkey(
    wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH, password: str | None = None
) -> Coldkey:
    """Read a coldkey from disk.

    Raises:
        WalletMissing: the coldkey is not on this machine.
        WalletLocked: the file is encrypted and `password` is missing or wrong.
        WalletUnreadable: the file cannot be read, or holds no private key.
    """
    path = coldkey_path(wallet_name, wallet_path)
    return open_key(
        Coldkey,
        _read(path, wallet_name),
        path,
        password,
        needed=": its password is needed to sign with it",
        content="private key",
    )


def coldkey_address(wallet_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> str | None:
    """The coldkey's address from `coldkeypub.txt`, or None where there is no such file. Needs no password.

    Raises WalletUnreadable where the file cannot be read or holds no address.
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
    """Create a coldkey on disk, encrypted with `password`, and return it with its mnemonic.

    The mnemonic is the only backup: the caller must show it once and store it nowhere. Raises WalletExists
    where the wallet has a coldkey; nothing is changed then.
    """
    mnemonic = str(core.Keypair.generate_mnemonic(_MNEMONIC_WORDS))
    keypair = core.Keypair.create_from_mnemonic(mnemonic, core.CRYPTO_SR25519)
    path = coldkey_path(wallet_name, wallet_path)
    write_key_pair(path, path.with_name("coldkeypub.txt"), keypair, password)
    return Coldkey(keypair), mnemonic


def _read(path: Path, wallet_name: str) -> bytes:
    """The file's content. Raises WalletMissing or WalletUnreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WalletMissing(
            f"the coldkey of wallet {wallet_name!r} is not on this machine ({path}): a node needs none"
        ) from None
    except OSError as error:
        raise WalletUnreadable(f"cannot read the coldkey file {path}: {error.strerror}") from None
