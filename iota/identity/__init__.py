"""Keys: hotkeys and coldkeys on disk, signatures, and the signing of HTTP requests."""
