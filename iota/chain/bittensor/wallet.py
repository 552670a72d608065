"""The keys of one write, with the interface of the SDK's wallet. No file is opened here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from iota.identity.keys import Hotkey

if TYPE_CHECKING:
    from iota.identity.coldkey import Coldkey


class SignedAlready(RuntimeError):
    """The SDK asks for one signature more than the write needs."""


class Signer:
    """A key pair that signs a fixed number of times.

    A signed extrinsic contains its nonce, and the chain accepts a nonce once. So a write lands at most once,
    however often the SDK or a node sends it, and before the last signature nothing has been sent.
    """

    def __init__(self, keypair: Any, signatures: int) -> None:
        self._keypair = keypair
        self._left = signatures

    @property
    def ss58_address(self) -> str:
        """The key's address."""
        return str(self._keypair.ss58_address)

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes(self._keypair.public_key)

    @property
    def crypto_type(self) -> int:
        """The SDK's number of the signature scheme."""
        return int(self._keypair.crypto_type)

    @property
    def spent(self) -> bool:
        """True after the last signature, when the extrinsic may have been sent."""
        return self._left == 0

    def sign(self, payload: bytes) -> bytes:
        """The signature of `payload`; raises SignedAlready after the last one."""
        if self.spent:
            raise SignedAlready("this write is signed already, and is not signed twice")
        self._left -= 1
        return bytes(self._keypair.sign(payload))

    def __repr__(self) -> str:
        return f"Signer({self.ss58_address})"


class WriteKeys:
    """The keys of one write, with the interface of the SDK's `KeyedWallet`."""

    def __init__(self, hotkey: Any, coldkey: Signer | None, signer: Signer) -> None:
        self.hotkey = hotkey
        self.coldkey = coldkey
        self.coldkeypub = coldkey
        self.signer = signer

    @classmethod
    def of_hotkey(cls, hotkey: Hotkey) -> WriteKeys:
        """The keys of a write that the hotkey signs."""
        signer = Signer(hotkey.keypair, 1)
        return cls(signer, None, signer)

    @classmethod
    def of_coldkey(cls, hotkey: str, coldkey: Coldkey, *, shielded: bool) -> WriteKeys:
        """The keys of a registration; a shielded one is signed twice: the hidden call, then its carrier."""
        signer = Signer(coldkey.keypair, 2 if shielded else 1)
        return cls(SimpleNamespace(ss58_address=hotkey), signer, signer)
