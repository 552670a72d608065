"""Devices that a test of numerics runs on: the CPU, and a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

_NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=_NEEDS_CUDA)]
