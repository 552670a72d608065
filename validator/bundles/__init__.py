"""Verdict bundles: one file of what one audit read, so that anyone repeats its verdict without a server."""
