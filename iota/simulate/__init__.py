"""A swarm in virtual time: the real cores of the roles, on models of clocks, links, disks and devices.

Nothing sleeps and nothing computes; every delay and every fault is drawn from a seed.
"""
