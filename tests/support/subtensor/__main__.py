"""`python -m tests.support.subtensor`: a loopback node as a process; see `control`.

Prints one JSON line with its URL, obeys what comes on standard input, and ends with it or on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.control import obey
from tests.support.subtensor.metadata import RuntimeKind
from tests.support.subtensor.node import LoopbackNode


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.subtensor", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--netuid", type=int, default=9)
    parser.add_argument("--tempo", type=int, default=20, help="blocks")
    parser.add_argument("--weights-rate-limit", type=int, default=10, help="blocks")
    parser.add_argument("--finality-lag", type=int, default=2, help="blocks")
    parser.add_argument("--commit-reveal", action="store_true", help="weights are time-locked")
    parser.add_argument("--shielded", action="store_true", help="offers keys of the MEV shield")
    parser.add_argument("--runtime", type=RuntimeKind, default=RuntimeKind.FITTING, choices=list(RuntimeKind))
    parser.add_argument("--slot-time", type=float, default=12.0, help="seconds a block, as the chain says")
    clock = parser.add_mutually_exclusive_group()
    clock.add_argument("--block-time", type=float, default=0.0, help="seconds a block; 0 waits for `advance`")
    clock.add_argument("--instant", action="store_true", help="a submission makes its own blocks at once")
    asyncio.run(_run(parser.parse_args()))


async def _run(args: argparse.Namespace) -> None:
    chain = Subtensor(
        netuid=args.netuid,
        tempo=args.tempo,
        weights_rate_limit=args.weights_rate_limit,
        commit_reveal=args.commit_reveal,
        finality_lag=args.finality_lag,
        block_time_s=args.slot_time,
    )
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, lines.feed_eof)
    async with LoopbackNode(
        chain,
        port=args.port,
        kind=args.runtime,
        shielded=args.shielded,
        instant=args.instant,
        block_time=args.block_time,
    ) as node:
        print(json.dumps({"url": node.url}), flush=True)
        while line := await lines.readline():
            print(await obey(node, line.decode()), flush=True)


if __name__ == "__main__":
    main()
