"""The MEV shield as a block author runs it: keys that change with every block, and what was sealed for them.

A sealed extrinsic is the key's hash (16 bytes), the length of the ML-KEM-768 ciphertext (2 bytes, little
endian), that ciphertext, a nonce (24 bytes), and the extrinsic under XChaCha20-Poly1305 with the shared
secret as its key and the tag (16 bytes) behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import xxhash
from Crypto.Cipher import ChaCha20_Poly1305
from kyber_py.ml_kem import ML_KEM_768  # type: ignore[import-untyped]

_KEY_HASH: Final = 16
_NONCE: Final = 24
_TAG: Final = 16
_KEYS_KEPT: Final = 8
"""A carrier may wait some blocks in the pool."""


class Shield:
    """The author's keys."""

    def __init__(self) -> None:
        self._secrets: OrderedDict[bytes, bytes] = OrderedDict()

    def next_key(self) -> bytes:
        """A new public key for `MevShield.NextKey`; the last few keep working."""
        public, secret = ML_KEM_768.keygen()
        self._secrets[_twox_128(public)] = secret
        if len(self._secrets) > _KEYS_KEPT:
            self._secrets.popitem(last=False)
        return bytes(public)

    def open(self, sealed: bytes) -> bytes | None:
        """The extrinsic in a carrier; None if it is for no key of ours or was tampered with."""
        secret = self._secrets.get(sealed[:_KEY_HASH])
        if secret is None:
            return None
        start = _KEY_HASH + 2
        end = start + int.from_bytes(sealed[_KEY_HASH:start], "little")
        encapsulated, nonce, body = sealed[start:end], sealed[end : end + _NONCE], sealed[end + _NONCE :]
        try:
            key = ML_KEM_768.decaps(secret, encapsulated)
            cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
            opened: bytes = cipher.decrypt_and_verify(body[:-_TAG], body[-_TAG:])
        except ValueError:
            return None
        return opened


def _twox_128(content: bytes) -> bytes:
    return b"".join(xxhash.xxh64_digest(content, seed)[::-1] for seed in (0, 1))
