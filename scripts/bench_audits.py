"""Every cheat of a miner in docs/threat-model.md, each as a real miner in a real swarm beside honest ones.

Each case is a swarm of processes with a validator (`tests/support/cheat_cases.py`). The short swarms have
epochs of three steps, and `audit.window_steps` is three too, so that a segment of each miner is audited in
each epoch; one case has the default rates. How to read the table:

- **found by**: what was first held against the cheat: an audit's verdict, a charge of the orchestrator's, or
  the door, which refuses its receipts.
- **steps**: inner steps from its first lie, by its own log, to the end of the epoch whose audit found it.
- **accusations**: what was held against miners that are honest. There must be none.

Cases that lie seldom are marked: at the default rates what they gain on average counts
(scripts/bench_audit_gain.py). The exit code is 1 if a cheat was not found, or was paid, or an honest miner
was accused or not paid.

    python scripts/bench_audits.py                     # every case, one after another; half an hour
    python scripts/bench_audits.py --only zeros --only "never steps"
    python scripts/bench_audits.py --json audits.json --markdown audits.md
    python scripts/bench_audits.py --smoke             # one epoch of one case
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.cheat_cases import CASES, Case
from tests.support.cheat_runs import Outcome, faults, run_case

SMOKE = {"zeros": replace(CASES["zeros"], epochs=1)}
HEAD = """| cheat | its weight | weights of the honest | found by | steps | accusations | run |
|---|---|---|---|---|---|---|"""


def row(name: str, case: Case, outcome: Outcome) -> dict[str, Any]:
    """A case's figures as JSON."""
    return {
        "name": name,
        "case": {**asdict(case), "accomplices": sorted(case.accomplices)},
        "outcome": asdict(outcome),
        "steps_to_detection": outcome.steps_to_detection,
        "false_accusations": outcome.false_accusations(case),
        "faults": faults(case, outcome),
    }


def line(name: str, case: Case, outcome: Outcome) -> str:
    """A case's row of the table."""
    cheats = ", ".join(f"{outcome.weights[miner]:.3f}" for miner in case.cheats)
    honest = ", ".join(f"{outcome.weights[miner]:.3f}" for miner in outcome.honest)
    by = case.unpaid if outcome.found is None else f"{outcome.found.by}: {outcome.found.reason}"
    steps = "" if outcome.steps_to_detection is None else str(outcome.steps_to_detection)
    accused = len(outcome.false_accusations(case))
    what = f"{name} (seldom)" if case.occasional else name
    return f"| {what} | {cheats} | {honest} | {by} | {steps} | {accused} | {outcome.seconds:.0f} s |"


def run(cases: Mapping[str, Case], keep: Path | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Run cases one after another; the figures and the row of each."""
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "run" if keep is None else keep / name.replace(" ", "-")
            try:
                outcome = asyncio.run(run_case(case, root))
            except (AssertionError, TimeoutError) as error:  # the other cases are still worth their time
                yield {"name": name, "faults": [f"it did not end: {error}"]}, f"| {name} | did not end |"
                continue
        yield row(name, case, outcome), line(name, case, outcome)


def main() -> int:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=CASES, help="a case by its name; may be repeated")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--keep", type=Path, help="keep the runs' folders here")
    parser.add_argument(
        "--smoke", action="store_true", help="one epoch of one case, to see that the script runs"
    )
    args = parser.parse_args()
    rows, lines = [], [HEAD]
    print(HEAD, flush=True)
    chosen = SMOKE if args.smoke else {name: CASES[name] for name in args.only or CASES}
    for figures, text in run(chosen, args.keep):
        rows.append(figures)
        lines.append(text)
        print(text, flush=True)
        for fault in figures["faults"]:
            print(f"{figures['name']}: {fault}", file=sys.stderr, flush=True)
        if args.json is not None:  # after each case, since all of them take long
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
        if args.markdown is not None:
            args.markdown.write_text("\n".join(lines) + "\n")
    return int(any(figures["faults"] for figures in rows))


if __name__ == "__main__":
    sys.exit(main())
