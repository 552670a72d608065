"""The `register` command of both roles: registers a node's hotkey on its subnet.

Import the submodules; this file imports none, since a `--help` of a role imports the command.
"""
