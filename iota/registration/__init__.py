"""Registering a node's hotkey on its subnet: the `register` command of both roles, and its steps.

Import the submodules; this file stays light, since `--help` of a role imports the command.
"""
