"""One honest replay in a process of its own, whose environment chooses the kernels.

python -m validator.calibration.child ORDER      # a JSON file: `Order`
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from iota.compute.determinism import device_class
from iota.compute.state import StageState
from iota.spec import Count, Frozen, RunSpec
from validator.calibration.honest import Segment
from validator.calibration.replay_files import read_replay, read_state, write_replay
from validator.calibration.text import tokens


class Order(Frozen):
    """What a child process replays."""

    spec: RunSpec
    number: Count
    """Of the segment; its data follows from it."""
    steps: Count
    kept: tuple[Count, ...]
    """Numbers of steps after which states are kept."""
    start: str | None
    """Folder with the states at the start; None: the run's initial ones."""
    start_steps: Count
    """The states in `start` are those after so many steps."""
    sent: str | None
    """Folder of the leading replay; None for the leading one itself."""
    out: str
    device: str
    threads: Count


def replay(order: Order) -> None:
    """Replay and write the folder `order.out`."""
    torch.set_num_threads(order.threads)
    sent = {} if order.sent is None else read_replay(Path(order.sent)).payloads
    take = partial(tokens, order.spec, order.number)
    segment = Segment(order.spec, starts(order), take, sent, order.kept, order.device)
    found = segment.run(order.steps)
    found.device = device_class(order.device, order.threads)
    write_replay(Path(order.out), found)


def starts(order: Order) -> list[StageState]:
    """The states at the segment's start, one a stage."""
    spec, stages = order.spec, range(order.spec.layout.stages)
    if order.start is None:
        return [StageState.initial(spec, stage) for stage in stages]
    return [read_state(Path(order.start), order.start_steps, stage, spec) for stage in stages]


if __name__ == "__main__":
    replay(Order.model_validate_json(Path(sys.argv[1]).read_bytes()))
