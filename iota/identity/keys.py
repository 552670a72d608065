"""Hotkeys: sr25519 keys in the standard Bittensor wallet layout.

A hotkey is stored at `<wallet path>/<wallet>/hotkeys/<hotkey>`, in the format of the Bittensor SDK and
`btcli`. This module never opens the coldkey file beside it (`iota.identity.coldkey`).
"""

from __future__ import annotations

import logging
import secrets
import stat
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import bittensor_core as core  # type: ignore[import-untyped, unused-ignore]

from iota.console.command_flags import command_line
from iota.files import write_whole

DEFAULT_WALLET_PATH: Final = "~/.bittensor/wallets"
_Key = TypeVar("_Key", bound="SecretKey")
_log = logging.getLogger(__name__)


class WalletMissing(ValueError):
    """The key file does not exist; the message says how to get one."""


class WalletExists(ValueError):
    """A key of that name exists already; keys are never overwritten."""


class WalletLocked(ValueError):
    """The key file is encrypted, and the password is missing or wrong."""


class WalletUnreadable(ValueError):
    """The key file is damaged, holds no private key, is not sr25519, or must not be read by this user."""


class SecretKey:
    """A `bittensor_core.Keypair` with a private key, which `repr` and pickling do not reveal."""

    __slots__ = ("_keypair",)

    def __init__(self, keypair: Any) -> None:
        self._keypair = keypair

    @property
    def ss58(self) -> str:
        """The public address (ss58), which is the key's name everywhere else."""
        return str(self._keypair.ss58_address)

    @property
    def keypair(self) -> Any:
        """The SDK's key pair, for functions of the SDK (`bittensor.http_auth`, extrinsics)."""
        return self._keypair

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ss58})"

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__.lower()
        raise TypeError(f"a {name} cannot be pickled or copied: its private key stays in this process")


class Hotkey(SecretKey):
    """An sr25519 key pair, which signs a node's requests, receipts, frames and verdicts."""

    __slots__ = ()

    def __init__(self, keypair: Any) -> None:
        """Raises `WalletUnreadable` for a key pair of another kind."""
        if keypair.crypto_type != core.CRYPTO_SR25519:
            raise WalletUnreadable("a hotkey must be an sr25519 key")
        super().__init__(keypair)

    @classmethod
    def generate(cls) -> Hotkey:
        """A new key that exists only in memory (simulations, tests, one-off identities)."""
        return cls.from_seed(secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, seed: bytes) -> Hotkey:
        """The key of a 32-byte secret seed. Raises ValueError for another length."""
        if len(seed) != 32:
            raise ValueError(f"a seed has 32 bytes, not {len(seed)}")
        return cls(core.Keypair.create_from_seed(seed, core.CRYPTO_SR25519))

    def sign(self, message: bytes) -> bytes:
        """A 64-byte signature. `message` must come from `signing_bytes`, so that it has a domain."""
        return bytes(self._keypair.sign(message))


def hotkey_path(wallet_name: str, hotkey_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH) -> Path:
    """The path of the hotkey's file, whether or not it exists.

    Raises ValueError for a name that is empty or would lead out of the wallet's folder.
    """
    for name in (wallet_name, hotkey_name):
        if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot name a wallet or hotkey: no slashes, no leading dot")
    return Path(wallet_path).expanduser() / wallet_name / "hotkeys" / hotkey_name


def load_hotkey(
    wallet_name: str,
    hotkey_name: str,
    wallet_path: str | Path = DEFAULT_WALLET_PATH,
    password: str | None = None,
) -> Hotkey:
    """Read a hotkey from disk.

    Raises:
        WalletMissing: no such file.
        WalletLocked: the file is encrypted and `password` is missing or wrong.
        WalletUnreadable: the file cannot be read, or holds no sr25519 private key.
    """
    path = hotkey_path(wallet_name, hotkey_name, wallet_path)
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise WalletMissing(
            f"no hotkey {hotkey_name!r} in wallet {wallet_name!r} ({path}): create one with "
            f"`{_new_command(wallet_name, hotkey_name, wallet_path)}`, "
            "or name another with --wallet.name, --wallet.hotkey and --wallet.path"
        ) from None
    except OSError as error:
        raise WalletUnreadable(f"cannot read the hotkey file {path}: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning(
            "the hotkey file %s can be opened by other users: run `%s`", path, command_line("chmod 600", path)
        )
    return open_key(
        Hotkey,
        data,
        path,
        password,
        needed=", and a node cannot ask for a password: "
        "use a hotkey without one (the coldkey is what stays encrypted, and off the node)",
        content="sr25519 private key",
    )


def _new_command(wallet_name: str, hotkey_name: str, wallet_path: str | Path) -> str:
    """The command that creates a hotkey."""
    words: list[object] = ["--wallet.name", wallet_name, "--wallet.hotkey", hotkey_name]
    if Path(wallet_path).expanduser() != Path(DEFAULT_WALLET_PATH).expanduser():
        words += ["--wallet.path", wallet_path]
    return command_line("iota wallet new", *words)


def open_key(
    kind: type[_Key], data: bytes, path: Path, password: str | None, *, needed: str, content: str
) -> _Key:
    """The key in the content `data` of the key file `path`.

    `needed` completes the message for a missing password, `content` names what the file should hold. Raises
    WalletLocked or WalletUnreadable.
    """
    if core.keyfile_data_is_encrypted(data):
        if password is None:
            raise WalletLocked(f"{path} is encrypted{needed}")
        try:
            data = bytes(core.decrypt_keyfile_data(data, password))
        except (core.WrongPasswordError, core.KeyfileError, ValueError):
            raise WalletLocked(f"the password does not open {path}") from None
    try:
        key = kind(core.deserialize_keypair_from_keyfile_data(data))
        key.keypair.sign(b"iota/self-test/1\n")
    except (core.KeyfileError, ValueError, TypeError):
        # Without the cause, which may quote the file's content.
        raise WalletUnreadable(f"{path} holds no {content}: restore it from your backup") from None
    return key


def create_hotkey(
    wallet_name: str, hotkey_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH
) -> Hotkey:
    """Create a hotkey on disk, unencrypted since nodes start unattended: file mode 600, new folders 700.

    The public key goes to `<hotkey>pub.txt` beside it, as the SDK writes it. Raises WalletExists where the
    name is taken; nothing is changed then.
    """
    path = hotkey_path(wallet_name, hotkey_name, wallet_path)
    keypair = core.Keypair.create_from_mnemonic(core.Keypair.generate_mnemonic(12), core.CRYPTO_SR25519)
    write_key_pair(path, path.with_name(f"{hotkey_name}pub.txt"), keypair)
    return Hotkey(keypair)


def write_key_pair(path: Path, public_path: Path, keypair: Any, password: str | None = None) -> None:
    """Write a new key's private file, encrypted if there is a `password`, and its public file.

    Raises WalletExists where `path` exists already; nothing is changed then.
    """
    for folder in reversed(path.parents[:3]):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = bytes(core.serialized_keypair_to_keyfile_data(keypair))
    _write_new(path, data if password is None else bytes(core.encrypt_keyfile_data(data, password)))
    public = core.Keypair(
        ss58_address=keypair.ss58_address, public_key=keypair.public_key, crypto_type=core.CRYPTO_SR25519
    )
    public_path.unlink(missing_ok=True)  # left over from a key whose private file is gone
    _write_new(public_path, bytes(core.serialized_keypair_to_keyfile_data(public)))


def _write_new(path: Path, data: bytes) -> None:
    """Create `path` with mode 600, atomically, and never over an existing file. Raises WalletExists."""
    try:
        write_whole(path, data, durable=True, mode=0o600, replace=False)
    except FileExistsError:
        raise WalletExists(
            f"{path} exists already, and keys are never overwritten: choose another name"
        ) from None
