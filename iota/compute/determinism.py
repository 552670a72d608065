"""Which machines give the same bits, and how a device is made to give them each time."""

from __future__ import annotations

import os
import platform

import torch


def make_deterministic(device: torch.device) -> None:
    """Choose kernels that give the same bits each time; a CPU's do already. Call before the first op."""
    if device.type == "cuda":
        # cuBLAS is reproducible only with a fixed workspace, which it takes from the environment alone
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.matmul.allow_tf32 = False


def device_class(device: str | torch.device, threads: int) -> str:
    """Ops of equal classes agree to the bit: hardware, kernels, threads (CPU) and library version."""
    target = torch.device(device)
    version = f"torch{torch.__version__.split('+')[0]}"
    if target.type == "cuda":
        return f"cuda/{torch.cuda.get_device_name(target)}/cuda{torch.version.cuda}/{version}"
    if target.type == "cpu":
        kernels = torch.backends.cpu.get_cpu_capability()
        return f"cpu/{platform.machine()}/{kernels}/t{threads}/{version}"
    return f"{target.type}/{platform.machine()}/{version}"
