"""What an honest replay gave, as files of a folder: parent and child processes exchange it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import safetensors.torch

from iota.codec.wire_dtype import payload_tensor
from iota.compute.state import StageState, load_state, state_bytes
from iota.files import whole_file
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from validator.calibration.honest import Honest, Name

_PAYLOADS: Final = "payloads.safetensors"
_NUMBERS: Final = "numbers.json"
"""It is written last: a folder without it is not complete."""


def write_replay(folder: Path, found: Honest) -> None:
    """Write a replay to a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    payloads = {_text(name): payload_tensor(payload) for name, payload in found.payloads.items()}
    safetensors.torch.save_file(payloads, folder / _PAYLOADS)
    for (steps, stage), state in found.states.items():
        state_path(folder, steps, stage).write_bytes(state_bytes(state))
    numbers = {_text(name): number for name, number in found.numbers.items()}
    with whole_file(folder / _NUMBERS) as part:
        part.write_text(json.dumps({"device": found.device, "numbers": numbers}))


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a whole replay."""
    return (folder / _NUMBERS).exists()


def read_replay(folder: Path) -> Honest:
    """Read a replay without its states, which are read one by one (`read_state`)."""
    payloads = safetensors.torch.load_file(folder / _PAYLOADS)
    said = json.loads((folder / _NUMBERS).read_text())
    return Honest(
        device=said["device"],
        payloads={_name(text): tensor.numpy().tobytes() for text, tensor in payloads.items()},
        numbers={_name(text): number for text, number in said["numbers"].items()},
    )


def state_path(folder: Path, steps: int, stage: int) -> Path:
    """The file of the state of a stage after so many steps."""
    return folder / f"state-{steps}-{stage}.safetensors"


def read_state(folder: Path, steps: int, stage: int, spec: RunSpec) -> StageState:
    """The state of a stage after so many steps. Raises StateError."""
    return load_state(state_path(folder, steps, stage).read_bytes(), spec, stage)


def _text(name: Name) -> str:
    return " ".join(map(str, name))


def _name(text: str) -> Name:
    step, microbatch, stage, kind = text.split()
    return int(step), int(microbatch), int(stage), OpKind(kind)
