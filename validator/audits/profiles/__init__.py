"""Tolerance profiles that were measured by `iota-validator calibrate`: what each holds for stands in it."""
