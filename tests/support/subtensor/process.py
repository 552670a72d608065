"""A loopback node in a process of its own, for tests whose other side is a process too or may be killed.

async with NodeProcess("--commit-reveal", "--block-time", "0.1") as node:
    await node.tell("fund", address=coldkey, tao=100)
    ...  # node.url
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_START_S: Final = 30.0
_ANSWER_S: Final = 10.0


class NodeProcess:
    """`python -m tests.support.subtensor` with these arguments; see there and `control` for its orders."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.url = ""

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.support.subtensor", *self._arguments),
            cwd=Path(__file__).parents[3],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.url = (await self._line(_START_S))["url"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), _ANSWER_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise

    async def tell(self, command: str, **arguments: Any) -> Any:
        """Has the node do something, and returns what comes of it.

        Raises:
            ValueError: the node does not understand it, or cannot do it.
        """
        answer = await self.tell_line(json.dumps({"do": command, **arguments}))
        if not answer["ok"]:
            raise ValueError(answer["error"])
        return answer["result"]

    async def tell_line(self, line: str) -> Any:
        """The answer to a bare line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        return await self._line(_ANSWER_S)

    async def _line(self, seconds: float) -> Any:
        assert self.process.stdout is not None
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), seconds))
