"""A node in a process of its own, driven by lines on its standard input.

One JSON object a line, `{"do": "advance", "count": 3}`: the command and its arguments. Each is answered by
one line, `{"ok": true, "result": ...}` or `{"ok": false, "error": "..."}`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tests.support.subtensor.faults import Kind
from tests.support.subtensor.metadata import RuntimeKind
from tests.support.subtensor.node import LoopbackNode

Command = Callable[..., Any]


async def obey(node: LoopbackNode, line: str) -> str:
    """Does what a line says; the line that answers it."""
    try:
        arguments = json.loads(line)
        command = commands_of(node)[arguments.pop("do")]
        result = command(**arguments)
        if inspect.isawaitable(result):
            result = await result
        return json.dumps({"ok": True, "result": result})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}"})


def commands_of(node: LoopbackNode) -> dict[str, Command]:
    """The commands, by name; their arguments are the keywords of the functions."""
    chain = node.chain

    async def advance(count: int = 1) -> dict[str, Any]:
        await node.advance(count)
        return head()

    def head() -> dict[str, Any]:
        return {
            "number": chain.head.number,
            "hash": chain.head.hash,
            "finalized": chain.finalized.number,
            "pool": [each.hash for each in chain.pool.waiting],
        }

    def fault(kind: str, method: str | None = None, times: int | None = None, seconds: float = 0.0) -> None:
        node.faults.set(Kind(kind), method, times=times, seconds=seconds)

    async def reorganise(depth: int, lose: bool = False) -> list[str]:
        return [each.hash for each in await node.reorganise(depth, lose=lose)]

    async def upgrade(kind: str = RuntimeKind.FITTING) -> int:
        return (await node.upgrade(RuntimeKind(kind))).spec_version

    def stall_finality(stalled: bool = True) -> None:
        chain.finality_stalled = stalled

    def reveal(hotkey: str, weights: dict[str, int], version_key: int = 0) -> int:
        return chain.reveal(hotkey, {int(uid): weight for uid, weight in weights.items()}, version_key)

    def value(module: str, item: str, params: list[Any] | None = None, at: str | None = None) -> Any:
        return chain.value(module, item, tuple(params or ()), at)

    def entries(module: str, item: str, prefix: list[Any] | None = None, at: str | None = None) -> Any:
        return [[list(key), each] for key, each in chain.entries(module, item, tuple(prefix or ()), at)]

    def block(at: int | str) -> dict[str, Any] | None:
        """A block's extrinsics, without their bytes."""
        found = chain.block(at)
        if found is None:
            return None
        extrinsics = [{**asdict(each), "data": len(each.data)} for each in found.extrinsics]
        return {"number": found.number, "hash": found.hash, "extrinsics": extrinsics}

    return {
        "advance": advance,
        "block": block,
        "clear": node.faults.clear,
        "drop": node.drop,
        "edit_subnet": chain.edit_subnet,
        "enroll": chain.enroll,
        "entries": entries,
        "fault": fault,
        "fund": chain.fund,
        "head": head,
        "listen": node.listen,
        "permit": chain.permit,
        "refuse": node.refuse,
        "reorganise": reorganise,
        "restart": node.restart,
        "reveal": reveal,
        "stake": chain.stake,
        "stall_finality": stall_finality,
        "uid": chain.uid,
        "upgrade": upgrade,
        "value": value,
    }
