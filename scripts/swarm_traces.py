"""What a swarm on this machine shows of itself, during its run and after: for bench_swarm."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from iota.swarm.run_dir import read_info

ANSWER_S = 2.0
_THREAD = ("compute", "serialise", "wait")
"""What the nodes report of their one worker; the rest of the wall time is `other`."""


@dataclass
class _Process:
    """CPU seconds of one process at the first and the last look of the training."""

    name: str
    first: tuple[float, float]
    """(main thread, other threads)."""
    last: tuple[float, float]


@dataclass
class Watch:
    """Looks at a running `iota up` from outside; only looks while it trains are counted."""

    run_dir: Path
    pid: int
    processes: dict[int, _Process] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    began: float | None = None
    ended: float = 0.0
    busy: float = 0.0
    """CPU seconds of the whole machine since `began`."""
    _busy_before: float = 0.0

    def look(self) -> None:
        """Once; nothing is noted unless the orchestrator answers that the run is in training."""
        status = self._status()
        if status is None or status["phase"] == "gathering" or (self.began is None and status["finished"]):
            return
        if status["nodes"] or not self.status:
            self.status = status
        if status["finished"]:
            return
        now = time.monotonic()
        if self.began is None:
            self.began, self._busy_before = now, _busy_seconds()
        self.ended, self.busy = now, _busy_seconds() - self._busy_before
        for process in self._all():
            self._note(process)

    def activities(self, wall_s: float) -> dict[str, dict[str, Any]]:
        """Miner -> its stage and shares of `wall_s` by activity, as it last reported."""
        nodes = self.status.get("nodes", {})
        stages = {m["hotkey"]: m["stage"] for m in self.status.get("members", ()) if m["role"] == "miner"}
        names = {ss58: name for name, ss58 in read_info(self.run_dir).get("hotkeys", {}).items()}
        found = {}
        for hotkey, stage in stages.items():
            seconds = nodes.get(hotkey, {}).get("seconds", {})
            shares = {kind: seconds.get(kind, 0.0) / wall_s for kind in (*_THREAD, "transfer")}
            shares["other"] = max(0.0, 1.0 - sum(shares[kind] for kind in _THREAD))
            found[names.get(hotkey, hotkey)] = {"stage": stage, "seconds": seconds, "shares": shares}
        return found

    def cpu_shares(self) -> dict[str, dict[str, float]]:
        """CPU seconds during the training by role, and their share of cores x wall time."""
        whole = (self.ended - (self.began or 0.0)) * (os.cpu_count() or 1)
        seconds: dict[str, float] = defaultdict(float)
        for process in self.processes.values():
            loop, rest = (b - a for a, b in zip(process.first, process.last, strict=True))
            if process.name.startswith("miner"):
                seconds["miners, device"] += rest
                seconds["miners, loop"] += loop
            else:
                seconds[process.name] += loop + rest
        found = dict(sorted(seconds.items(), key=lambda item: -item[1]))
        # A process that ended between two looks counts as others' from its last look on.
        found["others"] = max(0.0, self.busy - sum(found.values()))
        found["idle"] = max(0.0, whole - self.busy)
        return {name: {"seconds": s, "share": s / whole if whole else 0.0} for name, s in found.items()}

    def _status(self) -> dict[str, Any] | None:
        try:
            url = read_info(self.run_dir).get("url")
            if url is None:
                return None
            with urllib.request.urlopen(f"{url}/v1/status", timeout=ANSWER_S) as answer:
                status: dict[str, Any] = json.load(answer)
                return status
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError):
            return None  # it is starting, or has ended

    def _all(self) -> Iterator[psutil.Process]:
        try:
            top = psutil.Process(self.pid)
            yield from (top, *top.children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def _note(self, process: psutil.Process) -> None:
        try:
            cpu = process.cpu_times()
            main = sum(t.user_time + t.system_time for t in process.threads() if t.id == process.pid)
            now = (main, cpu.user + cpu.system - main)
            known = self.processes.get(process.pid)
            if known is None:
                self.processes[process.pid] = _Process(self._name(process), now, now)
            else:
                known.last = now
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return

    def _name(self, process: psutil.Process) -> str:
        """The name of the log that a process of the swarm writes to; `iota up` for the command itself."""
        if process.pid == self.pid:
            return "iota up"
        logs = (self.run_dir / "logs").resolve()
        for opened in process.open_files():
            path = Path(opened.path)
            if path.parent == logs and path.suffix == ".log":
                return path.stem
        return process.name()


def _busy_seconds() -> float:
    """CPU seconds of the whole machine since it started, without interrupts and what was stolen."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def op_seconds(run_dir: Path) -> dict[str, dict[str, float]]:
    """Miner -> kind of op -> mean seconds, from the receipts on the miners' disks."""
    found = {}
    for name, receipts in _receipts(run_dir).items():
        times: dict[str, list[float]] = defaultdict(list)
        for receipt in receipts:
            times[receipt["kind"]].append(receipt["ended"] - receipt["started"])
        found[name] = {kind: sum(each) / len(each) for kind, each in sorted(times.items())}
    return found


def frame_latencies(run_dir: Path) -> dict[str, dict[str, float]]:
    """Milliseconds on the way of a frame, by part; see bench_swarm. Raises ValueError if there is none."""
    hotkeys = read_info(run_dir).get("hotkeys", {})
    noticed = _notices(run_dir / "journal.db")
    ops = [(hotkeys[name], r) for name, receipts in _receipts(run_dir).items() for r in receipts]
    made = {_op(hotkey, r): r["ended"] for hotkey, r in ops}
    to_notice, to_op = [], []
    for frame, (sender, at) in noticed.items():
        kinds = ("forward",) if frame[-1] == "f" else ("backward", "loss")
        ended = next((made[key] for kind in kinds if (key := (sender, *frame[:4], kind)) in made), None)
        if ended is not None:
            to_notice.append(at - ended)
    if not to_notice:
        raise ValueError(f"no frame of {run_dir} is in its journal: has the form of an entry changed?")
    idle_since: dict[str, float] = defaultdict(float)
    for hotkey, receipt in sorted(ops, key=lambda item: item[1]["started"]):
        fed = [noticed[frame][1] for frame in _inputs(receipt) if frame in noticed]
        if fed and idle_since[hotkey] <= max(fed):
            to_op.append(receipt["started"] - max(fed))
        idle_since[hotkey] = receipt["ended"]
    return {"op to notice": _spread(to_notice), "notice to op, receiver idle": _spread(to_op)}


def _receipts(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.parent.name: [json.loads(line.partition(b" ")[2]) for line in path.read_bytes().splitlines()[1:]]
        for path in sorted((run_dir / "nodes").glob("*/receipts.jsonl"))
    }


_FrameKey = tuple[int, int, int, int, int, str]
"""(epoch, step, microbatch, attempt, stage, direction)"""


def _notices(journal: Path) -> dict[_FrameKey, tuple[str, float]]:
    """Frame -> (sender's hotkey, time at which the orchestrator journaled its notice)."""
    found: dict[_FrameKey, tuple[str, float]] = {}
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as db:
        for (text,) in db.execute("SELECT json FROM entries WHERE kind = 'exchanged' ORDER BY seq"):
            entry = json.loads(text)
            for notice in entry["frames"]:
                found.setdefault(_frame(notice["name"]), (entry["hotkey"], entry["at"]))
    db.close()
    return found


def _frame(name: dict[str, Any]) -> _FrameKey:
    return (
        name["epoch"], name["step"], name["microbatch"], name["attempt"], name["stage"], name["direction"],
    )  # fmt: skip


def _op(hotkey: str, receipt: dict[str, Any]) -> tuple[str, int, int, int, int, str]:
    r = receipt
    return (hotkey, r["epoch"], r["step"], r["microbatch"], r["attempt"], r["kind"])


def _inputs(receipt: dict[str, Any]) -> list[_FrameKey]:
    return [_frame(json.loads(signed["header"])["name"]) for signed in receipt["inputs"]]


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    last = len(ordered) - 1
    return {
        "count": len(seconds),
        "p50_ms": 1000 * ordered[last // 2],
        "p99_ms": 1000 * ordered[round(0.99 * last)],
    }
