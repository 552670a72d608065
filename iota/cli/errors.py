"""Moved to `iota.terminal`, where the roles may import it."""

from iota.terminal import run_command

__all__ = ["run_command"]
