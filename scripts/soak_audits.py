"""Honest work on other kernels, audited by the product's code until enough has passed: are there false fails?

Each row of a seeded matrix is a run of a small model in one process, by real engines: its receipts, frames,
commitments and records are those of a swarm. Miners and validators of a row are processes with kernels and
threads of their own: AVX2 or AVX-512 of torch, oneDNN and MKL; 1 to 4 threads. What is drawn: precision,
optimizer, wire dtype, codec, pipeline, activation policy, carried or reset moments, length of
segments, size of the model. Audits have the thresholds and profiles that ship.

    python scripts/soak_audits.py --out soak               # until the counts are reached; goes on
    python scripts/soak_audits.py --out soak --swarms 6    # real swarms: replicas, re-routes, restarts
    python scripts/soak_audits.py --out lies --lies --rows 9    # how much of bf16 in place of fp32 is found
    python scripts/soak_audits.py --out soak --show        # the totals of what is there

OUT/rows/NUMBER.json has the figures of a row, OUT/failed/NUMBER what a false fail was found in. The exit code
is 1 after a false fail.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from iota.files import whole_file
from iota.settings.environment import child_environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.soak_rows import Row, row, variant_of
from tests.support.soak_swarms import soak_swarm

ROOT: Final = Path(__file__).resolve().parents[1]
_MOST_S: Final = 3600.0
"""Longest that one process may take."""
_BATCH: Final = 12
"""Rows that are made together: a process for each variant, since importing torch takes seconds."""


def soak_rows(rows: list[Row], work: Path) -> None:
    """Make and audit rows in folders of `work`, with one process for all that a variant does."""
    makes, audits = defaultdict(list), defaultdict(list)
    for each in rows:
        folder = work / str(each.number)
        folder.mkdir(parents=True)
        (folder / "row.json").write_bytes(each.canonical())
        makes[each.maker].append(str(folder))
        for number, auditor in enumerate(each.auditors):
            audits[auditor.variant].append(f"{folder}:{number}")
    for what, orders in (("make", makes), ("audit", audits)):
        for variant, own in orders.items():
            _child(variant, what, *own)


def figures(made: Row, folder: Path, seconds: float) -> dict[str, Any]:
    """What came of a row."""
    spec = made.spec
    return {
        "number": made.number,
        "size": made.size,
        "precision": spec.precision,
        "optimizer": spec.optimizer.kind,
        "state": spec.optimizer.state,
        "wire": spec.boundary.wire,
        "codec": spec.boundary.codec,
        "pipeline": spec.schedule.pipeline,
        "activations": made.activations,
        "commit_every": spec.audit.commit_every,
        "steps": spec.schedule.steps,
        "maker": made.maker,
        "audits": [
            {**auditor.model_dump(), **json.loads((folder / f"audit-{number}.json").read_text())}
            for number, auditor in enumerate(made.auditors)
        ],
        "seconds": round(seconds, 1),
    }


def _child(variant: str, *arguments: str) -> None:
    """Run a process with the kernels and threads of a variant. Raises CalledProcessError."""
    chosen = variant_of(variant)
    environment = {**child_environment(chosen.threads), **chosen.environment}
    command = [sys.executable, "-m", "tests.support.soak_work", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_MOST_S, cwd=ROOT)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        done.check_returncode()


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Audits by kind and by how they were compared, and the largest ratios of a distance to its bound."""
    audits: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    largest: dict[str, dict[str, float]] = {}
    for how, tally in (each for one in rows for audit in one["audits"] for each in audit["tallies"].items()):
        audits[how] += tally["audits"]
        failed[how] += tally["failed"]
        for key, ratio in tally["largest"].items():
            own = largest.setdefault(how, {})
            own[key] = max(own.get(key, 0.0), ratio)
    return {
        "rows": len(rows),
        "ops": sum(count for how, count in audits.items() if how.startswith("op ") and " lie" not in how),
        "segments": sum(
            count for how, count in audits.items() if how.startswith("segment ") and " lie" not in how
        ),
        "audits": dict(sorted(audits.items())),
        "failed": {how: count for how, count in sorted(failed.items()) if count},
        "false fails": [
            f"row {one['number']}: {fail}" for one in rows for a in one["audits"] for fail in a["fails"]
        ],
        "largest share of a bound": {
            how: {key: float(f"{ratio:.2g}") for key, ratio in sorted(own.items())}
            for how, own in sorted(largest.items())
        },
        "by": {name: dict(sorted(Counter(_values(rows, name)).items())) for name in _BY},
        "seconds": round(sum(one["seconds"] for one in rows), 1),
    }


_BY: Final = (
    "size",
    "precision",
    "optimizer",
    "wire",
    "codec",
    "pipeline",
    "activations",
    "commit_every",
    "maker",
)


def _values(rows: list[dict[str, Any]], name: str) -> Iterator[Any]:
    return (one[name] for one in rows if name in one)


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((out / "rows").glob("*.json"))]


def _keep(out: Path, name: str, found: dict[str, Any], work: Path) -> None:
    """Write the figures of a row and the totals, and copy what was audited if something failed."""
    if any(audit["fails"] for audit in found["audits"]):
        shutil.copytree(work, out / "failed" / name, dirs_exist_ok=True)
    path = _path(out, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(found, indent=1) + "\n")
    summary = totals(_rows(out))
    with whole_file(out / "totals.json") as part:
        part.write_text(json.dumps(summary, indent=1) + "\n")
    print(
        f"{name}: {found['seconds']} s; {summary['ops']} ops, {summary['segments']} segments,"
        f" {len(summary['false fails'])} false fails",
        flush=True,
    )


def _soak(given: argparse.Namespace) -> None:
    """Batches of rows that are missing, until the counts are reached."""
    for first in range(0, given.rows, _BATCH):
        numbers = [
            n
            for n in range(first, min(first + _BATCH, given.rows))
            if not _path(given.out, f"{n:05}").exists()
        ]
        done = totals(_rows(given.out))
        if done["ops"] >= given.ops and done["segments"] >= given.segments:
            return
        begun, work = time.monotonic(), _emptied(given.out)
        rows = [row(given.seed, number, lies=given.lies) for number in numbers]
        soak_rows(rows, work)
        for each in rows:
            took = (time.monotonic() - begun) / len(rows)
            _keep(
                given.out,
                f"{each.number:05}",
                figures(each, work / str(each.number), took),
                work / str(each.number),
            )


def _soak_swarms(given: argparse.Namespace) -> None:
    for number in range(given.swarms):
        name = f"swarm-{number:05}"
        if not _path(given.out, name).exists():
            work = _emptied(given.out)
            _keep(given.out, name, soak_swarm(number, work), work)


def _emptied(out: Path) -> Path:
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)
    return work


def _path(out: Path, name: str) -> Path:
    return out / "rows" / f"{name}.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--segments", type=int, default=500)
    parser.add_argument("--rows", type=int, default=100_000, help="at most so many rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lies", action="store_true")
    parser.add_argument("--swarms", type=int, default=0, help="real swarms in place of rows")
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    given.out = given.out.resolve()
    if not given.show:
        (_soak_swarms if given.swarms else _soak)(given)
    summary = totals(_rows(given.out))
    print(json.dumps(summary, indent=1))
    return 1 if summary["false fails"] else 0


if __name__ == "__main__":
    sys.exit(main())
