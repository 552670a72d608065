"""How a process of the swarm begins: tied to its parent's life, then the ordinary console command.

python -m iota.swarm.child PARENT_PID MODULE:FUNCTION [ARGUMENT]...
"""

from __future__ import annotations

import importlib
import sys

from iota.swarm.parent_death import die_with


def run_entry(entry: str, arguments: list[str]) -> None:
    """Run a console command of this project in this process, as if it had been typed."""
    module, _, function = entry.partition(":")
    sys.argv = [module, *arguments]
    getattr(importlib.import_module(module), function)()


def main() -> None:
    die_with(int(sys.argv[1]))
    run_entry(sys.argv[2], sys.argv[3:])


if __name__ == "__main__":
    main()
