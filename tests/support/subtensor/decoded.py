"""Blocks, events and outcomes in the shapes that the SDK's transport hands to its callers."""

from __future__ import annotations

from typing import Any

from bittensor._generated.errors import ERRORS
from bittensor._transport.errors import SubstrateRequestException
from bittensor.balance import Balance
from bittensor.result import ChainError, ExtrinsicResult, chain_error_from_substrate_request

from tests.support.subtensor.blocks import ChainBlock, Event, Extrinsic, ModuleError, PoolRefusal


def decoded_header(block: ChainBlock) -> dict[str, Any]:
    return {"number": block.number, "hash": block.hash, "parentHash": block.parent}


def decoded_block(block: ChainBlock) -> dict[str, Any]:
    return {"header": decoded_header(block), "extrinsics": [_extrinsic(e) for e in block.extrinsics]}


def decoded_events(block: ChainBlock) -> list[dict[str, Any]]:
    """The records of `System.Events`."""
    return [_event(event) for event in block.events]


def refused(refusal: PoolRefusal) -> ExtrinsicResult:
    """What becomes of a write that the pool does not take."""
    payload = {"error": {"code": refusal.code, "message": refusal.message, "data": refusal.data}}
    return _failed(chain_error_from_substrate_request(SubstrateRequestException(payload)))


def abandoned(status: str) -> ExtrinsicResult:
    """What becomes of a write whose watch ends by `retracted`, `invalid`, `dropped` or `usurped`."""
    return _failed(chain_error_from_substrate_request(SubstrateRequestException(f"Extrinsic {status}")))


def outcome(block: ChainBlock, index: int) -> ExtrinsicResult:
    """How an extrinsic in a block ended."""
    events = [event for event in block.events if event.extrinsic_index == index]
    place = {"block_hash": block.hash, "extrinsic_id": f"{block.number}-{index:04d}"}
    for event in events:
        if event.name == "ExtrinsicFailed" and isinstance(event.attributes, dict):
            error = _named(event.attributes["dispatch_error"])
            return ExtrinsicResult(success=False, message=error.message, error=error, **place)
    fees = [e.attributes["actual_fee"] for e in events if e.name == "TransactionFeePaid"]  # type: ignore[call-overload]
    return ExtrinsicResult(
        success=True,
        message="Success",
        fee=Balance.from_rao(sum(fees)),
        events=[_event(event) for event in events],
        **place,
    )


def _failed(error: ChainError) -> ExtrinsicResult:
    return ExtrinsicResult(success=False, message=error.message, error=error)


def _named(error: ModuleError) -> ChainError:
    _, info = _catalogued(error)
    return ChainError(info.docs, error.name)


def _catalogued(error: ModuleError) -> tuple[tuple[int, int], Any]:
    for place, info in ERRORS.items():
        if (info.pallet, info.name) == (error.module, error.name):
            return place, info
    raise KeyError(f"the SDK knows no error {error.module}.{error.name}")


def _event(event: Event) -> dict[str, Any]:
    attributes = event.attributes
    if isinstance(attributes, dict) and "dispatch_error" in attributes:
        (pallet, index), _ = _catalogued(attributes["dispatch_error"])
        error = {"Module": {"index": pallet, "error": f"0x{index:02x}000000"}}
        attributes = {**attributes, "dispatch_error": error}
    applied = event.extrinsic_index is not None
    return {
        "phase": "ApplyExtrinsic" if applied else "Initialization",
        "extrinsic_idx": event.extrinsic_index,
        "event": {"module_id": event.module, "event_id": event.name, "attributes": attributes},
        "module_id": event.module,
        "event_id": event.name,
        "attributes": attributes,
        "topics": [],
    }


def _extrinsic(extrinsic: Extrinsic) -> dict[str, Any]:
    call = {
        "call_module": extrinsic.call.module,
        "call_function": extrinsic.call.function,
        "call_args": [{"name": name, "value": value} for name, value in extrinsic.call.params.items()],
    }
    if not extrinsic.signer:
        return {"extrinsic_hash": extrinsic.hash, "call": call}
    return {
        "extrinsic_hash": extrinsic.hash,
        "address": extrinsic.signer,
        "nonce": extrinsic.nonce,
        "call": call,
    }
