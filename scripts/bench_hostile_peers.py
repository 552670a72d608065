"""What a hostile miner costs the others: the speed of a swarm with one, over that of an honest swarm.

Each case is a swarm of real processes of two stages with two miners, of which one does its work and is
hostile on its links in one way (tests/support/hostile_miner.py). Ops take a set time, so that no miner gets
faster because another waits. JSON on stdout; a row names what the honest miners' logs say of the hostile one,
each text with how often. All processes share this machine's cores: `busy` is the share of them that was used.

    python scripts/bench_hostile_peers.py                       # 45 s each
    python scripts/bench_hostile_peers.py --only floods replays
    python scripts/bench_hostile_peers.py --smoke               # does it run at all
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.hostile_miner import WAYS
from tests.support.hostile_swarms import HONEST, HOSTILE, MINERS, HostileSwarm
from tests.support.wan_swarms import step_ends

WARM_UP: Final = 2
"""First steps, which are not counted."""
WANTED: Final = 0.95
LONGEST_S: Final = 300.0
_LINE: Final = re.compile(r"^\S+ \S+ (?:INFO|WARNING|ERROR|CRITICAL) [\w.]+: (.*)$")


async def measure(way: str, root: Path, steps: int) -> dict[str, Any]:
    """One case."""
    before, began = psutil.cpu_times(), time.monotonic()
    async with HostileSwarm(root, way, steps) as swarm:
        status = await swarm.finished(LONGEST_S)
        hotkey = swarm.crew.addresses[HOSTILE]
        logs = {name: swarm.run_dir.log(name).read_text(errors="replace") for name in MINERS[:-1]}
    after, wall = psutil.cpu_times(), time.monotonic() - began
    ends = step_ends(root)[WARM_UP - 1 :]
    used = sum(getattr(after, kind) - getattr(before, kind) for kind in ("user", "nice", "system"))
    return {
        "way": way,
        "steps_per_s": round((len(ends) - 1) / (ends[-1] - ends[0]), 4),
        "dropped": status["dropped"],
        "busy": round(used / wall / (psutil.cpu_count() or 1), 2),
        "named": {name: said for name, log in logs.items() if (said := named(log, hotkey))},
    }


def named(log: str, hotkey: str) -> dict[str, int]:
    """What a log says of a miner, without numbers, and how often."""
    lines = (found[1] for line in log.splitlines() if (found := _LINE.match(line)))
    about = (
        line.replace(hotkey, "X")
        for line in lines
        if any(x in line for x in (hotkey, "no frame came from", "has signed"))
    )
    return dict(Counter(re.sub(r"\d+(\.\d+)?", "N", line) for line in about))


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """All cases, with an honest swarm before and after them."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate([HONEST, *(given.only or [w for w in WAYS if w != HONEST]), HONEST]):
            print(way, file=sys.stderr, flush=True)
            rows.append(await measure(way, Path(folder) / str(number), given.steps))
    honest = (rows[0]["steps_per_s"] + rows[-1]["steps_per_s"]) / 2
    return {
        "wanted": WANTED,
        "rows": [{**row, "speed": round(row["steps_per_s"] / honest, 3)} for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=sorted(WAYS))
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    if given.smoke:
        given.steps, given.only = 4, given.only or ["never answers"]
    print(json.dumps(asyncio.run(run(given)), indent=1))


if __name__ == "__main__":
    main()
