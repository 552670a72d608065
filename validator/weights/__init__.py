"""Turns scores into weights: one row on the chain per tempo."""
