"""How long the commands that a person waits for take from start to end, against an empty Python.

Best of several starts, in seconds: what the machine does besides only adds. `iota status` asks an
orchestrator that is not there, so that its imports and its answer are counted and no network is.

    python scripts/bench_start_up.py                # JSON
    python scripts/bench_start_up.py --smoke        # one start each
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

LIMIT_S = 0.5
COMMANDS = {
    "iota --help": ("iota.cli.main", "--help"),
    "iota status": ("iota.cli.main", "status", "--orchestrator", "http://127.0.0.1:9"),
    "iota doctor --help": ("iota.cli.main", "doctor", "--help"),
    "iota-miner --help": ("miner.cli", "--help"),
    "iota-validator --help": ("validator.cli", "--help"),
    "iota-orchestrator --help": ("orchestrator.cli", "--help"),
}


def best_s(arguments: tuple[str, ...], starts: int) -> float:
    """Seconds of the fastest of so many starts of this Python with `arguments`."""
    times = []
    for _ in range(starts):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one start of each command")
    starts = 1 if parser.parse_args().smoke else 10
    empty_s = best_s(("-c", "pass"), starts)
    seconds = {name: best_s(("-m", *command), starts) for name, command in COMMANDS.items()}
    report = {
        "starts": starts,
        "empty_python_s": round(empty_s, 3),
        "limit_s": LIMIT_S,
        "commands": {
            name: {"seconds": round(s, 3), "times_empty": round(s / empty_s, 1)}
            for name, s in seconds.items()
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
