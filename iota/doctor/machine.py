"""Facts about the machine: versions, disk and graphics cards, without slow imports."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import psutil

from iota.console.version import versions, versions_line
from iota.doctor.facts import Machine, Software, Unknown
from iota.planning import existing


def software() -> Software:
    """Versions of Python and the SDK, without importing the SDK."""
    sdk = versions()["bittensor"]
    known = None if sdk == "none" else sdk
    return Software(sys.version_info[:3], known, versions_line(), torch_has_cuda())


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA, by its `version.py` alone: importing it takes seconds.

    True where there is no torch, about which this says nothing.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return True
    written = Path(found.origin).with_name("version.py").read_text()
    return re.search(r"^cuda\b.*= None$", written, re.MULTILINE) is None


def machine(data_dir: Path, cards: tuple[str, ...] | Unknown) -> Machine:
    """The disk of `data_dir`, or of its nearest folder that exists, and the `cards`."""
    there = existing(data_dir)
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    memory = psutil.virtual_memory().total
    return Machine(data_dir, writable, shutil.disk_usage(there).free, cards, memory)


async def graphics_cards() -> tuple[str, ...]:
    """Name and memory of each card, from `nvidia-smi`; empty where there is no such program.

    Raises:
        OSError: the program fails, as with a broken driver.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = ("--query-gpu=name,memory.total", "--format=csv,noheader")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, *query, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise OSError(f"failed with code {process.returncode}")
    return tuple(line.strip() for line in output.decode(errors="replace").splitlines()[:64] if line.strip())
