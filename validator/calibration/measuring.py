"""Makes the samples: for each run segment after segment, for each segment a child process a variant.

All that is done lies in a folder, and what is there is not done again:

    RUN/samples/NUMBER.json    distances of one segment
    RUN/work/                  replays of the segment in progress, and the states that it starts from
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from iota.console.command import WorkFailed
from iota.files import whole_file
from iota.settings.environment import child_environment
from iota.spec import RunSpec
from validator.calibration.child import Order, starts
from validator.calibration.plan import Plan, name_of
from validator.calibration.replay_files import is_complete
from validator.calibration.samples import SegmentSamples, compare_all
from validator.calibration.variants import Variant, is_left_out

_MOST_S: Final = 3600.0
"""Longest replay of a segment."""
Say = Callable[[str], None]


def measure(plan: Plan, found: Sequence[Variant], folder: Path, say: Say) -> None:
    """Make all samples that are missing in `folder`. Raises WorkFailed where a child process fails."""
    for spec in plan.specs:
        own = folder / name_of(spec)
        usable = [variant for variant in found if not is_left_out(variant, spec.precision)]
        for number in range(plan.segments):
            if _samples_path(own, number).exists():
                say(f"{own.name}: segment {number + 1} of {plan.segments} is there")
                continue
            samples = _segment(spec, plan, number, usable, own, say)
            _keep(samples, _samples_path(own, number))


def samples_in(folder: Path, spec: RunSpec) -> list[SegmentSamples]:
    """The samples of a run that are in `folder`."""
    paths = sorted((folder / name_of(spec) / "samples").glob("*.json"))
    return [SegmentSamples.model_validate_json(path.read_bytes()) for path in paths]


def _segment(
    spec: RunSpec, plan: Plan, number: int, usable: Sequence[Variant], own: Path, say: Say
) -> SegmentSamples:
    """Replay one segment by all variants. It starts where the one before ended, else from initial weights."""
    work, start = own / "work" / str(number), own / "work" / "start"
    orders: list[Order] = []
    for variant in usable:
        order = Order(
            spec=spec,
            number=number,
            steps=plan.depths[-1],
            kept=plan.depths,
            start=str(start) if start.exists() else None,
            start_steps=plan.depths[-1],
            sent=orders[0].out if orders else None,
            out=str(work / variant.name),
            device=variant.device,
            threads=variant.threads,
        )
        say(f"{own.name}: segment {number + 1} of {plan.segments}, replay by {variant.name}")
        _replay(order, variant, work)
        orders.append(order)
    say(f"{own.name}: segment {number + 1} of {plan.segments}, comparing {len(orders)} replays")
    samples = compare_all(spec, starts(orders[0]), plan.depths, [Path(order.out) for order in orders])
    shutil.rmtree(start, ignore_errors=True)
    Path(orders[0].out).rename(start)
    shutil.rmtree(work)
    return samples


def _replay(order: Order, variant: Variant, work: Path) -> None:
    """Replay in a child process, unless an earlier run did the same."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{variant.name}.json"
    if path.exists() and path.read_bytes() == order.canonical() and is_complete(Path(order.out)):
        return
    shutil.rmtree(order.out, ignore_errors=True)
    path.write_bytes(order.canonical())
    command = [sys.executable, "-m", "validator.calibration.child", str(path)]
    environment = {**child_environment(variant.threads), **variant.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_MOST_S)
    if done.returncode:
        raise WorkFailed(f"the replay by {variant.name} failed:\n{done.stderr[-2000:]}")


def _samples_path(own: Path, number: int) -> Path:
    return own / "samples" / f"{number:04}.json"


def _keep(samples: SegmentSamples, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(samples.canonical())
