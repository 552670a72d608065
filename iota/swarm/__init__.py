"""A whole swarm on one machine: what `iota up` does. Import the submodules; this file stays light."""
