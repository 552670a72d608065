"""Versions of this program and of what it computes and talks with, from the packages' metadata alone."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = ("iota", "torch", "transformers", "bittensor")


def versions() -> dict[str, str]:
    """Version by name, Python's included; "none" for a package that is not installed. Imports no package."""
    ours, *others = ((name, _installed(name)) for name in PACKAGES)
    return dict([ours, ("python", platform.python_version()), *others])


def versions_line() -> str:
    """All versions on one line, for `--version`, the doctor and the first line of a log."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
