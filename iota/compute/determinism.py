"""Bitwise reproducibility: settings of a device, and the class of devices with equal results."""

from __future__ import annotations

import os
import platform

import torch

from iota.compute.compiled import is_compiled


def make_deterministic(device: torch.device) -> None:
    """Select kernels that are reproducible from run to run; CPU kernels are. Call before the first op."""
    if device.type == "cuda":
        # cuBLAS is reproducible only with a fixed workspace, which is set by this variable only.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        # With it on, torch also fills every new tensor with NaN, a write as large as the results themselves.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32 = False
        # Muon's products are in fp16 with sums in fp32 (`iota.compute.polar`).
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def device_class(device: str | torch.device, threads: int) -> str:
    """Name of the device's class: hardware, kernels, threads (CPU) and torch version.

    Devices of one class give bitwise equal results of an op.
    """
    target = torch.device(device)
    version = f"torch{torch.__version__.split('+')[0]}"
    if target.type == "cuda":
        kernels = "compiled" if is_compiled(target) else "eager"
        return f"cuda/{torch.cuda.get_device_name(target)}/{kernels}/cuda{torch.version.cuda}/{version}"
    if target.type == "cpu":
        kernels = torch.backends.cpu.get_cpu_capability()
        return f"cpu/{platform.machine()}/{kernels}/t{threads}/{version}"
    return f"{target.type}/{platform.machine()}/{version}"
