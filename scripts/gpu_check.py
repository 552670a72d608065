"""Does the engine work on this GPU, and how fast: one command, under eight minutes, one JSON.

It needs a checkout, torch and what the engine imports: no network, no installation, and no bittensor. What
is missing is named before anything runs. In this order, each with its seconds:

    numerics   the engine's bits repeat, whatever is kept for the backward; another device's are within the
               bounds that audits allow; the fingerprint repeats
    memory     the most memory that steps take is what `iota plan` says, within 5 %
    speed      `bench_stage.py` of each stage at Orion's width, with and without commitments

Each check that fails is named at the end, and the exit code is 1. A check that raises counts as failed, and
the others run.

    python scripts/gpu_check.py --json gpu.json
    python scripts/gpu_check.py --device cpu --smoke       # tiny shapes, anywhere
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

NEEDED: Final = (
    "torch",
    "transformers",
    "numpy",
    "pydantic",
    "blake3",
    "rfc8785",
    "safetensors",
    "zstandard",
    "psutil",
)
"""Modules that the engine imports, by the names of their packages."""


def missing() -> list[str]:
    """The packages of `NEEDED` that this Python cannot import."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


class Report:
    """The figures and failures so far, in a file after each check: a run that is cut short keeps them."""

    def __init__(self, path: Path | None, device: str) -> None:
        self._path, self._start = path, time.perf_counter()
        self.found: dict[str, Any] = {"device": device, "failed": [], "checks": {}}

    def check(self, name: str, work: Callable[[], tuple[bool, dict[str, Any]]]) -> None:
        """Run a check, which says whether it holds, and its figures."""
        clock = time.perf_counter()
        try:
            holds, figures = work()
        except Exception as error:  # noqa: BLE001 - one check must not end the others
            holds, figures = False, {"error": "".join(traceback.format_exception(error))[-2000:]}
        took = round(time.perf_counter() - clock, 1)
        self.found["checks"][name] = {"holds": holds, "seconds": took, **figures}
        if not holds:
            self.found["failed"].append(name)
        print(f"{'ok    ' if holds else 'FAILED'} {name} ({took} s): {json.dumps(figures)[:600]}", flush=True)
        self.found["seconds"] = round(time.perf_counter() - self._start, 1)
        if self._path is not None:
            self._path.write_text(json.dumps(self.found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="write the figures here, after each check")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes")
    parser.add_argument("--only", action="append", metavar="TEXT", help="checks with this in their name")
    given = parser.parse_args()
    if lacking := missing():
        print(
            f"{sys.executable} has no {', '.join(lacking)}. On another machine: pip download --no-deps"
            f" {' '.join(lacking)}, in the versions of constraints.txt; here: pip install --no-index -t",
            file=sys.stderr,
        )
        raise SystemExit(1)
    import stage_checks
    import torch

    from iota.compute.devices import resolve_device

    try:
        resolve_device(given.device)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    from iota.compute.determinism import device_class

    report = Report(given.json, device_class(given.device, torch.get_num_threads()))
    checks = stage_checks.all_checks(torch.device(given.device), smoke=given.smoke)
    for name, work in checks.items():
        if not given.only or any(text in name for text in given.only):
            report.check(name, work)
    failed = report.found["failed"]
    print(f"{len(report.found['checks'])} checks, failed: {', '.join(failed) or 'none'}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
