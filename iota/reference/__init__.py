"""Trainers in one process that results of a swarm are held against."""
