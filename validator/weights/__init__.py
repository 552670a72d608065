"""Weights: from scores to one row on the chain each tempo."""
