"""Versions of `transformers` that exports claim: the installed one, and the oldest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OLDEST = ("transformers==4.57.6", "huggingface-hub==0.36.0", "tokenizers==0.22.1")
"""With what it needs in versions of its own; all else is that of the installed environment."""


def oldest_transformers(cache: Path) -> Path:
    """A folder for `sys.path` with the oldest version, which pip installs into `cache` the first time.

    That downloads about 16 MB. Raises CalledProcessError where the package registry cannot be reached.
    """
    folder = cache / "-".join(OLDEST).replace("==", "-")
    if not (folder / "complete").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", str(folder), *OLDEST], check=True, timeout=240)
        (folder / "complete").touch()
    return folder
