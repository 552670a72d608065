"""Entry point of the swarm's processes: binds the process to its parent, then runs a console command.

python -m iota.swarm.child PARENT_PID MODULE:FUNCTION [ARGUMENT]...
"""

from __future__ import annotations

import importlib
import sys

from iota.swarm.parent_death import exit_with_parent


def run_entry(entry: str, arguments: list[str]) -> None:
    """Run the console command `module:function` in this process, with `arguments` as its command line."""
    module, _, function = entry.partition(":")
    sys.argv = [module, *arguments]
    getattr(importlib.import_module(module), function)()


def main() -> None:
    """Run the command that `sys.argv` names; see the module."""
    exit_with_parent(int(sys.argv[1]))
    run_entry(sys.argv[2], sys.argv[3:])


if __name__ == "__main__":
    main()
