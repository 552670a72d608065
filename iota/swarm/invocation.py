"""How this user starts `iota up` in this folder, for messages that say how to go on."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def resume_command(root: Path) -> str:
    """The command that goes on with the run in `root`."""
    return f"{up_command()} --run-dir {shlex.quote(shown(root))}"


def up_command() -> str:
    """`iota up` where the shell finds this program, else the script beside it, else the program's path."""
    own = Path(sys.prefix) / "bin" / "iota"
    found = shutil.which("iota")
    if found is not None and Path(found).absolute() == own:
        return "iota up"
    script = Path(sys.prefix).parent / "scripts" / "up"
    return _runnable(script) if script.is_file() else f"{_runnable(own)} up"


def shown(path: Path) -> str:
    """A path as one would type it here: relative, where it is below this folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _runnable(path: Path) -> str:
    text = shown(path)
    return shlex.quote(text if text.startswith("/") else f"./{text}")
