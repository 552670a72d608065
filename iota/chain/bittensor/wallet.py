"""The keys of one write, in the shape that the SDK calls a wallet. No file is opened here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iota.identity.keys import Hotkey

if TYPE_CHECKING:
    from iota.identity.coldkey import Coldkey


class SignedAlready(RuntimeError):
    """The SDK asks for a signature that this write does not need."""


class Signer:
    """A key pair that signs a stated number of times, and then never again.

    A signed extrinsic names its nonce, and the chain takes a nonce once. So what a write signed can land at
    most once, however often the SDK or a node sends it; and before the last signature nothing has left.
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
        """32 bytes."""
        return bytes(self._keypair.public_key)

    @property
    def crypto_type(self) -> int:
        """The SDK's number of the signature scheme."""
        return int(self._keypair.crypto_type)

    @property
    def spent(self) -> bool:
        """True once all is signed, so that the extrinsic may have left."""
        return self._left == 0

    def sign(self, payload: bytes) -> bytes:
        """Raises SignedAlready when nothing is left to sign."""
        if self.spent:
            raise SignedAlready("this write is signed already, and is not signed twice")
        self._left -= 1
        return bytes(self._keypair.sign(payload))

    def __repr__(self) -> str:
        return f"Signer({self.ss58_address})"


class _Address:
    """The public half of a key: it addresses, and cannot sign."""

    def __init__(self, ss58_address: str) -> None:
        self.ss58_address = ss58_address


class WriteKeys:
    """The keys of one write: the hotkey or, for a registration, the coldkey. SDK: `KeyedWallet`."""

    def __init__(self, hotkey: Any, coldkey: Signer | None, signer: Signer) -> None:
        self.hotkey = hotkey
        self.coldkey = coldkey
        self.coldkeypub = coldkey
        self.signer = signer

    @classmethod
    def of_hotkey(cls, hotkey: Hotkey) -> WriteKeys:
        """Keys for one write that the hotkey signs."""
        signer = Signer(hotkey.keypair, 1)
        return cls(signer, None, signer)

    @classmethod
    def of_coldkey(cls, hotkey: str, coldkey: Coldkey, *, shielded: bool) -> WriteKeys:
        """A shielded write has two signatures: of what is hidden, and last of what carries it."""
        signer = Signer(coldkey.keypair, 2 if shielded else 1)
        return cls(_Address(hotkey), signer, signer)
