"""The kinds of devices, and which one a node computes on: checked before anything else of the node starts."""

from __future__ import annotations

from functools import cache
from typing import Final

import torch

from iota.compute.cuda_device import Cuda
from iota.compute.device import Cpu, Device
from iota.compute.mps_device import Mps
from iota.console.counts import counted
from iota.spec import OptimizerKind, RunSpec

KINDS: Final[dict[str, type[Device]]] = {"cpu": Cpu, "cuda": Cuda, "mps": Mps}
"""By torch's type of a device."""
_ADVICE: Final = "give auto, cpu, cuda, cuda:1 or mps with --device"
_NO_CUDA: Final = "it is built without CUDA, and `IOTA_TORCH=cuda ./scripts/up --help` installs one with"


@cache
def device_of(device: torch.device) -> Device:
    """The device behind a torch device: `device_of(tensor.device)`. Raises KeyError for other kinds."""
    return KINDS[device.type](device)


def accelerators() -> list[str]:
    """The first device of each kind that this machine has, but for the CPU."""
    return [kind for kind, device in KINDS.items() if kind != "cpu" and device.count()]


def resolve_device(name: str) -> str:
    """The torch device that `name` stands for; `auto` is the first CUDA device, or the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return "cuda" if Cuda.count() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}: {_ADVICE}") from None
    if device.type not in KINDS:
        raise ValueError(f"nodes do not compute on {name!r}: {_ADVICE}")
    if device.type == "cpu":
        return "cpu"
    present = KINDS[device.type].count()
    if (device.index or 0) >= present:
        found = counted(present, f"{device.type} device") if present else f"no {device.type} device"
        for_cpus = torch.version.cuda is None and torch.version.hip is None
        advice = _NO_CUDA if device.type == "cuda" and for_cpus else f"give {_there()} with --device"
        raise ValueError(
            f"--device {name}: this machine has {found} that torch {torch.__version__} can use: {advice}"
        )
    return name


def _there() -> str:
    """The devices that this machine has, for `--device`."""
    return " or ".join(["auto", "cpu", *accelerators()])


def card_bytes(device: str) -> int | None:
    """Memory of an accelerator; None for the CPU."""
    return device_of(torch.device(device)).own_bytes()


def check_dtypes(spec: RunSpec, device: str | torch.device) -> None:
    """Raises ValueError if a run computes in bf16, and `device` does not."""
    muon = spec.optimizer.kind is OptimizerKind.MUON
    if (muon or spec.precision.computes_bf16) and not device_of(torch.device(device)).has_bf16:
        why = f"its precision is {spec.precision}" if spec.precision.computes_bf16 else "Muon does"
        raise ValueError(
            f"the run computes in bf16 ({why}), and {device} of this machine cannot: update its system"
            " (macOS 14 or newer), or give --device cpu"
        )
