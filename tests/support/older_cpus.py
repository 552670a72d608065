"""The validator's command as on an older CPU: the libraries of this process may not use all instructions.

To be run in a process of its own, since the libraries read their limits once.
"""

from __future__ import annotations

import os

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
PLAIN = {"ATEN_CPU_CAPABILITY": "default"}


def avx2() -> None:
    """A CPU without AVX-512."""
    _main(AVX2)


def plain() -> None:
    """Kernels of torch without vector instructions, which differ from those of every CPU."""
    _main(PLAIN)


def _main(limits: dict[str, str]) -> None:
    os.environ.update(limits)
    from validator.cli import main

    main()
