"""Tensor frames, and the transports that carry them, one file each."""
