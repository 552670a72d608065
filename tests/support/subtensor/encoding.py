"""A runtime's codec from the node's side: storage, runtime APIs and blocks of a `Subtensor` as SCALE bytes.

The codec is the SDK's own, so that what the node sends is what the SDK can read, by the same metadata.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from bittensor._transport.codec import RuntimeCodec

from tests.support.subtensor.blocks import Call, ChainBlock, Event, Extrinsic, ModuleError, Params
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.metadata import RuntimeKind, runtime_metadata

TRANSACTION_VERSION: Final = 1
SPEC_NAME: Final = "node-subtensor"
_PREFIX_BYTES: Final = 32
"""A storage key begins with the hashes of its pallet and its item, 16 bytes each."""
_BARE: Final = b"\x05"
"""The first byte of an extrinsic that nobody signed."""


class Runtime:
    """One version of the runtime."""

    def __init__(self, kind: RuntimeKind, spec_version: int, slot_ms: int) -> None:
        self.kind = kind
        self.spec_version = spec_version
        self.metadata = runtime_metadata(kind, slot_ms)
        self.codec = RuntimeCodec(
            self.metadata,
            spec_version=spec_version,
            transaction_version=TRANSACTION_VERSION,
            spec_name=SPEC_NAME,
        )

    def version(self) -> dict[str, Any]:
        """The answer to `state_getRuntimeVersion`."""
        return {
            "specName": SPEC_NAME,
            "implName": SPEC_NAME,
            "authoringVersion": 1,
            "specVersion": self.spec_version,
            "implVersion": 1,
            "apis": [],
            "transactionVersion": TRANSACTION_VERSION,
            "stateVersion": 1,
        }

    def value(self, chain: Subtensor, key: bytes, at: str) -> bytes | None:
        """What is stored under a key at a block; None where nothing is."""
        entry = self._entries.get(key[:_PREFIX_BYTES])
        if entry is None:
            return None
        if (entry.pallet, entry.name) == ("System", "Events"):
            return self._events(_known(chain, at))
        try:
            params = (
                tuple(self.codec.decode_storage_key_params(entry, key, fixed=0)) if entry.param_types else ()
            )
        except ValueError:
            return None
        value = chain.value(entry.pallet, entry.name, params, at)
        return (
            None if value is None else self._encode(entry.value_type, value, f"{entry.pallet}.{entry.name}")
        )

    def keys(self, chain: Subtensor, prefix: bytes, at: str) -> list[bytes]:
        """All stored keys under a prefix, which names at least pallet and item, in order."""
        entry = self._entries.get(prefix[:_PREFIX_BYTES])
        if entry is None:
            return []
        params: list[Params] = [params for params, _ in chain.entries(entry.pallet, entry.name, (), at)]
        keys = self.codec.storage_key_batch(entry, [list(each) for each in params])
        return sorted(key for key in keys if key.startswith(prefix))

    def runtime_call(self, chain: Subtensor, function: str, data: bytes, at: str) -> bytes:
        """The answer of a runtime API.

        Raises:
            ValueError: the arguments do not decode.
            LookupError: the runtime has no such function.
            NotImplementedError: it has, but the model of the chain has not.
        """
        if function == "Metadata_metadata_at_version":
            some = b"\x01" + bytes(self.codec.encode("Vec<u8>", self.metadata))
            return some if data == b"\x0f\x00\x00\x00" else b"\x00"
        api, _, method = function.partition("_")
        definition = self.codec.runtime_api_map.get(api, {}).get(method)
        if definition is None:
            raise LookupError(function)
        if function == "TransactionPaymentApi_query_info":
            return self._encode(definition["output"], self._payment_info(chain, data), function)
        params: list[Any] = []
        for _, type_string in definition["inputs"]:
            params.append(self.codec.decode(type_string, data, strict=False))
            data = data[len(self.codec.encode(type_string, params[-1])) :]
        return self._encode(definition["output"], chain.runtime_call(api, method, params, at), function)

    def extrinsic(self, extrinsic: Extrinsic) -> bytes:
        """An extrinsic as it stands in a block."""
        if extrinsic.data:
            return extrinsic.data
        call = extrinsic.call
        body = _BARE + self.codec.compose_call(call.module, call.function, dict(call.params)).data
        return bytes(self.codec.encode_compact(len(body)) + body)

    def _encode(self, type_string: str, value: Any, name: str) -> bytes:
        """A value of the model; one that does not fit is a mistake of ours, not of a client."""
        try:
            return bytes(self.codec.encode(type_string, value))
        except ValueError as error:
            raise RuntimeError(f"{name} does not fit the metadata: {error}") from error

    @functools.cached_property
    def _entries(self) -> dict[bytes, Any]:
        """The storage items by the start of their keys."""
        entries = (
            self.codec.storage_entry(pallet.name, item.name)
            for pallet in self.codec.metadata_ir().pallets
            for item in pallet.storage
        )
        return {self.codec.storage_key(entry, []): entry for entry in entries}

    @functools.cached_property
    def _errors(self) -> dict[ModuleError, dict[str, Any]]:
        """The pallets' errors as `DispatchError::Module` holds them."""
        return {
            ModuleError(pallet.name, error.name): {
                "Module": {"index": pallet.index, "error": f"0x{error.index:02x}000000"}
            }
            for pallet in self.codec.metadata_ir().pallets
            for error in pallet.errors
        }

    def _payment_info(self, chain: Subtensor, data: bytes) -> dict[str, Any]:
        """What an extrinsic would cost, whoever signed it; behind it stands its length, 4 bytes."""
        call = as_call(self.codec.decode_extrinsic(data[:-4])["call"])
        weight = {"ref_time": 1_000_000, "proof_size": 0}
        return {"weight": weight, "class": "Normal", "partial_fee": chain.fee(call)}

    def _events(self, block: ChainBlock) -> bytes:
        records: list[dict[str, Any]] = [
            {
                "phase": _phase(e),
                "event": {e.module: {e.name: self._attributes(e)}},
                "topics": [],
            }
            for e in block.events
        ]
        return self._encode(self.codec.storage_entry("System", "Events").value_type, records, "System.Events")

    def _attributes(self, event: Event) -> Any:
        if isinstance(event.attributes, tuple):
            return list(event.attributes)
        return {
            name: self._errors[value] if isinstance(value, ModuleError) else value
            for name, value in event.attributes.items()
        }


def _phase(event: Event) -> Any:
    return "Finalization" if event.extrinsic_index is None else {"ApplyExtrinsic": event.extrinsic_index}


def as_call(decoded: dict[str, Any]) -> Call:
    """A call out of the codec's words for it."""
    return Call(
        module=decoded["call_module"],
        function=decoded["call_function"],
        params={argument["name"]: argument["value"] for argument in decoded["call_args"]},
    )


@functools.cache
def runtime(kind: RuntimeKind, spec_version: int, slot_ms: int) -> Runtime:
    """A runtime; made once, since metadata takes long to read."""
    return Runtime(kind, spec_version, slot_ms)


def as_bytes(decoded: str) -> bytes:
    """Bytes out of the codec's words for them: text where they are UTF-8, otherwise hex."""
    try:
        return bytes.fromhex(decoded.removeprefix("0x")) if decoded.startswith("0x") else decoded.encode()
    except ValueError:
        return decoded.encode()


def header(block: ChainBlock) -> dict[str, Any]:
    """A header as JSON-RPC shows it. The roots are not computed: nothing in the SDK checks them."""
    return {
        "parentHash": block.parent,
        "number": hex(block.number),
        "stateRoot": block.hash,
        "extrinsicsRoot": block.hash,
        "digest": {"logs": []},
    }


def _known(chain: Subtensor, at: str) -> ChainBlock:
    block = chain.block(at)
    if block is None:
        raise LookupError(at)
    return block
