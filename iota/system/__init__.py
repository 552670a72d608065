"""What differs between Linux, macOS and Windows: locks, signals, process groups, reads at an offset.

Nothing else asks for the system's name, or for a function that one of them lacks.
"""
