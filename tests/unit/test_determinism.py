"""Settings of torch that a device needs for equal results, and no more than those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from iota.compute.cuda_device import Cuda

_deterministic: Any = torch.utils.deterministic
"""Its attribute is made at run time, and unknown to type checkers."""


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Restores what the test changes."""
    fill = _deterministic.fill_uninitialized_memory
    tf32, deterministic = torch.backends.cuda.matmul.allow_tf32, torch.are_deterministic_algorithms_enabled()
    fp16_sums = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    yield
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = fp16_sums
    _deterministic.fill_uninitialized_memory = fill
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic)


def test_deterministic_kernels_do_not_fill_new_memory(
    torch_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    _deterministic.fill_uninitialized_memory = True
    Cuda(torch.device("cuda")).make_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert not _deterministic.fill_uninitialized_memory
