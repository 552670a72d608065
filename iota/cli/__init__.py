"""The `iota` command, one file a sub-command."""
