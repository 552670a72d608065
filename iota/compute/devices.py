"""Which device a node computes on: checked before anything else of the node starts."""

from __future__ import annotations

from typing import Final

import torch

from iota.console.counts import counted

_ADVICE: Final = "give auto, cpu, cuda or cuda:1 with --device"
_NO_CUDA: Final = "it is built without CUDA, and `IOTA_TORCH=cuda ./scripts/up --help` installs one with"


def resolve_device(name: str) -> str:
    """The torch device that `name` stands for; `auto` is the first CUDA device, or the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}: {_ADVICE}") from None
    if device.type == "cpu":
        return "cpu"
    if device.type not in ("cuda", "mps", "xpu"):
        raise ValueError(f"nodes do not compute on {name!r}: {_ADVICE}")
    module = torch.get_device_module(device.type)
    present = module.device_count() if module.is_available() else 0
    if (device.index or 0) >= present:
        found = counted(present, f"{device.type} device") if present else f"no {device.type} device"
        for_cpus = torch.version.cuda is None and torch.version.hip is None
        advice = _NO_CUDA if device.type == "cuda" and for_cpus else _ADVICE
        raise ValueError(
            f"--device {name}: this machine has {found} that torch {torch.__version__} can use: {advice}"
        )
    return name


def card_bytes(device: str) -> int | None:
    """Memory of an accelerator; None for the CPU, and where torch cannot tell."""
    if torch.device(device).type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[1])
