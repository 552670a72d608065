"""What a frame costs beside its compute: receiving, hashing, signing and writing, in CPU time.

One process plays a middle stage with the miner's own code: the engine, the op runner (frame, receipt,
disk) and the object client, against an embedded store in a process of its own. For each microbatch it
receives and sends one frame forwards and one backwards, one after the other, and waits for each, so that a
thread's CPU time is the cost of each part; what waits (the disk's flush, the store) costs none. The stages
before and after are played too and not counted.

How to read it: **CPU** is the cost; **wall** is what a frame waits, and a miner overlaps `get` and `put`
with compute. The last line is the design's limit: all parts together below 5 % of the compute.

A second table sets what is done with the bytes of a large frame against a copy of them, in one thread, over
more frames than caches hold.

    python scripts/bench_frames.py                  # the default run of iota up
    python scripts/bench_frames.py --smoke          # does it run at all; seconds
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.shapes import payload_size
from iota.codec.wire_dtype import payload_tensor
from iota.compute import Microbatch
from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.names import Output
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.http import HttpClient
from iota.identity.keys import Hotkey
from iota.objects import FrameKey
from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from iota.store import EmbeddedStore
from iota.store.secret import load_or_create_secret
from iota.store.transfer import ObjectClient
from iota.swarm.options import SwarmOptions
from iota.swarm.ports import HOST, choose_ports
from iota.swarm.run_dir import write_json
from iota.swarm.watching import until_ready
from iota.wire.frame import check_frame, decode_frame, encode_frame, head_size, make_header, read_head
from iota.wire.transport import IncomingFrame, OutgoingFrame
from miner.core.schedule import Op
from miner.disk import MinerDisk
from miner.kept_frames import KeptFrames, OpInput
from miner.ops import Inputs, OpRunner
from miner.receipt_log import ReceiptLog
from miner.recorder import Recorder

T = TypeVar("T")

LIMIT = 0.05
STAGE = 1
WARMUP = 3
LARGE = {"sequence_length": 8192, "sequences": 8}
"""Options of a run whose frames have 2 MiB."""
CODED = 64
"""Large frames, each coded once in a round."""
EXPIRES_S = 600.0
DEADLINE_S = 60.0


@dataclass
class Clock:
    """CPU and wall seconds of this thread, by part."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu[part] = self.cpu.get(part, 0.0) + time.thread_time() - cpu
            self.wall[part] = self.wall.get(part, 0.0) + time.perf_counter() - wall

    def call(self, part: str, function: Callable[[], T]) -> T:
        with self.timing(part):
            return function()

    async def wait(self, part: str, waiting: Awaitable[T]) -> T:
        with self.timing(part):
            return await waiting

    def clear(self) -> None:
        self.cpu.clear()
        self.wall.clear()


class TimedEngine(Engine):
    """The engine of the measured stage; its own time is the compute."""

    clock: Clock

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        return self.clock.call("compute", lambda: Engine.forward(self, mb, version, stage_input, tokens))

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        return self.clock.call("compute", lambda: Engine.backward(self, mb, version, gradient))


class TimedRecorder(Recorder):
    """The recorder of the measured stage; its thread makes frames and receipts."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def record(self, call: Callable[[], T]) -> Future[T]:
        return super().record(lambda: self._clock.call("record", call))


@dataclass
class Bench:
    """Three stages in one process, the middle one as a miner runs it."""

    spec: RunSpec
    objects: ObjectClient
    store: EmbeddedStore
    disk: MinerDisk
    clock: Clock = field(default_factory=Clock)
    keys: list[Hotkey] = field(default_factory=lambda: [Hotkey.generate() for _ in range(3)])

    def __post_init__(self) -> None:
        engine = TimedEngine(self.spec, STAGE)
        engine.clock = self.clock
        self.first, self.last = Engine(self.spec, 0), Engine(self.spec, 2)
        for stage, each in enumerate((self.first, engine, self.last)):
            each.load(StageState.initial(self.spec, stage), version=0)
        mine = self.keys[STAGE]
        log = ReceiptLog(self.disk.receipts, self.spec.id, mine)
        self.runner = OpRunner(
            self.spec, STAGE, mine, engine, log, self.disk, device_class("cpu", 1), snapshot_bytes=0
        )
        self.kept = KeptFrames(self.spec, self.disk.frame)
        self.runner.recorder.close()
        self.runner.recorder = TimedRecorder(self.clock)

    async def microbatch(self, index: int) -> None:
        """One FORWARD and one BACKWARD, each with a frame in and a frame out."""
        rng = np.random.default_rng(index)
        shape = (self.spec.data.sequences, self.spec.data.sequence_length + 1)
        tokens = rng.integers(0, self.spec.model.vocab_size, shape)
        mb = Microbatch(0, 0, index)
        inputs = Inputs(tokens=tokens)
        before = self.first.forward(mb, 0, None, tokens).read().result()
        inputs.stage_input = await self._receive(index, 0, Direction.FORWARD, before)
        forward = await self._run(OpKind.FORWARD, index, inputs, self.keys[2])
        sent = decode_frame(forward.data, self.spec)
        after = self.last.loss(mb, 0, payload_tensor(sent.payload), tokens).read().result()
        inputs.gradient = await self._receive(index, 2, Direction.BACKWARD, after)
        await self._run(OpKind.BACKWARD, index, inputs, self.keys[0])
        self.first.drop(mb)

    async def _receive(self, index: int, stage: int, direction: Direction, made: Output) -> OpInput:
        """Another stage stores its frame; the measured one gets and checks it."""
        assert made.payload is not None
        name = FrameName(
            epoch=0, step=0, microbatch=index, attempt=0, stage=stage, direction=direction
        )  # fmt: skip
        sender, receiver = self.keys[stage], self.keys[STAGE].ss58
        header = make_header(self.spec, name, made.digest, sender.ss58, receiver)
        data = encode_frame(header, made.payload, sender.sign)
        key = str(FrameKey(self.spec.id, name))
        await self.store.put(key, data)
        notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
        url = self.store.presign_get(key, EXPIRES_S)
        got = await self.clock.wait("get", self.objects.get(url, len(data), DEADLINE_S))

        arrived = IncomingFrame(notice, sender.ss58, got)
        checked = self.clock.call("check", lambda: self.kept.check(arrived))
        return self.clock.call("keep", lambda: self.kept.keep(checked, notice.digest))

    async def _run(self, kind: OpKind, index: int, inputs: Inputs, receiver: Hotkey) -> OutgoingFrame:
        op = Op(kind, 0, 0, 0, microbatch=index)
        work = {(0, index): inputs}
        frame = self.clock.call("launch", lambda: self.runner.launch(op, work, receiver.ss58)).result()
        assert frame is not None
        url = self.store.presign_put(
            str(FrameKey(self.spec.id, frame.notice.name)), len(frame.data), EXPIRES_S
        )
        await self.clock.wait("put", self.objects.put(url, frame.data, DEADLINE_S))
        return frame


@asynccontextmanager
async def store_process(root: Path) -> AsyncIterator[EmbeddedStore]:
    """`iota store serve` for as long as the context lasts."""
    port = choose_ports(("store",), {}, {})["store"]
    secret, url = root / "secret", f"http://{HOST}:{port}"
    arguments = ("store", "serve", "--root", root / "store", "--secret-file", secret, "--port", port)
    known = load_or_create_secret(secret)
    command = [sys.executable, "-m", "iota.cli.main", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    try:
        async with HttpClient() as http:
            await until_ready(http, "store", f"{url}/healthz")
        store = EmbeddedStore(url, known)
        yield store
        await store.close()
    finally:
        process.terminate()
        await process.wait()


async def measure(spec: RunSpec, microbatches: int, root: Path) -> Clock:
    """Seconds of all parts over `microbatches`, after a warm-up."""
    async with store_process(root) as store, ObjectClient() as objects:
        with MinerDisk(root / "miner") as disk:
            bench = Bench(spec, objects, store, disk)
            for index in range(WARMUP):
                await bench.microbatch(index)
            bench.clock.clear()
            for index in range(WARMUP, WARMUP + microbatches):
                await bench.microbatch(index)
            _measure_digests(spec, bench.clock, 2 * microbatches)
            bench.runner.close()
            bench.runner.log.close()
            return bench.clock


def _measure_digests(spec: RunSpec, clock: Clock, count: int) -> None:
    """The digest of each frame, by itself."""
    payload = bytes(payload_size(spec))
    for _ in range(count):
        with clock.timing("digest"):
            blake3(payload).hexdigest()


def report(clock: Clock, microbatches: int) -> dict[str, dict[str, float]]:
    """Milliseconds a microbatch (two frames in, two out) by part, and their share of the compute."""
    for times in (clock.cpu, clock.wall):
        times["make"] = times.pop("launch") + times.pop("record") - times["compute"] - times["digest"]
    parts = ("compute", "get", "check", "keep", "digest", "make", "put")
    compute = clock.cpu["compute"]
    found = {
        part: {
            "cpu_ms": 1000 * clock.cpu[part] / microbatches,
            "wall_ms": 1000 * clock.wall[part] / microbatches,
            "share": clock.cpu[part] / compute,
        }
        for part in parts
    }
    together = parts[1:]
    found["together"] = {
        key: sum(found[part][key] for part in together) for key in ("cpu_ms", "wall_ms", "share")
    }
    return found


def coding(rounds: int) -> dict[str, float]:
    """Seconds for one large frame, by what is done with it."""
    spec, sender = SwarmOptions.of(**LARGE).spec("0" * 64, 1), Hotkey.generate()
    name = FrameName(epoch=0, step=0, microbatch=0, attempt=0, stage=0, direction=Direction.FORWARD)
    payloads = [bytes([n + 1]) * payload_size(spec) for n in range(CODED)]
    digests = [blake3(payload).hexdigest() for payload in payloads]
    headers = [make_header(spec, name, digest, sender.ss58, sender.ss58) for digest in digests]
    frames = [encode_frame(headers[n], payloads[n], sender.sign) for n in range(CODED)]
    head = head_size(frames[0])
    work: dict[str, Callable[[int], object]] = {
        "a copy": lambda n: bytes(memoryview(payloads[n])),
        "encode: header, signature, one copy": lambda n: encode_frame(headers[n], payloads[n], sender.sign),
        "digest of the payload": lambda n: blake3(payloads[n]).hexdigest(),
        "decode without the digest": lambda n: read_head(frames[n][:head], spec),
        "decode": lambda n: check_frame(frames[n], spec),
        "decode, payload to memory of its own": lambda n: payload_tensor(
            check_frame(frames[n], spec).payload
        ),
    }
    found = {}
    for what, call in work.items():
        found[what] = min(_median_s(call) for _ in range(rounds))  # other work may disturb a round
    print(f"\nframes of {len(frames[0]):,} bytes, in one thread\n")
    print("| what | µs | GB/s | of a copy |\n|---|---|---|---|")
    for what, seconds in found.items():
        rate, share = len(frames[0]) / seconds / 1e9, found["a copy"] / seconds
        print(f"| {what} | {1e6 * seconds:.0f} | {rate:.1f} | {share:.2f} |")
    return found


def _median_s(call: Callable[[int], object]) -> float:
    """Median seconds of a call over all large frames."""
    times = []
    for n in range(CODED):
        began = time.perf_counter()
        call(n)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


MEANINGS = {
    "compute": "forward and backward",
    "get": "receiving: GET from the store",
    "check": "hash, parse, hash of the payload, signature",
    "keep": "frame to disk, payload to memory of its own",
    "digest": "hash of what is sent",
    "make": "header, signature, hash, frame to disk, receipt to disk",
    "put": "sending: PUT to the store",
    "together": "**all but compute**",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny model and few microbatches")
    parser.add_argument("--model", default=None, help="a preset; the default of iota up if not given")
    parser.add_argument("--ratio", type=int, default=None)
    parser.add_argument("--microbatches", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    count = 5 if given.smoke else given.microbatches
    options = {"model": "tiny" if given.smoke else given.model, "ratio": given.ratio}
    given_options = {name: value for name, value in options.items() if value is not None}
    chosen = SwarmOptions.of(**given_options, microbatches=WARMUP + count)  # none is held out
    spec = chosen.spec("0" * 64, 1)
    with tempfile.TemporaryDirectory() as folder:
        found = report(asyncio.run(measure(spec, count, Path(folder))), count)
    print(f"{spec.name}, stage {STAGE} of {spec.layout.stages}, {spec.data.tokens} tokens a microbatch,")
    print(f"frames of {payload_size(spec):,} bytes; {count} microbatches, two frames in and two out each\n")
    print("| part | what | CPU ms | of compute | wall ms |\n|---|---|---|---|---|")
    for part, row in found.items():
        print(
            f"| {part} | {MEANINGS[part]} | {row['cpu_ms']:.2f} | {row['share']:.2%} | {row['wall_ms']:.2f} |"
        )
    within = found["together"]["share"] < LIMIT
    print(f"\nlimit {LIMIT:.0%} of the compute: {'kept' if within else 'NOT kept'}")
    coded = coding(1 if given.smoke else 20)
    if given.json is not None:
        options_json = asdict(chosen)
        parts = {"options": options_json, "microbatches": count, "parts": found, "coding_s": coded}
        write_json(given.json, parts)


if __name__ == "__main__":
    main()
