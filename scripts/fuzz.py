"""Fuzzes the parsers of what strangers make with atheris (coverage-guided, libFuzzer).

Each target (`tests/support/fuzz_targets.py`) runs in a process of its own, from its seeds and the inputs in
`tests/fuzz_corpus`. An input that gives a stray error, takes more than 10 s or more than 2 GiB of memory ends
it; the input is kept in `--out`, and the exit code is 1. The last line of a target says how many inputs ran.

    python scripts/fuzz.py --target frame --seconds 60
    python scripts/fuzz.py --seconds 600                 # every target, ten minutes each
    python scripts/fuzz.py --smoke                       # every target, about a minute in all
    python scripts/fuzz.py --target frame --input FILE   # one input again, with the traceback
    python scripts/fuzz.py --seconds 600 --keep          # and adds what reached new code to the corpus
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SMOKE_S = 3
"""Seconds for each target."""
START_S = 120
"""Longest time to import and instrument, beside the fuzzing itself."""
MAX_BYTES = 4096
"""Longest input: the forms of the tiny run are shorter, and short inputs are more of them in a second."""
LIMITS = ["-timeout=10", "-rss_limit_mb=2048", f"-max_len={MAX_BYTES}", "-print_final_stats=1"]
_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVER = re.compile(r"cov: (\d+)")


def fuzz(name: str, corpus: list[Path], seconds: float, out: Path) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["iota", "validator", "orchestrator"], enable_loader_override=False):
        from tests.support.fuzz_targets import TARGETS

    folders = [str(folder) for folder in corpus]
    flags = [*LIMITS, f"-max_total_time={seconds:g}", f"-artifact_prefix={out}/{name}-"]
    atheris.Setup([sys.argv[0], *flags, *folders], TARGETS[name])
    atheris.Fuzz()


def run(name: str, seconds: float, out: Path, keep: bool) -> bool:
    """Fuzz a target in a process of its own; whether no input was found that breaks it."""
    from tests.support.fuzz_targets import CORPUS, TARGETS

    with tempfile.TemporaryDirectory() as folder:
        found, seeds = Path(folder, "found"), Path(folder, "seeds")
        found.mkdir()
        seeds.mkdir()
        for number, seed in enumerate(TARGETS[name].seeds()):
            (seeds / str(number)).write_bytes(seed)
        command = [sys.executable, __file__, "--child", name, "--seconds", str(seconds), "--out", str(out)]
        command += [str(found), str(seeds), str(CORPUS / name)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds + START_S, check=False
        )
        if keep and done.returncode == 0:
            _keep(found, CORPUS / name)
    runs, cover = _RUNS.search(done.stderr), _COVER.findall(done.stderr)
    said = f"{runs[1] if runs else 'no'} inputs in {seconds:g} s, {cover[-1] if cover else 'no'} edges covered"
    print(f"{name}: {said}{'' if done.returncode == 0 else ', and one breaks it'}", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    return done.returncode == 0


def _keep(found: Path, corpus: Path) -> None:
    """Add the shortest of what was found, up to 16 inputs in all."""
    kept = len(list(corpus.iterdir()))
    for path in sorted(found.iterdir(), key=lambda path: path.stat().st_size)[: max(0, 16 - kept)]:
        shutil.copy(path, corpus / path.name[:16])


def main() -> int:
    """Run what the arguments ask for; 1 if a target broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", action="append", help="name of a target; by default all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each target")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_S} s of each target")
    parser.add_argument("--input", type=Path, help="run the target on this file alone")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach new code in the corpus")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="for inputs that break")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("folders", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fuzz(given.child, given.folders, given.seconds, given.out)
        return 0
    from tests.support.fuzz_targets import TARGETS

    names = given.target or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no target is called {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    if given.input:
        for name in names:
            TARGETS[name](given.input.read_bytes())
        return 0
    seconds = SMOKE_S if given.smoke else given.seconds
    fine = [run(name, seconds, given.out, given.keep) for name in names]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
