"""The devices and kernels that this machine can replay with: each in a child process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from iota.spec import Precision


@dataclass(frozen=True)
class Variant:
    """How one child process computes."""

    name: str
    device: str = "cpu"
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that choose kernels; the libraries read them when they start."""


_PASSIVE: Final = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait sleep: much faster where other programs run beside it."""
_OLDER: Final = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""A CPU without AVX-512."""
_KERNELS: Final = {
    "default": {},
    "avx2": _OLDER,
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-avx512": {"DNNL_MAX_CPU_ISA": "AVX512_CORE"},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
}
"""Kernels of torch itself, of oneDNN and of MKL. Only those of torch stand in a device class."""
_ALL_THREADS: Final = ("default", "aten-avx2")
"""Kernels that are run with every number of threads; the others with the least."""


def variants(threads: Sequence[int], accelerators: Sequence[str] = ()) -> list[Variant]:
    """All variants: on the CPU, and one on each accelerator, a torch device.

    The first one leads: the others replay what it sent.
    """
    found = [
        Variant(f"{name}-t{count}", "cpu", count, {**_PASSIVE, **environment})
        for name, environment in _KERNELS.items()
        for count in (threads if name in _ALL_THREADS else threads[:1])
    ]
    return found + [Variant(device, device, threads[0], _PASSIVE) for device in accelerators]


def is_left_out(variant: Variant, precision: Precision) -> bool:
    """Whether a variant cannot compute in a number format.

    In bf16, torch 2.13 packs operands by instructions that its AVX2 build lacks on some CPUs: it raises.
    """
    return precision.computes_bf16 and variant.environment.get("ATEN_CPU_CAPABILITY") == "avx2"
