"""The `iota` command: one file for each sub-command."""
