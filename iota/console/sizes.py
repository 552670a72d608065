"""Sizes of memory and disk in words."""

from __future__ import annotations


def in_gb(size: int) -> str:
    """`1,234.50 GB`, of 10^9 bytes each."""
    return f"{size / 1e9:,.2f} GB"
