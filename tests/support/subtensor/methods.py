"""The JSON-RPC methods of a substrate node, as far as the SDK's transport calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tests.support.subtensor.blocks import ChainBlock, PoolRefusal
from tests.support.subtensor.encoding import Runtime, header
from tests.support.subtensor.rpc import Method, RpcConnection, RpcError
from tests.support.subtensor.signatures import decode_signed
from tests.support.subtensor.watches import Topic, Watch

if TYPE_CHECKING:
    from tests.support.subtensor.node import LoopbackNode

MAX_KEYS: Final = 1000
"""Storage keys in one request."""


def methods_of(node: LoopbackNode) -> dict[str, Method]:
    """All methods, by the names that clients use."""
    chain = node.chain

    def block(params: list[Any], position: int = 0) -> ChainBlock:
        """The block that a request is about, given by its hash; the head if it is not given."""
        at = params[position] if len(params) > position else None
        found = chain.head if at is None else chain.block(_text(at))
        if found is None:
            raise RpcError(4003, f"Client error: UnknownBlock: no block {_text(at)[:66]}")
        return found

    def runtime(at: ChainBlock) -> Runtime:
        return node.runtime_at(at.number)

    def block_hash(_: RpcConnection, params: list[Any]) -> str | None:
        number = params[0] if params else None
        if number is None:
            return chain.head.hash
        if not isinstance(number, int):
            raise RpcError(-32602, "Invalid params: not a block number")
        found = chain.block(number)
        return found.hash if found else None

    def get_header(_: RpcConnection, params: list[Any]) -> dict[str, Any] | None:
        return header(block(params))

    def get_block(_: RpcConnection, params: list[Any]) -> dict[str, Any]:
        at = block(params)
        extrinsics = [_hex(runtime(at).extrinsic(each)) for each in at.extrinsics]
        return {"block": {"header": header(at), "extrinsics": extrinsics}, "justifications": None}

    def storage(_: RpcConnection, params: list[Any]) -> str | None:
        at = block(params, 1)
        return _optional_hex(runtime(at).value(chain, _bytes(_first(params)), at.hash))

    def storage_of_keys(_: RpcConnection, params: list[Any]) -> list[dict[str, Any]]:
        keys, at = _first(params), block(params, 1)
        if not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise RpcError(-32602, f"Invalid params: a list of up to {MAX_KEYS} keys is needed")
        changes = [[key, _optional_hex(runtime(at).value(chain, _bytes(key), at.hash))] for key in keys]
        return [{"block": at.hash, "changes": changes}]

    def keys_paged(_: RpcConnection, params: list[Any]) -> list[str]:
        prefix, count, start = (*params, None, None, None)[:3]
        at = block(params, 3)
        if not isinstance(count, int) or not 0 < count <= MAX_KEYS:
            raise RpcError(-32602, f"Invalid params: a page has up to {MAX_KEYS} keys")
        after = _bytes(start) if start is not None else b""
        keys = runtime(at).keys(chain, _bytes(prefix), at.hash)
        return [_hex(key) for key in keys if key > after][:count]

    def call(_: RpcConnection, params: list[Any]) -> str:
        at = block(params, 2)
        function, data = (*params, None, None)[:2]
        try:
            return _hex(runtime(at).runtime_call(chain, _text(function), _bytes(data), at.hash))
        except LookupError as error:
            reason = f"Exported method {_text(function)[:100]} is not found"
            raise RpcError(4003, f"Client error: Execution failed: {reason}") from error
        except NotImplementedError as error:
            raise RpcError(4003, f"Client error: Execution failed: {error} is not modelled") from error
        except ValueError as error:
            raise RpcError(4003, f"Client error: Execution failed: bad arguments: {error}") from error

    def next_index(_: RpcConnection, params: list[Any]) -> int:
        return chain.next_nonce(_text(_first(params)))

    def submit(_: RpcConnection, params: list[Any]) -> str:
        return node.submit(decode_signed(node.runtime, chain, _bytes(_first(params)))).hash

    def submit_and_watch(connection: RpcConnection, params: list[Any]) -> str:
        extrinsic = decode_signed(node.runtime, chain, _bytes(_first(params)))
        subscription = connection.subscribe("author_extrinsicUpdate", Watch(extrinsic))
        try:
            node.submit(extrinsic)
        except PoolRefusal:
            connection.unsubscribe(subscription.id)
            raise
        connection.queue(subscription, "ready")
        return subscription.id

    def subscribe_heads(topic: Topic, connection: RpcConnection, _: list[Any]) -> str:
        new = topic is Topic.NEW_HEADS
        subscription = connection.subscribe("chain_newHead" if new else "chain_finalizedHead", topic)
        connection.queue(subscription, header(chain.head if new else chain.finalized))
        return subscription.id

    def unsubscribe(connection: RpcConnection, params: list[Any]) -> bool:
        return connection.unsubscribe(_text(_first(params)))

    methods: dict[str, Method] = {
        "account_nextIndex": next_index,
        "author_submitAndWatchExtrinsic": submit_and_watch,
        "author_submitExtrinsic": submit,
        "author_unwatchExtrinsic": unsubscribe,
        "chain_getBlock": get_block,
        "chain_getBlockHash": block_hash,
        "chain_getFinalizedHead": lambda _, __: chain.finalized.hash,
        "chain_getHead": lambda _, __: chain.head.hash,
        "chain_getHeader": get_header,
        "chain_subscribeFinalizedHeads": functools.partial(subscribe_heads, Topic.FINALIZED_HEADS),
        "chain_subscribeNewHeads": functools.partial(subscribe_heads, Topic.NEW_HEADS),
        "chain_unsubscribeFinalizedHeads": unsubscribe,
        "chain_unsubscribeNewHeads": unsubscribe,
        "state_call": call,
        "state_getKeysPaged": keys_paged,
        "state_getRuntimeVersion": lambda _, params: runtime(block(params)).version(),
        "state_getStorageAt": storage,
        "state_queryStorageAt": storage_of_keys,
    }
    return {name: _refusing(method) for name, method in methods.items()}


def _refusing(method: Method) -> Callable[[RpcConnection, list[Any]], Any]:
    """The pool's refusals as errors of the wire."""

    def answer(connection: RpcConnection, params: list[Any]) -> Any:
        try:
            return method(connection, params)
        except PoolRefusal as refusal:
            raise RpcError(refusal.code, refusal.message, refusal.data) from refusal

    return answer


def _first(params: list[Any]) -> Any:
    return params[0] if params else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RpcError(-32602, "Invalid params: a string is needed")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(_text(value).removeprefix("0x"))
    except ValueError as error:
        raise RpcError(-32602, "Invalid params: not hex") from error


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _optional_hex(value: bytes | None) -> str | None:
    return None if value is None else _hex(value)
