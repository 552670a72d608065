"""Entry point of the swarm's processes: binds the process to its parent, then runs a console command.

python -m iota.swarm.child PARENT_PID NAME MODULE:FUNCTION [ARGUMENT]...
"""

from __future__ import annotations

import importlib
import sys

from iota.system.processes import exit_with_parent, name_process


def run_entry(entry: str, arguments: list[str]) -> None:
    """Run the console command `module:function` in this process, with `arguments` as its command line."""
    module, _, function = entry.partition(":")
    sys.argv = [module, *arguments]
    getattr(importlib.import_module(module), function)()


def main() -> None:
    """Run the command that `sys.argv` names; see the module."""
    exit_with_parent(int(sys.argv[1]))
    name_process(sys.argv[2])
    run_entry(sys.argv[3], sys.argv[4:])


if __name__ == "__main__":
    main()
