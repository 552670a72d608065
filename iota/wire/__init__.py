"""Tensor frames, and one file for each transport that carries them."""
