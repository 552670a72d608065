"""Hotkeys and coldkeys on disk, signatures, and signed HTTP requests."""
