"""Miners that cheat, each in one way, from the table of attacks in docs/threat-model.md.

Each function without an argument is a program that a swarm starts in place of `iota-miner start`: it changes
the product's own parts in its process, and runs them. What it changes is what a miner's owner could change.
"""
