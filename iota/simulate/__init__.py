"""A swarm in virtual time: the real cores of the roles on models of clocks, links, disks and devices.

It neither sleeps nor computes, and draws every delay and fault from a seed, so that a failing test repeats.
"""
