"""Extrinsics from the wire: decoded, and their signature held against the payload that it must cover."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import bittensor_core
from bittensor.sp_core import CRYPTO_SR25519

from tests.support.subtensor.blocks import Extrinsic, PoolRefusal
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.encoding import SPEC_NAME, Runtime, as_call
from tests.support.subtensor.pallets import CALLS

_SIGNED_V4: Final = 0x84
_ACCOUNT_ID: Final = 0
_SR25519: Final = 1
_HEAD_BYTES: Final = 1 + 1 + 32 + 1 + 64
"""Version, kind of address, account, kind of signature, signature."""
_HASHED_ABOVE: Final = 256
"""A longer payload is signed by its hash."""


def decode_signed(runtime: Runtime, chain: Subtensor, data: bytes) -> Extrinsic:
    """A signed extrinsic of a call that the model has, its signature good for this chain, runtime and moment.

    Raises:
        PoolRefusal: it does not decode, or it is not signed so; the answer of a real node.
    """
    try:
        decoded = runtime.codec.decode_extrinsic(data)
        length, start = _compact(data)
    except (ValueError, IndexError) as error:
        raise _invalid(f"Could not decode the extrinsic: {error}", code=1002) from error
    body = data[start:]
    if length != len(body) or body[:2] != bytes([_SIGNED_V4, _ACCOUNT_ID]) or body[34] != _SR25519:
        raise _invalid("Transaction has a bad signature")
    signed_era = decoded["era"]
    era, birth, death = _era(signed_era, chain.head.number + 1)
    anchor = chain.block(birth)
    if anchor is None:
        raise _invalid("Transaction has an ancient birth block")
    genesis = chain.block(0)
    assert genesis is not None
    metadata_hash = _metadata_hash(runtime) if decoded["mode"] != {"mode": "Disabled"} else None
    _, extra, implied = runtime.codec.signature_payload_parts(
        b"",
        era=era,
        nonce=decoded["nonce"],
        tip=decoded["tip"],
        tip_asset_id=None,
        genesis_hash=genesis.hash,
        era_block_hash=anchor.hash,
        metadata_hash=metadata_hash,
    )
    call = as_call(decoded["call"])
    call_data = body[_HEAD_BYTES + len(extra) :]
    payload = call_data + extra + implied
    if len(payload) > _HASHED_ABOVE:
        payload = hashlib.blake2b(payload, digest_size=32).digest()
    signature = body[_HEAD_BYTES - 64 : _HEAD_BYTES]
    if body[_HEAD_BYTES : _HEAD_BYTES + len(extra)] != extra or not bittensor_core.verify(
        payload, signature, decoded["address"], CRYPTO_SR25519
    ):
        raise _invalid("Transaction has a bad signature")
    if (call.module, call.function) not in CALLS:
        raise _invalid("Transaction call is not expected")
    return Extrinsic(
        call=call,
        signer=decoded["address"],
        nonce=decoded["nonce"],
        era=None if death is None else (birth, death),
        hash="0x" + hashlib.blake2b(data, digest_size=32).hexdigest(),
        data=data,
    )


def _era(signed: Any, number: int) -> tuple[Any, int, int | None]:
    """The era as the codec takes it, its first block, and the block that it ends before.

    An era on the wire is a period and a phase, so that its first block depends on the block that asks.
    """
    if signed == "00":
        return signed, 0, None
    period, phase = signed
    birth = (max(number, phase) - phase) // period * period + phase
    return {"period": period, "phase": phase}, birth, birth + period


def _metadata_hash(runtime: Runtime) -> bytes:
    return bytes(bittensor_core.metadata_digest(runtime.metadata, runtime.spec_version, SPEC_NAME))


def _compact(data: bytes) -> tuple[int, int]:
    """SCALE's compact length in front, and where what it counts begins."""
    width = (1, 2, 4)[data[0] & 3]
    return int.from_bytes(data[:width], "little") >> 2, width


def _invalid(reason: str, code: int = 1010) -> PoolRefusal:
    return PoolRefusal(code, "Invalid Transaction", reason)
