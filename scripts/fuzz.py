"""Fuzzes the parsers of what strangers make, with atheris: coverage-guided, on libFuzzer.

Each target (`tests/support/fuzz_targets.py`) runs in a process of its own, from its seeds and the inputs in
`tests/fuzz_corpus`. An input ends it that raises a stray error, takes more than 10 s or 2 GiB of memory; the
input is kept in `--out`, and the exit code is 1.

    python scripts/fuzz.py --target frame --seconds 60
    python scripts/fuzz.py --seconds 600                 # every target, ten minutes each
    python scripts/fuzz.py --smoke                       # every target, about a minute in all
    python scripts/fuzz.py --target frame --input FILE   # one input again, with its traceback
    python scripts/fuzz.py --seconds 600 --keep          # adds what reached new code to the corpus
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=["iota", "validator", "orchestrator"]):
    from tests.support.fuzz_targets import CORPUS, TARGETS, Target

SMOKE_S = 3.0
"""Seconds for each target."""
MAX_BYTES = 8192
"""Longest input: no seed is longer, and of short inputs there are more in a second."""
MAX_KEPT, MAX_KEPT_BYTES = 8, 4096
"""Bounds of the corpus: inputs of a target, and bytes of one."""
LIMITS = ("-timeout=10", "-rss_limit_mb=2048", f"-max_len={MAX_BYTES}", "-print_final_stats=1")
_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVER = re.compile(r"cov: (\d+)")


def run(target: Target, seconds: float, out: Path, keep: bool) -> bool:
    """Fuzz a target in a process of its own, and print what it did; whether no input breaks it."""
    with tempfile.TemporaryDirectory() as folder:
        found, seeds, log = (Path(folder, name) for name in ("found", "seeds", "log"))
        found.mkdir()
        seeds.mkdir()
        for number, seed in enumerate(target.seeds()):
            (seeds / str(number)).write_bytes(seed)
        flags = [f"-max_total_time={seconds:g}", f"-artifact_prefix={out}/{target.name}-"]
        pid = os.fork()
        if pid == 0:
            _fuzz(target, [*LIMITS, *flags, str(found), str(seeds), str(CORPUS / target.name)], log)
        fine = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        said = log.read_text(errors="replace")
        if keep and fine:
            _keep(found, CORPUS / target.name)
    runs, edges = _RUNS.search(said), _COVER.findall(said)
    counts = f"{runs[1] if runs else '?'} inputs in {seconds:g} s, {edges[-1] if edges else '?'} edges"
    print(f"{target.name}: {counts}{'' if fine else ', and one breaks it'}", flush=True)
    if not fine:
        print(said[-8000:], file=sys.stderr)
    return fine


def _fuzz(target: Target, flags: Sequence[str], log: Path) -> NoReturn:
    """Hand this process over to libFuzzer, which ends it."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    atheris.Setup([sys.argv[0], *flags], target)
    atheris.Fuzz()
    os._exit(1)


def _keep(found: Path, corpus: Path) -> None:
    """Add the longest of what was found to a target's corpus, within its bounds."""
    room = MAX_KEPT - len(list(corpus.iterdir()))
    small = [path for path in found.iterdir() if path.stat().st_size <= MAX_KEPT_BYTES]
    for path in sorted(small, key=lambda path: -path.stat().st_size)[: max(0, room)]:
        shutil.copy(path, corpus / path.name[:16])


def main() -> int:
    """Run what the arguments ask for; 1 if an input breaks a target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="by default all of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each target")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_S:g} s of each target")
    parser.add_argument("--input", type=Path, help="run the target on this file alone")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reached new code")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="for inputs that break")
    given = parser.parse_args()
    targets = [TARGETS[name] for name in given.target or TARGETS]
    if given.input:
        for target in targets:
            target(given.input.read_bytes())
        return 0
    seconds = SMOKE_S if given.smoke else given.seconds
    return 0 if all([run(target, seconds, given.out, given.keep) for target in targets]) else 1


if __name__ == "__main__":
    sys.exit(main())
