"""The decisions of one replica life: facts in, effects out. No clock, no randomness, no I/O."""
