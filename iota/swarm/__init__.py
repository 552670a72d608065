"""`iota up`: a whole swarm on one machine. Import the submodules; this file imports none, to stay light."""
